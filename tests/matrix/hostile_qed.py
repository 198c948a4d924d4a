# SPDX-License-Identifier: Apache-2.0
"""The QED images that the tables of hostile cases change."""

import shapes
from hostile_base import ABSENT_UNIT, BELOW_SEED, UNITS, ZERO_UNIT, Base, base, below_file, data, disk_of, made
from qcow2_writer import peek
from qed_writer import L1_OFFSET, RAW_BACKING, QedWriter
from shapes import MIB, UNIT

QED = "disk.qed"


def symbols(store):
    """l1, l2 (the first table); eN, the entry of cluster N; cN, where it is."""
    path = store / QED
    l1 = peek(path, L1_OFFSET, "<Q")
    l2 = peek(path, l1, "<Q")
    found = {"l1": l1, "l2": l2}
    for number in range(UNITS):
        found[f"e{number}"] = l2 + 8 * number
        found[f"c{number}"] = peek(path, l2 + 8 * number, "<Q")
    return found


def filled(image, units):
    for number in units:
        if number == ZERO_UNIT:
            image.zero(number)
        elif number != ABSENT_UNIT:
            image.plain(number, data(number))
    return image


@base
def qed(store):
    """Clusters of 64 KiB, tables of one."""
    filled(QedWriter(MIB, UNIT, 1), range(UNITS)).write(store / QED)
    return made(QED, symbols=symbols(store))


@base
def qed_overlay(store):
    """Units 0 to 7 here (3 zeros, 7 absent), the rest absent; a header of two clusters."""
    below_file(store, "disk-base.raw")
    below_file(store, "disk-base.img")
    below_file(store, "other.raw")
    image = QedWriter(MIB, UNIT, 1, header=2, backing=b"disk-base.img", features=RAW_BACKING, name_at=UNIT + 5)
    filled(image, range(8)).write(store / QED)
    below = shapes.content(BELOW_SEED, 0, MIB)
    disk = disk_of()[: ABSENT_UNIT * UNIT] + below[ABSENT_UNIT * UNIT :]
    units = set(range(UNITS)) - {ZERO_UNIT}
    return Base(
        QED, {}, disk, units, QED, symbols=symbols(store) | {"name": UNIT + 5}, below=below,
        others={"below": "disk-base.img"},
    )  # fmt: skip


@base
def endless_qed(store):
    """2^60 bytes, nothing in them; the L1 table is a hole of the file."""
    image = QedWriter(1 << 60, 1 << 20, 16)
    header = image.bytes()[:64]
    with open(store / QED, "wb") as file:
        file.write(header)
        file.truncate(image.body_offset)
    return Base(QED, {}, b"", set(), QED, symbols={"l1": image.l1_offset})
