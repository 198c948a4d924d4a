# SPDX-License-Identifier: Apache-2.0
"""Damage in a leaf: the image stays, its sizes too, and exactly what is damaged cannot be read.

Each case makes a disk of 1 MiB, all of it data, and damages one unit. QEMU reads several of these
as zeros; here it must be an error in every view, and everything around it must be right.
"""

import struct
import zlib
from dataclasses import dataclass

import pytest
import shapes
from layout import qcow2_size, vmdk_size
from qcow2_writer import EXTENDED_L2, ZSTD, Qcow2Writer, deflate, l2_entry_at, peek, poke, poke_int, zstd_frame
from shapes import MIB, SECTOR, UNIT
from stores import flat_vmdk
from tools import OK, READ_ERROR, assert_same_bytes, parse_info
from vmdk_writer import descriptor, write_cowd, write_sesparse, write_sparse, write_stream

SEED = 5
UNITS = MIB // UNIT


def unit(number):
    return shapes.content(SEED, number * UNIT, (number + 1) * UNIT)


@dataclass
class Damage:
    path: str
    start: int  # guest bytes that are lost
    end: int


CASES = {}


def case(build):
    CASES[build.__name__.replace("_", "-")] = build
    return build


# ---- qcow2 ----

NAME = "disk.qcow2"
LOST = 5  # the unit that is damaged


