# SPDX-License-Identifier: Apache-2.0
"""Every source variant, every view, judged by what is known of the disk and by other readers."""

import re
import subprocess
import zlib

import layout
import pytest
import shapes
from shapes import SECTOR, TIB, UNIT
from tools import (
    assert_same,
    assert_same_bytes,
    driver,
    first_difference,
    qemu_img,
    qemu_map,
    run,
    suffix,
)

ROUNDS = 150


def needs_view(view):
    """Everything has all views, but for an empty disk, and for what is too large."""
    if view.present:
        return
    size = view.source.size
    assert size > layout.LIMITS.get(view.name, size) or (size == 0 and view.name in layout.NEVER_EMPTY)
    pytest.skip("there are no such disks")


# ---- the source ----


def test_the_source_is_what_it_should_be(source, tmp):
    """QEMU sees in the source what the shape says; else the test is wrong, not the program."""
    if not source.qemu:
        pytest.skip("QEMU does not read this")
    qemu_img("convert", "-f", source.driver, "-O", "raw", source.path, tmp / "raw", cwd=source.root)
    if source.exact:
        assert_same(tmp / "raw", source.expected, pad=True)
    else:
        size = source.size // SECTOR * SECTOR
        assert (tmp / "raw").stat().st_size == size
        assert first_difference(tmp / "raw", source.expected) in (None, size)
    if source.check and source.format != "raw":
        qemu_img("check", "-f", source.driver, source.path, cwd=source.root)


def test_info(source, info):
    assert info.format == source.format
    assert info.size == source.size
    assert info.files == source.files
    assert info.standalone == source.standalone or source.standalone is None
    assert set(info.views) | set(info.absent) >= {"qcow2", "raw", "vmdk"}


def test_raw_view_is_the_disk(viewcat, source, info, tmp):
    assert info.views["raw"] == source.size
    viewcat.of(source, "copy", "raw", tmp / "raw")
    assert_same(tmp / "raw", source.expected)


def test_holes_of_the_disk(source, raw_map):
    """What nobody wrote is a hole of the raw view; a hole of it is nothing but zeros to QEMU."""
    holes = [(start, end) for start, end, data in raw_map if not data]

    def is_hole(start, end):
        return any(s <= start and end <= e for s, e in holes)

    if source.granule:
        at = 0
        for start, end in [*source.shape.touched(source.granule), (source.size, source.size)]:
            assert start <= at or is_hole(at, start), (at, start)
            at = end
    if not source.qemu or not source.qemu_map:
        return
    for start, end, present, zero in qemu_map(source.driver, source.path, source.root):
        end = min(end, source.size)
        if not present and source.qemu_holes and start < end:
            assert is_hole(start, end), (start, end, "is not there for QEMU")
        if not zero:
            assert not any(s < end and start < e for s, e in holes), (start, end, "is data for QEMU")


# ---- each view of it ----


def test_size_is_exact(viewcat, source, info, view):
    """What stat says is what there is to read, through holes or not, and again in pieces."""
    needs_view(view)
    assert view.path.stat().st_size == view.size
    assert view.map == [] if view.size == 0 else view.map[-1][1] == view.size
    if view.size <= 256 * shapes.MIB:
        assert_same_bytes(viewcat.bytes(source, "cat", view.name), view.path.read_bytes())
    seed = zlib.crc32(f"{source.path} {source.size} {view.name}".encode())
    viewcat.of(source, "check", view.name, seed, ROUNDS)


