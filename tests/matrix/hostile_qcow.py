# SPDX-License-Identifier: Apache-2.0
"""The qcow images, version 1, that the tables of hostile cases change."""

import shapes
from hostile_base import ABSENT_UNIT, BELOW_SEED, UNITS, ZERO_UNIT, Base, base, below_file, data, disk_of, made
from qcow2_writer import deflate, peek
from qcow_writer import COMPRESSED, L1_OFFSET, QcowWriter
from shapes import MIB, UNIT

QCOW = "disk.qcow"
PRESENT = [n for n in range(UNITS) if n not in (ZERO_UNIT, ABSENT_UNIT)]


def symbols(store):
    """l1, l2 (the first table); eN, the entry of cluster N; cN, where it is; of those that are compressed
    pN, where the payload is, and nN, its length."""
    path = store / QCOW
    l1 = peek(path, L1_OFFSET, ">Q")
    l2 = peek(path, l1, ">Q")
    found = {"l1": l1, "l2": l2}
    for number in range(UNITS):
        found[f"e{number}"] = l2 + 8 * number
        entry = peek(path, l2 + 8 * number, ">Q")
        if entry & COMPRESSED:
            found[f"p{number}"] = entry & ((1 << 47) - 1)
            found[f"n{number}"] = (entry ^ COMPRESSED) >> 47
        else:
            found[f"c{number}"] = entry
    return found


@base
def qcow(store):
    """Clusters of 64 KiB, one table of 64 entries; units 3 and 7 are absent."""
    image = QcowWriter(MIB, 16, 6)
    for number in PRESENT:
        image.plain(number, data(number))
    image.write(store / QCOW)
    return made(QCOW, symbols=symbols(store))


@base
def qcow_packed(store):
    """Compressed with a large window, which is as good; units 11 and 15 could not be and are plain."""
    image = QcowWriter(MIB, 16, 6)
    for number in PRESENT:
        payload = deflate(data(number))
        if len(payload) < UNIT:
            image.compressed(number, payload, gap=7)
        else:
            image.plain(number, data(number))
    image.write(store / QCOW)
    found = made(QCOW, symbols=symbols(store))
    whole = data(5)
    found.blobs = {
        "short": deflate(whole[:-1]),
        "empty": deflate(b""),
        "other": deflate(data(9)),
        "block-type-3": b"\x07" + bytes(64),
    }
    return found


@base
def qcow_overlay(store):
    """Units 0 to 7 here (but 3 and 7), the rest and those from a raw disk."""
    below_file(store, "disk-base.raw")
    below_file(store, "other.raw")
    image = QcowWriter(MIB, 16, 6, b"disk-base.raw")
    for number in PRESENT:
        if number < 8:
            image.plain(number, data(number))
    image.write(store / QCOW)
    below = shapes.content(BELOW_SEED, 0, MIB)
    disk = disk_of()[: 7 * UNIT] + below[7 * UNIT :]
    disk = disk[: 3 * UNIT] + below[3 * UNIT : 4 * UNIT] + disk[4 * UNIT :]
    return Base(
        QCOW, {}, disk, set(range(UNITS)), QCOW, symbols=symbols(store) | {"name": 48}, below=below,
        others={"below": "disk-base.raw"},
    )  # fmt: skip
