# SPDX-License-Identifier: Apache-2.0
"""The VDI images that the tables of hostile cases change: blocks of 64 KiB."""

from hostile_base import ABSENT_UNIT, UNITS, ZERO_UNIT, Base, base, below_file, data, made
from qcow2_writer import peek
from shapes import MIB, SECTOR, UNIT
from vdi_writer import DATA_AT, DIFFERENCING, MAP_AT, PARENT_ID, PARENT_STATE, ZERO, write_vdi

VDI, BELOW = "disk.vdi", "disk-base.vdi"


def symbols_of(path):
    """map, body: where blocks begin; eN: entry of block N."""
    symbols = {"map": peek(path, MAP_AT, "<I"), "body": peek(path, DATA_AT, "<I")}
    return symbols | {f"e{n}": symbols["map"] + 4 * n for n in range(UNITS)}


@base
def vdi(store):
    blocks = {n: ZERO if n == ZERO_UNIT else data(n) for n in range(UNITS) if n != ABSENT_UNIT}
    write_vdi(store / VDI, MIB, blocks, block=UNIT, align=SECTOR)
    return made(VDI, symbols=symbols_of(store / VDI))


@base
def vdi_child(store):
    """Units 0 to 7 are in the child, 3 as zeros; the rest is the parent's."""
    below = below_file(store, "below.raw")
    (store / "below.raw").unlink()
    parent = {n: below[n * UNIT : (n + 1) * UNIT] for n in range(UNITS)}
    write_vdi(store / BELOW, MIB, parent, block=UNIT, align=SECTOR, ids=(PARENT_ID, PARENT_STATE))
    here = {n: ZERO if n == ZERO_UNIT else data(n) for n in range(8)}
    write_vdi(
        store / VDI, MIB, here, block=UNIT, align=SECTOR, kind=DIFFERENCING, parent=(PARENT_ID, PARENT_STATE)
    )  # fmt: skip
    disk = b"".join(here[n] or bytes(UNIT) if n < 8 else parent[n] for n in range(UNITS))
    units = set(range(UNITS)) - {ZERO_UNIT}
    return Base(
        VDI, {}, disk, units, VDI, others={"parent": BELOW}, below=below, symbols=symbols_of(store / VDI)
    )  # fmt: skip
