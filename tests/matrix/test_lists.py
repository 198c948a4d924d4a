# SPDX-License-Identifier: Apache-2.0
"""A name in a list of meson.build is in every kind of test: none can be added without."""

import re
from pathlib import Path

import conftest
import hostile_table
import pytest
import sources

TREE = Path(__file__).resolve().parents[2]

# Parts of one format that have harnesses, tables and files of their own
PARTS = {"vmdk": ("vmdk_hosted", "vmdk_cowd", "vmdk_sesparse", "vmdk_descriptor")}
TABLES = {"vmdk": ("hosted", "cowd", "sesparse", "descriptor")}


def listed(name, file="meson.build"):
    text = (TREE / file).read_text()
    return re.findall(r"'([^']+)'", re.search(rf"^{name} = \[(.*?)\]", text, re.M | re.S)[1])


@pytest.mark.parametrize("name", listed("source_formats"))
def test_a_source(name):
    families = {sources.family(variant) for variant in sources.load_all().values()}
    assert name in families
    tables = {path.stem for path in Path(hostile_table.__file__).with_name("hostile").iterdir()}
    assert tables >= set(TABLES.get(name, (name,)))
    if name != "raw":  # which has nothing to read but its size
        assert set(listed("harnesses", "tests/fuzz/meson.build")) >= set(PARTS.get(name, (name,)))
    assert benchmarked(name)


def benchmarked(name):
    text = (TREE / "tests/bench/settings.py").read_text()
    suffix = {"parallels": "hdd"}.get(name, name)
    return re.search(rf'"\w+\.{suffix}":', text)


@pytest.mark.parametrize("name", listed("view_formats"))
def test_a_view(name):
    assert name.replace("_", "-") in conftest.VIEWS
    suffixes = re.findall(r'^\t\.suffix = "([^"]+)"', (TREE / f"fs/view/{name}.c").read_text(), re.M)
    text = (TREE / "tests/bench/settings.py").read_text()
    text += (TREE / "tests/mount/tools.py").read_text()
    assert suffixes and f'"{suffixes[-1]}"' in text


@pytest.mark.parametrize("name", listed("archive_formats") + ["compressed"])
def test_a_container(name):
    assert name in {sources.family(variant) for variant in sources.load_all().values()}
    assert name in listed("harnesses", "tests/fuzz/meson.build")
