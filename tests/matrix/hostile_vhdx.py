# SPDX-License-Identifier: Apache-2.0
"""The VHDX images that the tables of hostile cases change.

A disk of 6 blocks of 1 MiB: 0, 3 and 5 are data, 1 is in the state of zeros, 2 is not present, 4 is
unmapped. What a case changes gets right checksums again, except in the bases called -unsealed.
"""

import struct

import shapes
from hostile_base import BELOW_SEED, SEED, Base, base
from shapes import MIB, UNIT
from vhdx_writer import (
    BELOW_GUID,
    HEADERS,
    PAGE,
    TABLES,
    UNMAPPED,
    ZERO,
    Partial,
    State,
    linked_to,
    log_entry,
    pages_of,
    summed,
    write_log,
    write_vhdx,
)

VHDX, BELOW = "disk.vhdx", "disk-base.vhdx"
BLOCKS = 6


def block(number, seed=SEED):
    return shapes.content(seed, number * MIB, (number + 1) * MIB)


def units_of(*blocks):
    return {u for n in blocks for u in range(n * MIB // UNIT, (n + 1) * MIB // UNIT)}


def seal(space):
    data = space.writable(VHDX)
    for start, length in [(h, PAGE) for h in HEADERS] + [(t, 65536) for t in TABLES]:
        data[start : start + length] = summed(data[start : start + length])
    log = space.base.symbols["log"]
    length = struct.unpack_from("<I", data, log + 8)[0]
    if data[log : log + 3] == b"log" and PAGE <= length <= 64 * PAGE:
        data[log : log + length] = summed(data[log : log + length])


def symbols_of(layout, count):
    """h1 h2 t1 t2: headers and region tables; eN the entry of block N, pN where it is."""
    symbols = {"h1": HEADERS[0], "h2": HEADERS[1], "t1": TABLES[0], "t2": TABLES[1], "M": MIB}
    symbols |= {"log": layout.log, "bat": layout.bat, "meta": layout.metadata, "items": layout.metadata + 65536}
    symbols |= {f"e{n}": layout.entry(n) for n in range(count)} | {f"p{n}": at for n, at in layout.places.items()}
    if layout.bitmaps:
        symbols |= {"bits": layout.bitmaps[0], "eb": layout.bitmap_entry(0)}
    return symbols


def plain_blocks():
    return {0: block(0), 1: State(ZERO), 3: block(3), 4: State(UNMAPPED), 5: block(5)}


def plain_disk():
    return b"".join(block(n) if n in (0, 3, 5) else bytes(MIB) for n in range(BLOCKS))


def plain(store, **kwargs):
    layout = write_vhdx(store / VHDX, BLOCKS * MIB, plain_blocks())
    return Base(VHDX, {}, plain_disk(), units_of(0, 3, 5), VHDX, symbols=symbols_of(layout, BLOCKS), **kwargs)


@base
def vhdx(store):
    return plain(store, finish=seal)


@base
def vhdx_unsealed(store):
    return plain(store)


def logged(store, **kwargs):
    """The BAT and the metadata are in the log alone."""
    layout = write_vhdx(store / VHDX, BLOCKS * MIB, plain_blocks())
    pages = pages_of(store / VHDX, layout.bat, MIB) + pages_of(store / VHDX, layout.metadata, MIB)
    with open(store / VHDX, "r+b") as file:
        for offset, _ in pages:
            file.seek(offset)
            file.write(b"not the newest!!" * 256)
    write_log(store / VHDX, layout, [log_entry(9, 0, pages)])
    symbols = symbols_of(layout, BLOCKS) | {"first": layout.log + 64, "sector": layout.log + PAGE}
    return Base(VHDX, {}, plain_disk(), units_of(0, 3, 5), VHDX, symbols=symbols, **kwargs)


@base
def vhdx_log(store):
    return logged(store, finish=seal)


@base
def vhdx_log_unsealed(store):
    return logged(store)


@base
def vhdx_child(store):
    """Block 0 is the parent's but for its first 64 KiB, 1 is here, 2 is zeros, 3 is not present."""
    below = shapes.content(BELOW_SEED, 0, 4 * MIB)
    write_vhdx(
        store / BELOW, 4 * MIB, {n: below[n * MIB : (n + 1) * MIB] for n in range(4)}, data_guid=BELOW_GUID
    )
    blocks = {0: Partial(block(0), frozenset(range(128))), 1: block(1), 2: State(ZERO)}
    layout = write_vhdx(store / VHDX, 4 * MIB, blocks, parent=linked_to(".\\" + BELOW))
    disk = block(0)[:UNIT] + below[UNIT:MIB] + block(1) + bytes(MIB) + below[3 * MIB :]
    symbols = symbols_of(layout, 4) | {"locator": layout.metadata + 65536 + 40}
    return Base(
        VHDX, {}, disk, units_of(0, 1, 3), VHDX, others={"parent": BELOW}, below=below, symbols=symbols, finish=seal
    )  # fmt: skip
