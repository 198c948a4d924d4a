# SPDX-License-Identifier: Apache-2.0
"""VDI by hand: dynamic, fixed and differencing disks of header version 1.1. Little-endian.

`blocks` maps a block's number to its bytes; a value of ZERO is a block that is marked as zeros.
"""

import struct

SECTOR = 512
BLOCK = 1 << 20
ZERO = b""  # as a block
FREE, ZERO_ENTRY = 0xFFFFFFFF, 0xFFFFFFFE
DYNAMIC, FIXED, UNDO, DIFFERENCING = 1, 2, 3, 4
NIL = bytes(16)

ID = bytes(range(0x21, 0x31))
STATE = bytes(range(0x41, 0x51))
PARENT_ID = bytes(range(0x61, 0x71))
PARENT_STATE = bytes(range(0x81, 0x91))

# fields
MAGIC, VERSION, LENGTH, TYPE, FLAGS = 64, 68, 72, 76, 80
MAP_AT, DATA_AT, SECTOR_SIZE, SIZE, BLOCK_SIZE, EXTRA, BLOCKS, ALLOCATED = 340, 344, 360, 368, 376, 380, 384, 388
UUID, UUID_STATE, UUID_PARENT, UUID_PARENT_STATE = 392, 408, 424, 440


def div_ceil(a, b):
    return -(-a // b)


def header(size, map_at, data_at, count, allocated, *, kind=DYNAMIC, block=BLOCK, extra=0, ids=(ID, STATE),
           parent=(NIL, NIL), version=0x10001, flags=0, length=0x190):  # fmt: skip
    data = struct.pack(
        "<64sIIIII256sIIIIIIIQIIII16s16s16s16sIIII",
        b"<<< Oracle VM VirtualBox Disk Image >>>\n", 0xBEDA107F, version, length, kind, flags, b"a comment",
        map_at, data_at, 0, 0, 0, SECTOR, 0, size, block, extra, count, allocated, *ids, *parent, 130, 255, 63, SECTOR,
    )  # fmt: skip
    return data.ljust(SECTOR, b"\0")


def write_vdi(path, size, blocks, *, block=BLOCK, kind=DYNAMIC, extra=0, align=BLOCK, order=None, spare=0,
              more_blocks=0, **fields):  # fmt: skip
    """order: the blocks as they lie in the file, else in rising order; spare: blocks in the file that
    nobody has. align: of map and data. A fixed disk has all of its blocks."""
    count = div_ceil(size, block) + more_blocks
    map_at = div_ceil(SECTOR, align) * align
    data_at = div_ceil(map_at + 4 * count, align) * align
    present = [n for n in sorted(blocks) if blocks[n] != ZERO]
    if kind == FIXED:
        present = list(range(count))
    order = order(present) if order else present
    table = [ZERO_ENTRY if blocks.get(n) == ZERO else FREE for n in range(count)]
    for place, number in enumerate(order):
        table[number] = spare + place
    with open(path, "wb") as file:
        file.write(
            header(size, map_at, data_at, count, spare + len(order), kind=kind, block=block, extra=extra, **fields)
        )
        file.seek(map_at)
        file.write(struct.pack(f"<{count}I", *table))
        for place, number in enumerate(order):
            at = data_at + (spare + place) * (block + extra)
            file.seek(at)
            file.write(b"\xe7" * extra)
            data = blocks.get(number, b"")
            file.write(data.ljust(block, b"\0") if kind != FIXED or data else b"")
        file.truncate(data_at + (spare + len(order)) * (block + extra))
