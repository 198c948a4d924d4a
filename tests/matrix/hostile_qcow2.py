# SPDX-License-Identifier: Apache-2.0
"""The qcow2 images that the tables of hostile cases change."""

import struct
import zlib

import shapes
from hostile_base import (
    ABSENT_UNIT,
    BELOW_SEED,
    SEED,
    UNITS,
    ZERO_UNIT,
    Base,
    base,
    below_file,
    data,
    disk_of,
    made,
)
from qcow2_writer import (
    BACKING_FORMAT,
    DATA_FILE,
    EXTENDED_L2,
    EXTERNAL_DATA,
    ZSTD,
    Qcow2Writer,
    deflate,
    peek,
    poke,
    zstd_frame,
)
from shapes import MIB, UNIT

QCOW2 = "disk.qcow2"


def qcow2_symbols(path, entry_size=8):
    """l1, l2 (the first table); eN, the entry of cluster N; cN, what it says without its flags."""
    bits = peek(path, 20, ">I")
    l1 = peek(path, 40, ">Q")
    l2 = peek(path, l1, ">Q") & 0x00FFFFFFFFFFFE00
    symbols = {"l1": l1, "l2": l2, "refcounts": peek(path, 48, ">Q"), "cluster": 1 << bits}
    for number in range(min(UNITS, (1 << bits) // entry_size)):
        at = l2 + entry_size * number
        symbols[f"e{number}"] = at
        symbols[f"c{number}"] = peek(path, at, ">Q") & 0x00FFFFFFFFFFFFFF
    return symbols


def fill_plain(image, zero=True):
    for number in range(UNITS):
        if number == ZERO_UNIT and zero:
            image.zero(number, preallocated=True)
        elif number not in (ZERO_UNIT, ABSENT_UNIT):
            image.plain(number, data(number))


@base
def v3(store):
    image = Qcow2Writer(MIB)
    fill_plain(image)
    image.write(store / QCOW2)
    return made(QCOW2, symbols=qcow2_symbols(store / QCOW2))


@base
def v2(store):
    """No zero flag there: unit 3 is absent too."""
    image = Qcow2Writer(MIB, version=2)
    fill_plain(image, zero=False)
    image.write(store / QCOW2)
    return made(QCOW2, symbols=qcow2_symbols(store / QCOW2))


def extension_places(image):
    """xN: where the N-th header extension begins, xend: the one that ends them."""
    at = 104 if image.version == 3 else 72
    places = {}
    for number, (_, content) in enumerate(image.extensions):
        places[f"x{number}"] = at
        at += 8 + -(-len(content) // 8) * 8
    places["xend"] = at
    return places


@base
def extensions(store):
    """Feature names, bitmaps (0 of them), something unknown, and the end."""
    image = Qcow2Writer(MIB)
    names = struct.pack(">BB46s", 0, 0, b"dirty bit") + struct.pack(">BB46s", 0, 9, b"a new feature")
    image.extensions = [(0x6803F857, names), (0x23852875, struct.pack(">IIQQ", 0, 0, 0, 0)), (0x12345678, b"unknown")]
    fill_plain(image)
    image.write(store / QCOW2)
    return made(QCOW2, symbols=qcow2_symbols(store / QCOW2) | extension_places(image))


@base
def clusters_512(store):
    """2048 clusters, 32 tables. Unit 3 is absent, and table 14 and 15 (unit 7) are not there."""
    image = Qcow2Writer(MIB, cluster_bits=9)
    for number in range(2048):
        if number * 512 // UNIT not in (ZERO_UNIT, ABSENT_UNIT):
            image.plain(number, shapes.content(SEED, number * 512, number * 512 + 512))
    image.write(store / QCOW2)
    return made(QCOW2, symbols=qcow2_symbols(store / QCOW2))


def packed_symbols(path, payloads, bits=16):
    """pN, nN: offset and length of the payload of cluster N; sN: its window in sectors, less one."""
    symbols = qcow2_symbols(path)
    for number, payload in payloads.items():
        entry = peek(path, symbols[f"e{number}"], ">Q")
        symbols[f"p{number}"] = entry & (1 << (70 - bits)) - 1
        symbols[f"s{number}"] = (entry & (1 << 62) - 1) >> (70 - bits)
        symbols[f"n{number}"] = len(payload)
    return symbols


def with_dictionary(content):
    """Deflate whose first match lies before its start."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=content[:32768])
    return packer.compress(content) + packer.flush()


def packed_image(store, pack, padded=True, **kwargs):
    image = Qcow2Writer(MIB, **kwargs)
    payloads = {n: pack(data(n)) for n in range(UNITS) if n not in (ZERO_UNIT, ABSENT_UNIT)}
    for number, payload in payloads.items():
        image.compressed(number, payload, gap=7)
    image.write(store / QCOW2, padded=padded)
    return made(QCOW2, symbols=packed_symbols(store / QCOW2, payloads))


@base
def deflated(store):
    image = packed_image(store, deflate)
    whole = data(5)
    image.blobs = {
        "short": deflate(whole[:-1]),
        "empty": deflate(b""),
        "other": deflate(data(9)),
        "long": deflate(whole + whole),
        "stored-length": b"\x01\xff\xff\x00\x00",
        "far-back": with_dictionary(whole),
        "block-type-3": b"\x07" + bytes(64),
        "wrapped": zlib.compress(whole, 9),
    }
    return image


@base
def deflated_unpadded(store):
    """The file ends with the last byte of the last payload."""
    return packed_image(store, deflate, padded=False)


@base
def zstd(store):
    image = packed_image(store, zstd_frame, compression=ZSTD)
    whole = data(5)
    image.blobs = {
        "short": zstd_frame(whole[:-1]),
        "empty": zstd_frame(b""),
        "long": zstd_frame(whole + bytes(5000)),
        "two-frames": zstd_frame(whole[:1000]) + zstd_frame(whole[1000:]),
        "two-frames-cut": zstd_frame(whole[:1000]) + zstd_frame(whole[1000:])[:-9],
        "skippable": struct.pack("<II", 0x184D2A50, 1 << 30),
        "window": struct.pack("<IBB", 0xFD2FB528, 0, 31 << 3) + b"\x01\0\0",
        "size-lie": struct.pack("<IBQ", 0xFD2FB528, 0xE0, 1 << 62) + b"\x01\0\0",
        "dictionary": struct.pack("<IBBB", 0xFD2FB528, 1, 6 << 3, 77) + b"\x01\0\0",
        "reserved-block": struct.pack("<IBB", 0xFD2FB528, 0, 6 << 3) + b"\x07\0\0",
    }
    return image


@base
def extended(store):
    """Extended L2 entries; all subclusters of a unit are alike."""
    image = Qcow2Writer(MIB)
    image.incompatible = EXTENDED_L2
    offsets = {n: image._place(data(n), UNIT) for n in range(UNITS) if n not in (ZERO_UNIT, ABSENT_UNIT)}
    image.write(store / QCOW2)
    path = store / QCOW2
    poke(path, image.l1_offset, struct.pack(">Q", image.l2_offset | 1 << 63))
    for number, offset in offsets.items():
        poke(path, image.l2_offset + 16 * number, struct.pack(">QQ", offset | 1 << 63, 0xFFFFFFFF))
    poke(path, image.l2_offset + 16 * ZERO_UNIT, struct.pack(">QQ", 0, 0xFFFFFFFF << 32))
    return made(QCOW2, symbols=qcow2_symbols(path, 16))


def overlay_of(store, name, image_format):
    """Units 0 to 7 here (3 zeros, 7 absent), the rest absent."""
    image = Qcow2Writer(MIB)
    image.backing = name.encode()
    image.extensions = [(BACKING_FORMAT, image_format.encode())]
    for number in range(8):
        if number == ZERO_UNIT:
            image.zero(number)
        elif number != ABSENT_UNIT:
            image.plain(number, data(number))
    image.write(store / QCOW2)
    symbols = qcow2_symbols(store / QCOW2) | extension_places(image)
    symbols["name"] = peek(store / QCOW2, 8, ">Q")
    below = shapes.content(BELOW_SEED, 0, MIB)
    disk = disk_of()[: ABSENT_UNIT * UNIT] + below[ABSENT_UNIT * UNIT :]
    units = set(range(UNITS)) - {ZERO_UNIT}
    return Base(QCOW2, {}, disk, units, QCOW2, symbols=symbols, below=below)


@base
def overlay(store):
    below_file(store, "disk-base.raw")
    below_file(store, "other.raw")
    image = overlay_of(store, "disk-base.raw", "raw")
    image.others = {"below": "disk-base.raw"}
    return image


@base
def chain(store):
    """Over another qcow2, all of it data: that one is changed."""
    below = Qcow2Writer(MIB)
    for number in range(UNITS):
        below.plain(number, data(number, seed=BELOW_SEED))
    below.write(store / "disk-base.qcow2")
    image = overlay_of(store, "disk-base.qcow2", "qcow2")
    image.target = "disk-base.qcow2"
    image.symbols = qcow2_symbols(store / "disk-base.qcow2")
    image.others = {"top": QCOW2}
    return image


@base
def data_file(store):
    """Guest data in disk-data.raw, each cluster at its own place; unit 3 zeros, unit 7 absent."""
    below_file(store, "other.raw")
    (store / "disk-data.raw").write_bytes(disk_of(()))
    image = Qcow2Writer(MIB)
    image.incompatible |= EXTERNAL_DATA
    image.extensions = [(DATA_FILE, b"disk-data.raw")]
    for number in range(UNITS):
        if number != ABSENT_UNIT:
            image.entries[number] = number * UNIT | 1 << 63 | (number == ZERO_UNIT)
    image.write(store / QCOW2)
    symbols = qcow2_symbols(store / QCOW2) | extension_places(image)
    return made(QCOW2, symbols=symbols, others={"data": "disk-data.raw"})


def snapshot_entry(number, name, l1, size):
    extra = struct.pack(">QQQ", 0, size, 0)
    entry = struct.pack(">QIHHIIQII", l1, 1, 1, len(name), 0, 0, 0, 0, len(extra)) + extra + b"%d" % number + name
    return entry.ljust(-(-len(entry) // 8) * 8, b"\0")


@base
def snapshots(store):
    """The snapshot "old" of an image that has another, "new", and another active state, of which
    there is only unit 0. Behind the end of its disk is the state of a machine, "vm". The table of
    the snapshots, snap and snap2, ends the file."""
    path = store / QCOW2
    image = Qcow2Writer(MIB)
    fill_plain(image)
    vm = image._place(b"a machine" * 7281 + bytes(7), UNIT)
    active = image._place(bytes(UNIT), UNIT)
    l2 = image._place(bytes(UNIT), UNIT)
    now = image._place(data(0, seed=BELOW_SEED), UNIT)
    image.write(path)
    symbols = qcow2_symbols(path)
    poke(path, symbols["l2"] + 8 * UNITS, struct.pack(">Q", vm))
    poke(path, active, struct.pack(">Q", l2 | 1 << 63))
    poke(path, l2, struct.pack(">Q", now | 1 << 63))
    snap = path.stat().st_size
    first = snapshot_entry(1, b"old", symbols["l1"], MIB)
    second = snapshot_entry(2, b"new", active, MIB)
    poke(path, snap, first + second)
    poke(path, 40, struct.pack(">Q", active))
    poke(path, 60, struct.pack(">IQ", 2, snap))
    symbols |= {"vm": vm, "active": active, "now": now, "snap": snap, "snap2": snap + len(first)}
    return made(f"{QCOW2}//old", target=QCOW2, symbols=symbols)


def endless(store, cluster_bits, size, l1_at):
    """A disk with nothing in it whose L1 table is a hole of the file."""
    image = Qcow2Writer(MIB, cluster_bits)
    image.write(store / QCOW2)
    path = store / QCOW2
    entries = -(-size // (image.cluster * image.per_l2))
    poke(path, 24, struct.pack(">Q", size))
    poke(path, 36, struct.pack(">IQ", entries, l1_at))
    with open(path, "r+b") as file:
        file.truncate(l1_at + entries * 8)
    symbols = {"l1": l1_at, "entries": entries, "cluster": image.cluster}
    return Base(QCOW2, {}, b"", set(), QCOW2, symbols=symbols)


@base
def endless_qcow2(store):
    """2^60 bytes: 2^21 entries of the L1 table."""
    return endless(store, 21, 1 << 60, 4 << 21)
