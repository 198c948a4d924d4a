# SPDX-License-Identifier: Apache-2.0
"""st_blocks, SEEK_DATA and SEEK_HOLE tell what is allocated, and they agree."""

import errno
import os

import pytest

import images
from tools import KIB, MIB, VIEWS, data_ranges, merged, pattern, qemu_map

ALL = [f"{images.stem(source)}.{view}" for source in images.SOURCES for view in VIEWS]



def view_of(name):
    return name.rpartition(".")[2]


def mapped_data(path, image_format):
    """Guest ranges that the image has data for, as qemu-img sees them."""
    entries = qemu_map(path, image_format)
    return merged((e["start"], e["start"] + e["length"]) for e in entries if e["data"])


def source_data(sample, source):
    if source == "flat.vmdk":  # qemu-img does not look for holes in an extent
        return mapped_data(sample.datastore / "flat-flat.vmdk", "raw")
    return mapped_data(sample.datastore / source, view_of(source))


def complement(ranges, size):
    edges = [0] + [edge for r in ranges for edge in r] + [size]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]


@pytest.mark.parametrize("source", images.SOURCES)
def test_raw_view_has_the_holes_of_the_image(sample, source):
    expected = source_data(sample, source)
    assert data_ranges(sample.mount / f"{images.stem(source)}.raw") == expected
    assert len(expected) >= 5  # it is a real question


@pytest.mark.parametrize("view", ["qcow2", "vmdk"])
@pytest.mark.parametrize("source", images.SOURCES)
def test_what_the_image_in_the_view_refers_to_is_data(sample, source, view):
    path = sample.mount / f"{images.stem(source)}.{view}"
    held = [e for e in qemu_map(path, view) if e["data"] and "offset" in e]
    data = data_ranges(path)
    for entry in held:
        start, end = entry["offset"], entry["offset"] + entry["length"]
        # the last unit of the disk is cut where the disk ends
        assert any(s <= start and end <= e for s, e in data), entry
    assert held or source in ("packed.qcow2", "stream.vmdk")


@pytest.mark.parametrize("view", ["qcow2", "vmdk"])
@pytest.mark.parametrize("source", images.SOURCES)
def test_views_hold_the_units_that_the_image_has(sample, source, view):
    """Of 64 KiB units those, and only those, that the source has data in."""
    if f"{images.stem(source)}.{view}" in images.IDENTITY:
        return  # its own units
    unit, units = 64 * KIB, set()
    for start, end in source_data(sample, source):
        units.update(range(start // unit, (end - 1) // unit + 1))
    seen = mapped_data(sample.mount / f"{images.stem(source)}.{view}", view)
    size = -(-images.SIZE // 512) * 512
    assert seen == merged((u * unit, min((u + 1) * unit, size)) for u in sorted(units))


@pytest.mark.parametrize("name", ALL)
def test_holes_read_as_zeros(sample, name):
    path = sample.mount / name
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        for start, end in complement(data_ranges(path), size):
            file.seek(start)
            assert file.read(end - start).strip(b"\0") == b""


@pytest.mark.parametrize("name", ALL)
def test_blocks_are_what_is_allocated(sample, name):
    st = os.stat(sample.mount / name)
    data = sum(end - start for start, end in data_ranges(sample.mount / name))
    assert 0 < st.st_blocks
    if name in images.IDENTITY:
        assert st.st_blocks == os.stat(sample.datastore / name).st_blocks
    else:
        assert abs(st.st_blocks * 512 - data) <= 4 * KIB
    if view_of(name) == "raw":
        assert st.st_blocks * 512 < st.st_size * 0.6


def test_blocks_are_never_none(datastore, mount):
    """An image without any data, and one of a single byte, have a block all the same."""
    images.sparse_file(datastore / "hole.raw", 3 * MIB)
    images.sparse_file(datastore / "byte.raw", 1, (0, b"x"))
    images.create(datastore / "empty.qcow2", "1G")
    views = mount(datastore)
    assert len(views.names()) == 9
    for name in views.names():
        st = os.stat(views / name)
        assert st.st_blocks > 0, name
        assert st.st_size > 0
    assert os.stat(views / "empty.raw").st_blocks * 512 < 64 * KIB


def test_a_disk_without_holes_says_so(datastore, mount):
    (datastore / "full.raw").write_bytes(pattern(5, 2 * MIB))
    views = mount(datastore)
    st = os.stat(views / "full.raw")
    assert st.st_blocks * 512 >= st.st_size
    assert data_ranges(views / "full.raw") == [(0, 2 * MIB)]
    assert os.stat(views / "full.qcow2").st_blocks * 512 >= 2 * MIB


@pytest.mark.parametrize("name", ["chain.raw", "chain.qcow2", "chain.vmdk"])
def test_seeking_past_the_end(sample, name):
    fd = os.open(sample.mount / name, os.O_RDONLY)
    size = os.fstat(fd).st_size
    try:
        for offset in (size, size + 1, size + (1 << 40)):
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with pytest.raises(OSError) as caught:
                    os.lseek(fd, offset, whence)
                assert caught.value.errno == errno.ENXIO
        assert size - 1 <= os.lseek(fd, size - 1, os.SEEK_HOLE) <= size
    finally:
        os.close(fd)


def test_seeking_from_every_place(sample):
    """From anywhere inside a range, SEEK gives the same edges."""
    path = sample.mount / "chain.raw"
    data = data_ranges(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        for start, end in data:
            for offset in (start, start + 1, (start + end) // 2, end - 1):
                assert os.lseek(fd, offset, os.SEEK_DATA) == offset
                assert os.lseek(fd, offset, os.SEEK_HOLE) == end
        for start, end in complement(data, images.SIZE):
            for offset in (start, start + 1, end - 1):
                assert os.lseek(fd, offset, os.SEEK_HOLE) == offset
                assert os.lseek(fd, offset, os.SEEK_DATA) == end
    finally:
        os.close(fd)
