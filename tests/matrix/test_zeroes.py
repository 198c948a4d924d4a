# SPDX-License-Identifier: Apache-2.0
"""detect_zeroes over every source variant: the units that hold something, and no others."""

import layout
import pytest
from shapes import TIB, UNIT
from tools import assert_same, qemu_img


@pytest.fixture(scope="module")
def detecting(viewcat, source):
    """viewcat with the option, of the source."""

    def call(*args):
        return viewcat.run(source.root, source.path, *args, options=("-z", *source.options))

    return call


def with_content(path, units):
    """Of these units those in which the file has anything but zeros."""
    zeros = bytes(UNIT)
    found = set()
    with open(path, "rb") as file:
        for unit in units:
            file.seek(unit * UNIT)
            data = file.read(UNIT)
            if data != zeros[: len(data)]:
                found.add(unit)
    return found


@pytest.mark.parametrize("name", ["qcow2", "vmdk"])
def test_units_of_zeros_are_left_out(detecting, source, info, raw_map, tmp, name):
    if name not in info.views or (info.standalone == 1 and info.format == name):
        return  # there is none, or it is the source
    units = with_content(source.expected, layout.occupied(raw_map))
    size = {"qcow2": layout.qcow2_size, "vmdk": layout.vmdk_size}[name](source.size, units)
    detecting("copy", name, tmp / "view")
    assert (tmp / "view").stat().st_size == size
    if name == "vmdk" and source.size > TIB:
        return  # QEMU looks at each of the grains
    assert "No errors were found" in qemu_img("check", "-f", name, tmp / "view").stdout
    qemu_img("compare", "-f", name, "-F", "raw", tmp / "view", source.expected)


def test_the_disk_and_the_source_stay_as_they_are(detecting, viewcat, source, info, tmp):
    for name in info.views:
        if name != "raw" and not (info.standalone == 1 and info.format == name):
            continue
        detecting("copy", name, tmp / "on")
        viewcat.of(source, "copy", name, tmp / "off")
        assert_same(tmp / "on", tmp / "off")
        assert detecting("map", name).stdout == viewcat.of(source, "map", name).stdout