def plain(store, **kwargs):
    image = Qcow2Writer(MIB, **kwargs)
    for number in range(MIB // image.cluster):
        image.plain(number, shapes.content(SEED, number * image.cluster, (number + 1) * image.cluster))
    image.write(store / NAME)
    return store / NAME


def replace_entry(path, number, value):
    poke_int(path, l2_entry_at(path, number * UNIT), ">Q", value)


def one_unit(path, number=LOST):
    return Damage(path, number * UNIT, (number + 1) * UNIT)


@case
def qcow2_cluster_outside(store):
    replace_entry(plain(store), LOST, 1 << 63 | 1 << 40)
    return one_unit(NAME)


@case
def qcow2_cluster_far_outside(store):
    replace_entry(plain(store), LOST, 1 << 63 | 0x00FFFFFFFFFF0000)
    return one_unit(NAME)


@case
def qcow2_cluster_behind_the_end(store):
    path = plain(store)
    replace_entry(path, LOST, 1 << 63 | path.stat().st_size)
    return one_unit(NAME)


@case
def qcow2_file_cut(store):
    """Not the last cluster of the disk: the rest of that one is not to be had."""
    path = plain(store)
    offset = peek(path, l2_entry_at(path, LOST * UNIT), ">Q") & ~(1 << 63)
    data = path.read_bytes()
    end = len(data)
    poke(path, end, data[offset : offset + 1000])
    replace_entry(path, LOST, 1 << 63 | end)
    return one_unit(NAME)


@case
def qcow2_misaligned(store):
    path = plain(store)
    entry = peek(path, l2_entry_at(path, LOST * UNIT), ">Q")
    replace_entry(path, LOST, entry + SECTOR)
    return one_unit(NAME)


@case
def qcow2_v2_zero_bit(store):
    path = plain(store, version=2)
    entry = peek(path, l2_entry_at(path, LOST * UNIT), ">Q")
    replace_entry(path, LOST, entry | 1)
    return one_unit(NAME)


@case
def qcow2_small_clusters(store):
    """Of a unit of a view only 4 KiB are lost, but the view is made of units."""
    path = plain(store, cluster_bits=12)
    poke_int(path, l2_entry_at(path, LOST * UNIT + 8192), ">Q", 1 << 63 | 1 << 40)
    return Damage(NAME, LOST * UNIT + 8192, LOST * UNIT + 12288)


def packed(store, payload, pack=deflate, **kwargs):
    """All clusters compressed; the lost one has `payload`."""
    image = Qcow2Writer(MIB, **kwargs)
    for number in range(UNITS):
        image.compressed(number, payload if number == LOST else pack(unit(number)), gap=7)
    image.write(store / NAME)
    return one_unit(NAME)


@case
def qcow2_deflate_garbage(store):
    return packed(store, b"\xff" * 5000)


@case
def qcow2_deflate_cut(store):
    return packed(store, deflate(unit(LOST))[:-2000])


@case
def qcow2_deflate_short(store):
    """A whole stream of less than a cluster."""
    return packed(store, deflate(unit(LOST)[:-1]))


@case
def qcow2_deflate_window_outside(store):
    packed(store, deflate(unit(LOST)))
    path = store / NAME
    replace_entry(path, LOST, 1 << 62 | 1 << 54 | (1 << 50))
    return one_unit(NAME)


@case
def qcow2_zstd_garbage(store):
    return packed(store, b"\x11" * 3000, zstd_frame, compression=ZSTD)


@case
def qcow2_zstd_cut(store):
    return packed(store, zstd_frame(unit(LOST))[:-3000], zstd_frame, compression=ZSTD)


@case
def qcow2_zstd_short(store):
    return packed(store, zstd_frame(unit(LOST)[:-1]), zstd_frame, compression=ZSTD)


@case
def qcow2_zstd_too_long(store):
    """The frame goes on when the cluster is full."""
    return packed(store, zstd_frame(unit(LOST) + bytes(5000)), zstd_frame, compression=ZSTD)


@case
def qcow2_file_cut_in_payload(store):
    """The payload of the last cluster is not all there."""
    damage = packed(store, deflate(unit(LOST)))
    path = store / NAME
    stored = path.read_bytes().rstrip(b"\0")
    path.write_bytes(stored[:-2000])
    return one_unit(damage.path, UNITS - 1)


def extended(store, word, bitmap):
    """Extended L2 by hand: entries of 16 bytes, all subclusters allocated."""
    image = Qcow2Writer(MIB)
    image.incompatible = EXTENDED_L2
    offsets = [image._place(unit(number), UNIT) for number in range(UNITS)]
    image.write(store / NAME)
    path = store / NAME
    poke_int(path, image.l1_offset, ">Q", image.l2_offset | 1 << 63)
    for number, offset in enumerate(offsets):
        poke(path, image.l2_offset + 16 * number, struct.pack(">QQ", offset | 1 << 63, 0xFFFFFFFF))
    at = image.l2_offset + 16 * LOST
    poke(path, at, struct.pack(">QQ", word(offsets[LOST] | 1 << 63), bitmap))


@case
def qcow2_extended_zero_and_data(store):
    """Subcluster 3 is both allocated and zero."""
    extended(store, lambda word: word, 0xFFFFFFFF | 1 << 35)
    return Damage(NAME, LOST * UNIT + 3 * 2048, LOST * UNIT + 4 * 2048)


@case
def qcow2_extended_data_nowhere(store):
    extended(store, lambda word: 0, 0xFFFFFFFF)
    return one_unit(NAME)


@case
def qcow2_below(store):
    """In the lower layer."""
    path = plain(store)
    replace_entry(path, LOST, 1 << 63 | 1 << 40)
    path.rename(store / "disk-base.qcow2")
    image = Qcow2Writer(MIB)
    image.backing = b"disk-base.qcow2"
    image.extensions.append((0xE2792ACA, b"qcow2"))
    image.plain(0, unit(0))
    image.write(store / NAME)
    return one_unit(NAME)


# ---- VMDK ----

VMDK = "disk.vmdk"
SECTORS = MIB // SECTOR


def all_grains(size):
    return {n: shapes.content(SEED, n * size, (n + 1) * size) for n in range(MIB // size)}


def hosted(store, kind, write, **kwargs):
    text = descriptor(kind, [f'RW {SECTORS} SPARSE "{VMDK}"'])
    write(store / VMDK, SECTORS, all_grains(UNIT), text, **kwargs)
    return store / VMDK


def grain_entry(path, number):
    """File offset of the entry in the first table of the primary directory."""
    directory = peek(path, 56, "<Q")
    return peek(path, directory * SECTOR, "<I") * SECTOR + 4 * number


@case
def vmdk_grain_outside(store):
    path = hosted(store, "monolithicSparse", write_sparse)
    poke_int(path, grain_entry(path, LOST), "<I", 0x7FFFFFFF)
    return one_unit(VMDK)


@case
def vmdk_grain_cut_by_the_end(store):
    """Two sectors of the grain are there, the rest is behind the end of the file."""
    path = hosted(store, "monolithicSparse", write_sparse)
    end = path.stat().st_size
    poke(path, end, unit(LOST)[: 2 * SECTOR])
    poke_int(path, grain_entry(path, LOST), "<I", end // SECTOR)
    return Damage(VMDK, LOST * UNIT + 2 * SECTOR, (LOST + 1) * UNIT)


def stream_grain(store, change):
    """A streamOptimized image with the record of the lost grain changed."""
    path = hosted(store, "streamOptimized", write_stream, footer=False)
    at = peek(path, grain_entry(path, LOST), "<I") * SECTOR
    size = peek(path, at + 8, "<I")
    with open(path, "rb") as file:
        file.seek(at)
        record = file.read(12 + size)
    poke(path, at, change(record)[: len(record)])
    return one_unit(VMDK)


@case
def vmdk_stream_garbage(store):
    return stream_grain(store, lambda r: r[:12] + b"\xff" * 3000)


@case
def vmdk_stream_wrong_checksum(store):
    return stream_grain(store, lambda r: r[:-1] + bytes([r[-1] ^ 1]))


@case
def vmdk_stream_size_too_large(store):
    return stream_grain(store, lambda r: r[:8] + struct.pack("<I", 1 << 30) + r[12:])


@case
def vmdk_stream_size_zero(store):
    return stream_grain(store, lambda r: r[:8] + bytes(4) + r[12:])


@case
def vmdk_stream_of_another_grain(store):
    """A record whose own number says that it belongs elsewhere."""
    return stream_grain(store, lambda r: struct.pack("<Q", 128 * 9) + r[8:])


@case
def vmdk_stream_short(store):
    """A whole stream of less than a grain, not the last."""

    def change(record):
        payload = zlib.compress(unit(LOST)[: UNIT // 2])
        return record[:8] + struct.pack("<I", len(payload)) + payload

    return stream_grain(store, change)


def delta(store, kind, line, write):
    flat_vmdk(store)
    text = descriptor(kind, [line.format(SECTORS)], parent_cid=0x11223344, hint=VMDK)
    (store / "disk-000001.vmdk").write_bytes(text)
    write(store)
    return "disk-000001.vmdk"


@case
def vmdk_cowd_grain_outside(store):
    extent = store / "disk-000001-delta.vmdk"

    def write(_):
        write_cowd(extent, SECTORS, all_grains(SECTOR))
        # the directory is in sector 4, its first table in sector 5
        poke_int(extent, 5 * SECTOR + 4 * 777, "<I", 0x7FFFFFFF)

    path = delta(store, "vmfsSparse", f'RW {{}} VMFSSPARSE "{extent.name}"', write)
    return Damage(path, 777 * SECTOR, 778 * SECTOR)


def sesparse_entry(store, value):
    extent = store / "disk-000001-sesparse.vmdk"

    def write(_):
        write_sesparse(extent, SECTORS, all_grains(4096))
        tables = peek(extent, 144, "<Q")
        poke_int(extent, tables * SECTOR + 8 * 33, "<Q", value)

    path = delta(store, "seSparse", f'RW {{}} SESPARSE "{extent.name}"', write)
    return Damage(path, 33 * 4096, 34 * 4096)


@case
def vmdk_sesparse_grain_outside(store):
    return sesparse_entry(store, 3 << 60 | 0x0FFFFFFFFFFFFFFF)


@case
def vmdk_sesparse_unknown_kind(store):
    return sesparse_entry(store, 9 << 60 | 1)


@case
def vmdk_sesparse_absent_with_bits(store):
    return sesparse_entry(store, 77)


# ---- the judgement ----


@pytest.fixture(params=CASES)
def damage(request, store):
    return CASES[request.param](store)


def read(viewcat, store, damage, view, offset, length, expect):
    done = viewcat.run(
        store, damage.path, "read", view, offset, length, expect=expect, text=False
    )
    if expect == READ_ERROR:
        assert b"EIO" in done.stderr, done.stderr
    return done.stdout


def expected(start, end):
    return shapes.content(SEED, start, end)


def test_sizes_stay(viewcat, store, damage):
    """Damage counts as occupied: the sizes are those of the whole disk."""
    info = parse_info(viewcat.run(store, damage.path, "info").stdout)
    units = set(range(UNITS))
    assert info.size == info.views["raw"] == MIB
    for view, size in (("qcow2", qcow2_size(MIB, units)), ("vmdk", vmdk_size(MIB, units))):
        whole = (store / damage.path).stat().st_size if info.standalone and view == info.format else size
        assert info.views[view] == whole


def test_raw_view(viewcat, store, damage):
    start, end = damage.start, damage.end
    for offset, length in ((start, 1), (end - 1, 1), (start, end - start), (start - 1, 2), (end - 1, 2), (0, MIB)):
        read(viewcat, store, damage, "raw", offset, length, READ_ERROR)
    assert_same_bytes(read(viewcat, store, damage, "raw", 0, start, OK), expected(0, start))
    assert_same_bytes(read(viewcat, store, damage, "raw", end, MIB, OK), expected(end, MIB))


@pytest.mark.parametrize("view", ("qcow2", "vmdk"))
def test_compact_view(viewcat, store, damage, view):
    """The same through a view that is made of units."""
    info = parse_info(viewcat.run(store, damage.path, "info").stdout)
    if info.standalone and info.format == view:
        pytest.skip("served as it is")
    data = info.views[view] - MIB
    start, end = damage.start, damage.end
    read(viewcat, store, damage, view, data + start, 1, READ_ERROR)
    read(viewcat, store, damage, view, data + end - 1, 1, READ_ERROR)
    read(viewcat, store, damage, view, data + start - 1, 2, READ_ERROR)
    assert_same_bytes(read(viewcat, store, damage, view, data, start, OK), expected(0, start))
    assert_same_bytes(read(viewcat, store, damage, view, data + end, MIB, OK), expected(end, MIB))
    assert len(read(viewcat, store, damage, view, 0, data, OK)) == data


RECORD, HEADER, HALF, CHECKSUM = 129 * SECTOR, 19, UNIT // 2, 65560


def in_record(place):
    """Where a byte of a grain is in its record; there are five bytes between its halves."""
    return HEADER + place if place < HALF else HEADER + 5 + place


def record(number):
    data = expected(number * UNIT, (number + 1) * UNIT)
    stored = b"".join(
        struct.pack("<BHH", last, HALF, HALF ^ 0xFFFF) + data[last * HALF :][:HALF] for last in (0, 1)
    )
    stream = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(data))
    return (struct.pack("<QI", number * 128, len(stream)) + stream).ljust(RECORD, b"\0")


def test_stream_view(viewcat, store, damage):
    """A record of a damaged unit: its bytes that are lost and its checksum are, and no others."""
    info = parse_info(viewcat.run(store, damage.path, "info").stdout)
    if "vmdk-stream" in info.as_is:
        pytest.skip("served as it is")
    start, end = damage.start, damage.end
    first, last = start // UNIT, (end - 1) // UNIT
    records = [record(number) for number in range(UNITS)]
    body = 128 * SECTOR

    def at(number, offset, length, expect=OK):
        place = body + number * RECORD + offset
        got = read(viewcat, store, damage, "vmdk-stream", place, length, expect)
        if expect == OK:
            assert_same_bytes(got, (b"".join(records[number:]))[offset : offset + length])

    at(0, 0, first * RECORD)
    at(last + 1, 0, (UNITS - last - 1) * RECORD)
    for number in range(first, last + 1):
        low = in_record(max(start - number * UNIT, 0))
        high = in_record(min(end - number * UNIT, UNIT) - 1) + 1
        at(number, 0, low)
        at(number, high, CHECKSUM - high)
        at(number, CHECKSUM + 4, RECORD - CHECKSUM - 4)
        for offset, length in ((low, 1), (high - 1, 1), (CHECKSUM, 4), (CHECKSUM + 3, 1), (0, RECORD)):
            at(number, offset, length, READ_ERROR)
    at(first - 1 if first else 0, 0, 3 * RECORD, READ_ERROR)


def test_identity_of_a_damaged_file(viewcat, store):
    """Served as it is: what is damaged in it is not read, so nothing fails."""
    path = plain(store)
    replace_entry(path, LOST, 1 << 63 | 1 << 40)
    done = viewcat.run(store, NAME, "cat", "qcow2", text=False)
    assert_same_bytes(done.stdout, path.read_bytes())
