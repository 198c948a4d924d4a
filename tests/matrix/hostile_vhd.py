# SPDX-License-Identifier: Apache-2.0
"""The VHD images that the tables of hostile cases change: blocks of 64 KiB."""

from hostile_base import UNITS, Base, base, below_file, data, disk_of, made
from qcow2_writer import peek
from shapes import MIB, SECTOR, UNIT
from vhd_writer import DIFFERENCING, PARENT_ID, write_blocks, write_fixed

VHD, BELOW = "disk.vhd", "disk-base.vhd"
TABLE = 1536


def symbols_of(path):
    """foot: the last footer; head; bat; eN: entry of block N, bN: the sector that it says."""
    symbols = {"foot": path.stat().st_size - SECTOR, "head": SECTOR, "bat": TABLE}
    for number in range(UNITS):
        symbols[f"e{number}"] = TABLE + 4 * number
        symbols[f"b{number}"] = peek(path, TABLE + 4 * number, ">I")
    return symbols


@base
def vhd(store):
    """Dynamic; VHD has no mark for zeros, so unit 3 is absent too."""
    blocks = {n: data(n) for n in range(UNITS) if n not in (3, 7)}
    write_blocks(store / VHD, MIB, blocks, block=UNIT)
    return made(VHD, symbols=symbols_of(store / VHD))


@base
def vhd_fixed(store):
    write_fixed(store / VHD, MIB, [(0, disk_of(()))])
    return made(VHD, zeros=(), symbols={"foot": MIB})


@base
def vhd_child(store):
    """Units 0 to 7 but 3 are in the child, the rest is the parent's."""
    below = below_file(store, "below.raw")
    (store / "below.raw").unlink()
    write_fixed(store / BELOW, MIB, [(0, below)], unique=PARENT_ID)
    here = [n for n in range(8) if n != 3]
    write_blocks(
        store / VHD, MIB, {n: data(n) for n in here}, block=UNIT, kind=DIFFERENCING, parent=PARENT_ID,
        texts=[(b"W2ru", f".\\{BELOW}".encode("utf-16-le"))], name="disk-plain.vhd",
    )  # fmt: skip
    disk = b"".join(data(n) if n in here else below[n * UNIT : (n + 1) * UNIT] for n in range(UNITS))
    symbols = symbols_of(store / VHD) | {"locator": SECTOR + 576, "name": TABLE + SECTOR}
    return Base(VHD, {}, disk, set(range(UNITS)), VHD, others={"parent": BELOW}, below=below, symbols=symbols)
