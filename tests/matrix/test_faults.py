# SPDX-License-Identifier: Apache-2.0
"""Every kind of source, read as every view while system calls and allocations fail."""

import os

import pytest
import shapes
import sources
from tools import run

# one of the small shapes that a variant stores
SMALL = (shapes.TAIL, shapes.FRAG)

# Each call that can fail costs another look at all of a compressed file: one of each kind will do.
COMPRESSED = ("gz-raw", "xz-raw", "zst-sized", "zst-seekable")

CASES = [
    (variant, next(shape for shape in SMALL if shape in variant.shapes))
    for variant in sources.load_all().values()
    if set(SMALL) & set(variant.shapes)
    and (sources.family(variant) != "compressed" or variant.name in COMPRESSED)
]


@pytest.fixture(scope="session")
def faultcat():
    path = os.path.join(os.path.dirname(os.environ["IMGFS_VIEWCAT"]), "faults", "faultcat")
    assert os.access(path, os.X_OK), f"{path} is not there"
    return path


def test_every_source_format_is_here():
    assert {variant.name.partition("-")[0] for variant, _ in CASES} >= {"raw", "qcow2", "vmdk"}
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_faults(faultcat, tmp, case):
    source = sources.make(tmp, case[0].name, case[1])
    run(faultcat, *source.options, source.root, source.path)
