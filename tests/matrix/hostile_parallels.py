# SPDX-License-Identifier: Apache-2.0
"""The Parallels images that the tables of hostile cases change."""

from hostile_base import ABSENT_UNIT, UNITS, ZERO_UNIT, Base, base, data, made
from parallels_writer import BAT, IN_CLUSTERS, IN_SECTORS, write_parallels
from qcow2_writer import peek
from shapes import MIB, UNIT

PARALLELS = "disk.hdd"


def image(store, magic, **layout):
    """Clusters of 64 KiB; units 3 and 7 are absent. eN is the entry of cluster N, cN where it is."""
    blocks = {n: data(n) for n in range(UNITS) if n not in (ZERO_UNIT, ABSENT_UNIT)}
    path = store / PARALLELS
    write_parallels(path, MIB, blocks, magic=magic, cluster=UNIT, **layout)
    symbols = {}
    for number in range(UNITS):
        symbols[f"e{number}"] = BAT + 4 * number
        symbols[f"c{number}"] = peek(path, BAT + 4 * number, "<I") * (UNIT if magic == IN_CLUSTERS else 512)
    return made(PARALLELS, symbols=symbols)


@base
def parallels(store):
    return image(store, IN_CLUSTERS)


@base
def parallels_sectors(store):
    """The older magic: data begins at sector 3."""
    return image(store, IN_SECTORS, data=3)


@base
def parallels_anywhere(store):
    """The older magic, from before the header said where data begins."""
    return image(store, IN_SECTORS, data=9, say_data=False)


@base
def endless_parallels(store):
    """2^57 bytes: 2^27 entries, the BAT a hole of the file."""
    path = store / PARALLELS
    write_parallels(path, 0, {}, cluster=1 << 30, data=1 << 21)
    with open(path, "r+b") as file:
        file.seek(32)
        file.write((1 << 27).to_bytes(4, "little") + (1 << 48).to_bytes(8, "little"))
        file.truncate(1 << 30)
    return Base(PARALLELS, {}, b"", set(), PARALLELS)
