# SPDX-License-Identifier: Apache-2.0
"""Views against the very bytes that qemu-img writes, and what the bytes say of themselves."""

import re
import shutil
import struct

import pytest
import shapes
import sources
from layout import disk_size, qcow2_size
from shapes import DATA, SECTOR, UNIT, Shape
from tools import assert_same_bytes, copy_sparse, qemu_img

# Without written zeros, which qemu-img leaves out of its copy, and with one L2 table.
DATA_ONLY = Shape("data-only", shapes.FRAG.size, tuple(r for r in shapes.FRAG.runs if r.kind == DATA))
SHAPES = (shapes.SECTORS, shapes.U1, shapes.TAIL, shapes.TAIL_HOLE, shapes.FULL, shapes.NOTHING, DATA_ONLY)
SOURCES = ("raw", "qcow2", "qcow2-zlib", "qcow2-over-qcow2", "vmdk-sparse", "vmdk-vmfs")


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=SOURCES)
def stored(request, shape, tmp):
    """The shape, stored one way or another."""
    return sources.make(tmp, request.param, shape)


def view_bytes(viewcat, stored, view):
    return viewcat.bytes(stored, "cat", view)


def converted(stored, to, options, tmp):
    path = tmp / f"by-qemu.{to}"
    qemu_img(
        "convert", "-f", stored.format, "-O", to, *options, stored.path, path, cwd=stored.root
    )
    return path.read_bytes()


def test_qcow2_is_what_qemu_img_writes(viewcat, stored, tmp):
    if stored.format == "qcow2" and stored.standalone:
        pytest.skip("served as it is")
    if stored.path.endswith("qcow2"):
        pytest.skip("what lies below has written zeros")
    ours = view_bytes(viewcat, stored, "qcow2")
    theirs = converted(stored, "qcow2", (), tmp)
    # all but the header cluster; qemu-img ends the file with the disk
    assert len(theirs) <= len(ours)
    assert_same_bytes(ours[UNIT:], theirs[UNIT:].ljust(len(ours) - UNIT, b"\0"))


def test_vmdk_is_what_qemu_img_writes(viewcat, stored, tmp):
    if stored.path == "disk.vmdk" and stored.standalone:
        pytest.skip("served as it is")
    if stored.path.endswith("qcow2") and not stored.standalone:
        pytest.skip("what lies below has written zeros")
    ours = view_bytes(viewcat, stored, "vmdk")
    theirs = converted(stored, "vmdk", ("-o", "subformat=monolithicSparse"), tmp)
    # all but the descriptor, sectors 1 to 20
    assert_same_bytes(ours[:SECTOR], theirs[:SECTOR])
    assert_same_bytes(ours[21 * SECTOR :], theirs[21 * SECTOR :].ljust(len(ours) - 21 * SECTOR, b"\0"))


def test_vmdk_descriptor(viewcat, stored):
    if stored.standalone and stored.format == "vmdk":
        pytest.skip("served as it is")
    area = viewcat.bytes(stored, "read", "vmdk", SECTOR, 20 * SECTOR)
    text = area.rstrip(b"\0").decode()
    sectors = disk_size(stored.size) // SECTOR
    lines = text.splitlines()
    assert lines[0] == "# Disk DescriptorFile"
    assert next(line for line in lines if not line.startswith("#")) == "version=1"
    cid = re.search(r"^CID=([0-9a-f]{8})$", text, re.MULTILINE)
    assert cid and cid[1] not in ("ffffffff", "fffffffe")
    assert cid.start() < text.index("parentCID=ffffffff")
    assert 'createType="monolithicSparse"' in lines
    extents = [line for line in lines if line.startswith("RW ")]
    assert len(extents) == 1 and re.fullmatch(rf'RW {sectors} SPARSE "[^"/]+\.vmdk"', extents[0])
    database = dict(re.findall(r'^ddb\.([\w.]+) = "(.*)"$', text, re.MULTILINE))
    assert database["adapterType"] == "lsilogic"
    assert database["toolsVersion"] == "2147483647"
    assert database["geometry.heads"], database["geometry.sectors"] == ("255", "63")
    assert int(database["geometry.cylinders"]) in (sectors // 16065, max(sectors // 16065, 1))
    assert "parentFileNameHint" not in text


def test_qcow2_header(viewcat, stored):
    if stored.standalone and stored.format == "qcow2":
        pytest.skip("served as it is")
    head = viewcat.bytes(stored, "read", "qcow2", 0, UNIT)
    magic, version, backing, _, bits, size, crypt = struct.unpack_from(">4sIQIIQI", head)
    assert (magic, version, backing, bits, crypt) == (b"QFI\xfb", 3, 0, 16, 0)
    assert size == disk_size(stored.size)
    snapshots, _, incompatible, _, autoclear, order, length = struct.unpack_from(">IQQQQII", head, 60)
    assert (snapshots, incompatible, autoclear, order) == (0, 0, 0, 4)
    assert length >= 104 and length % 8 == 0


@pytest.mark.parametrize("name", ("raw", "qcow2-mixed-zlib", "qcow2-over-qcow2", "vmdk-vmfs"))
def test_bytes_depend_on_nothing_else(viewcat, name, tmp):
    """Another directory, name, time and inode: the same views, but for the name in the VMDK."""
    stored = sources.make(tmp, name, shapes.FRAG)
    names = ("qcow2", "raw", "vmdk", "vmdk-stream", "vmdk-flat", "vmdk-flat-extent")
    views = [view_bytes(viewcat, stored, view) for view in names]
    elsewhere = tmp / "elsewhere"
    shutil.copytree(stored.root, elsewhere, copy_function=copy_sparse)
    stored.root = elsewhere
    for view, expected in zip(names, views):
        assert_same_bytes(view_bytes(viewcat, stored, view), expected)


def test_written_zeros_stay(viewcat, tmp):
    """The size of a view comes from the map alone, never from content."""
    stored = sources.make(tmp, "raw-dense", shapes.ZEROS)
    units = set(range(shapes.ZEROS.size // UNIT + 1))
    assert viewcat.info(stored).views["qcow2"] == qcow2_size(shapes.ZEROS.size, units)
