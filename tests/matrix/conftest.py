# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the matrix: the tool, and sources and copied views that live as long as needed.

IMGFS_VIEWCAT names the viewcat program. IMGFS_SHARD=K/N runs the K-th of N parts, K from 1, so
that N processes can share the work. Everything is made beneath TMPDIR and removed again; a
source and the copies of its views go before the next source is made.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

import sources
from tools import Viewcat, flat_extent_of, suffix

# Sources and views meet at guest bytes and at the map of what is allocated, so that not every pair
# has something of its own to show. Every source is seen as raw. The other main views are made of
# every source of the main formats, and of one shape of each variant of the others; the views
# beside them of all shapes of two plain sources, and of one shape of the first variants of each
# format. That each pair of formats goes together is for mount/test_cells.py.
MAIN_FORMATS = ("raw", "qcow2", "vmdk")
PLAIN, FIRST_VARIANTS = ("raw", "qcow2"), 3
MAIN_VIEWS = ("qcow2", "raw", "vmdk")
VIEWS = (*MAIN_VIEWS, "vmdk-stream", "vmdk-flat", "vmdk-flat-extent", "vhd", "vhd-fixed", "vhdx", "vdi")


def pytest_configure(config):
    config.addinivalue_line("markers", "views(name, ...): the views that a test is about, else all")
    missing = [t for t in ("qemu-img", "qemu-io", "7z", "vmdkinfo", "vhdiinfo") if not shutil.which(t)]
    if missing:
        raise pytest.UsageError(f"the matrix needs {', '.join(missing)}")
    if not os.access(os.environ.get("IMGFS_VIEWCAT", ""), os.X_OK):
        raise pytest.UsageError("IMGFS_VIEWCAT must name the viewcat program of a build")


def is_worth_it(item, params):
    variant, shape = params["source"]
    family, view = sources.family(variant), params.get("view", params.get("name", "raw"))
    if view == "raw" and "test_zeroes" not in item.nodeid:
        return True
    if view in MAIN_VIEWS:
        return family in MAIN_FORMATS or (shape == variant.shapes[0] and "view" in params)
    number = [v.name for v in sources.load_all().values() if sources.family(v) == family].index(
        variant.name
    )
    return variant.name in PLAIN or (number < FIRST_VARIANTS and shape == variant.shapes[0])


def pytest_collection_modifyitems(config, items):
    shard, _, shards = os.environ.get("IMGFS_SHARD", "1/1").partition("/")
    mine, others, numbers = [], [], {}
    for item in items:
        params = getattr(item, "callspec", None)
        params = params.params if params else {}
        marker = item.get_closest_marker("views")
        if marker and params["view"] not in marker.args:
            continue
        if "source" in params and not is_worth_it(item, params):
            continue
        # what shares a source stays together
        group = _case_id(params["source"]) if "source" in params else item.nodeid
        number = numbers.setdefault(group, len(numbers))
        (mine if number % int(shards) == int(shard) - 1 else others).append(item)
    items[:] = mine
    if others:
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def viewcat():
    return Viewcat(os.path.abspath(os.environ["IMGFS_VIEWCAT"]))


@pytest.fixture
def tmp():
    """A directory that is gone after the test, which pytest's tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="imgfs-matrix-") as path:
        yield Path(path)


@pytest.fixture
def store(tmp):
    """An empty datastore."""
    path = tmp / "store"
    path.mkdir()
    return path


def _case_id(case):
    return f"{case[0].name}-{case[1]}"


@pytest.fixture(scope="module", params=sources.cases(), ids=_case_id)
def source(request):
    variant, shape = request.param
    with tempfile.TemporaryDirectory(prefix="imgfs-matrix-") as base:
        yield sources.make(Path(base), variant.name, shape)


class CopiedView:
    """A view of the source, copied out with its holes."""

    def __init__(self, viewcat, source, info, name):
        self.source, self.info, self.name = source, info, name
        self.present = name in info.views
        self.identity = name in info.as_is
        self.path = source.root.parent / f"copy.{suffix(name)}"
        self.extent = None
        if self.present:
            viewcat.of(source, "copy", name, self.path)
            self.size = info.views[name]
            self.map = viewcat.map(source, name)
        if self.present and name == "vmdk-flat":
            self.add_extent(viewcat)

    def add_extent(self, viewcat):
        """A descriptor stands beside its extent, by the name that the extent goes with."""
        extent = flat_extent_of(self.path.read_bytes())
        self.path = self.path.rename(self.path.with_name(extent.removesuffix("-flat.vmdk") + ".vmdk"))
        self.extent = self.path.with_name(extent)
        viewcat.of(self.source, "copy", "vmdk-flat-extent", self.extent)

    def move(self, directory):
        """All of its files."""
        self.path = self.path.rename(directory / self.path.name)
        if self.extent:
            self.extent = self.extent.rename(directory / self.extent.name)

    def remove(self):
        for path in (self.path, self.extent):
            if path:
                path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def info(viewcat, source):
    return viewcat.info(source)


@pytest.fixture(scope="module")
def raw_map(viewcat, source):
    """Data and holes of the disk."""
    return viewcat.map(source, "raw") if source.size else []


@pytest.fixture(scope="module", params=VIEWS)
def view(request, viewcat, source, info):
    copied = CopiedView(viewcat, source, info, request.param)
    yield copied
    copied.remove()
