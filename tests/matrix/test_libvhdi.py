# SPDX-License-Identifier: Apache-2.0
"""libvhdi, which honours the bitmaps of sectors and follows parents, sees in the VHD sources what
they were made to hold. Where QEMU reads them otherwise or not at all, it is the witness.

Left out are disks whose bitmaps change inside a byte: libvhdi (20210425) then takes the bits after
the first one of a byte for set. And what it does not read: a lost footer, a parent that is shorter.
"""

import pytest
import pyvhdi
import shapes
import sources
from tools import assert_same_bytes

DIFFERENCING = 4
STEP = 1 << 20
CASES = [
    (variant, shape)
    for variant, shape in sources.cases()
    if variant.name.startswith("vhd-") and shape in (shapes.TAIL, shapes.CHECKER) and "lost" not in variant.name
]


def opened(path):
    file = pyvhdi.file()
    file.open(str(path))
    return file


def with_parents(source):
    known = {file.get_identifier(): file for file in map(opened, source.root.iterdir())}
    top = file = opened(source.file)
    while file.get_disk_type() == DIFFERENCING:
        parent = known[file.get_parent_identifier()]
        file.set_parent(parent)
        file = parent
    return top, known


@pytest.mark.parametrize(("variant", "shape"), CASES, ids=lambda value: getattr(value, "name", None))
def test_the_source_is_what_it_should_be(tmp, variant, shape):
    source = sources.make(tmp, variant.name, shape)
    file, _ = with_parents(source)
    assert file.get_media_size() == source.size
    got = b"".join(
        file.read_buffer_at_offset(min(STEP, source.size - at), at) for at in range(0, source.size, STEP)
    )
    assert_same_bytes(got, source.expected.read_bytes())