def test_blocks(info, view):
    needs_view(view)
    blocks = info.blocks[view.name]
    data = sum(end - start for start, end, is_data in view.map if is_data)
    if view.size == 0:
        return
    assert blocks >= 1
    if not view.identity:
        assert max(data // SECTOR, 1) <= blocks <= data // SECTOR + len(view.map)
        if view.size - data >= SECTOR:
            assert blocks < layout.div_ceil(view.size, SECTOR)


def test_layout(source, view, raw_map):
    """Identity, or compact with exactly the units that hold something."""
    needs_view(view)
    if view.identity:
        assert view.size == source.file.stat().st_size
        assert_same(view.path, source.file)
        return
    if view.name == "vmdk-flat":  # text, of which test_descriptors.py knows more
        assert view.path.read_bytes().endswith(b'ddb.virtualHWVersion = "4"\n')
        return
    units = layout.occupied(raw_map)
    assert view.size == layout.SIZES[view.name](source.size, units)


@pytest.mark.views("qcow2", "vmdk", "vmdk-stream", "vmdk-flat", "vhd", "vhd-fixed", "vhdx", "vdi")
def test_other_readers_accept_it(source, view, tmp):
    """qemu-img check finds nothing, 7-Zip extracts the same disk, vmdkinfo states the same size.
    What is served as it is must be as good as the source, no better."""
    needs_view(view)
    if view.identity:
        assert_same(view.path, source.file)
    else:
        if driver(view.name) == "vmdk":
            accepted_by_vmdkinfo(source, view)
        if view.name.startswith("vhd"):
            accepted_by_vhdiinfo(source, view)
        extracted_by_7z(source, view, tmp)
    if driver(view.name) == "vpc":
        return  # which it has no check for
    if (source.check or not view.identity) and not takes_minutes(source, view):
        done = qemu_img("check", "-f", driver(view.name), view.path)
        assert "No errors were found" in done.stdout


def takes_minutes(source, view):
    """QEMU looks at each grain of a VMDK, and reads all of a VHDX, of which it knows no holes."""
    return driver(view.name) in ("vmdk", "vhdx") and source.size > TIB


def accepted_by_vmdkinfo(source, view):
    done = run("vmdkinfo", view.path)
    size = re.search(r"Media size\s*:.*?(\d+)(?: bytes)?\)?$", done.stdout, re.MULTILINE)
    assert int(size[1]) == layout.disk_size(source.size), done.stdout
    kind = {"vmdk": "Monolithic sparse", "vmdk-stream": "Stream optimized", "vmdk-flat": "VMFS flat"}
    assert re.search(rf"Disk type:\s*{kind[view.name]}", done.stdout), done.stdout


def accepted_by_vhdiinfo(source, view):
    done = run("vhdiinfo", view.path)
    size = re.search(r"Media size\s*:.*?(\d+)(?: bytes)?\)?$", done.stdout, re.MULTILINE)
    assert int(size[1]) == layout.disk_size(source.size), done.stdout
    kind = {"vhd": "Dynamic", "vhd-fixed": "Fixed", "vhdx": "Dynamic"}[view.name]
    assert re.search(rf"Disk type\s*: {kind}", done.stdout), done.stdout


def extracted_by_7z(source, view, tmp):
    if source.size == 0 or source.size > 64 * shapes.MIB:
        return  # it writes out all zeros
    if view.name == "vhdx" and layout.disk_size(source.size) // SECTOR % 2:
        return  # it refuses an odd number of sectors, of whoever's making
    kind = {"qcow2": "qcow", "vhd-fixed": "vhd"}.get(view.name, view.name.partition("-")[0])
    run("7z", "t", f"-t{kind}", view.path)
    with open(tmp / "out", "wb") as out:
        subprocess.run(["7z", "e", "-so", f"-t{kind}", view.path], stdout=out, check=True, timeout=120)
    assert (tmp / "out").stat().st_size == layout.disk_size(source.size)
    assert_same(tmp / "out", source.expected, pad=True)


def test_qemu_compare(source, view):
    """QEMU sees the same disk in the view and in the source, or where it does not read that, in
    what is known of the disk. (test_the_source_is_what_it_should_be proves these two equal.)"""
    needs_view(view)
    if view.identity and not (source.qemu and source.exact):
        assert_same(view.path, source.file)  # it is the source, of which QEMU is no judge
        return
    if takes_minutes(source, view):
        compare_ends(source, view)
        return
    other, path = source.driver, source.path
    if not source.qemu or not source.exact or source.slow:
        other, path = "raw", source.expected
    done = qemu_img("compare", "-f", driver(view.name), "-F", other, view.path, path, cwd=source.root)
    # raw files count as rounded up to sectors, and so do our formats
    assert "size mismatch" not in (done.stdout + done.stderr).lower()


def compare_ends(source, view):
    """For a disk on which QEMU's compare would take minutes: where there is data, and around it."""
    with open(source.expected, "rb") as file:
        for start, end in source.shape.touched(UNIT):
            start, length = max(start - UNIT, 0), min(end - max(start - UNIT, 0), source.size)
            file.seek(start)
            expected = file.read(length)
            done = run("qemu-io", "-r", "-f", driver(view.name), "-c", f"read -v {start} {len(expected)}", view.path)
            # 00000000:  41 42 ...  AB...
            lines = re.findall(r"^[0-9a-f]+:  ((?:[0-9a-f]{2} ){1,16})", done.stdout, re.MULTILINE)
            assert_same_bytes(bytes.fromhex("".join(lines)), expected)


# ---- views of views ----


def test_view_of_view(viewcat, source, view, raw_map, tmp):
    """A copied view is an image whose views are those of the source."""
    needs_view(view)
    store = tmp / "store"
    store.mkdir()
    home, name = view.path.parent, view.path.name
    view.move(store)
    if view.name != "vmdk-flat":  # whose name its extent goes with
        view.path = view.path.rename(store / f"again.{suffix(view.name)}")
    try:
        check_again(viewcat, source, view, raw_map, store, tmp)
    finally:
        view.path = view.path.rename(store / name)
        view.move(home)


def check_again(viewcat, source, view, raw_map, store, tmp):
    path = view.path.name
    named = ("-n", path) if view.name == "vmdk-flat" else ()
    viewcat.run(store, path, "copy", "raw", tmp / "raw")
    assert_same(tmp / "raw", source.expected, pad=view.name != "raw")
    viewcat.run(store, path, "copy", view.name, tmp / "same", options=named)
    assert_same(tmp / "same", store / path)
    if view.identity or view.name in layout.WITHOUT_UNITS or source.size == 0:
        return
    # the map of what is stored has become one of whole units; from there on it stays
    other = "qcow2" if view.name == "vmdk" else "vmdk"
    viewcat.run(store, path, "copy", other, tmp / "other")
    units = layout.widened(source.size, layout.occupied(raw_map), layout.unit_of(view.name, source.size))
    size = layout.SIZES[other](source.size, units)
    if other in viewcat.info_of(store, path).as_is:
        size = view.size
    assert (tmp / "other").stat().st_size == size
