# SPDX-License-Identifier: Apache-2.0
"""VHD by hand: fixed, dynamic and differencing disks. Big-endian, in sectors of 512.

`blocks` maps a block's number to its bytes. `written` tells for a block which of its sectors have
their bit set: a set of numbers, or None for all.
"""

import struct

SECTOR = 512
BLOCK = 2 << 20
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
ABSENT = 0xFFFFFFFF
NOWHERE = (1 << 64) - 1

ID = bytes(range(0x10, 0x20))
PARENT_ID = bytes(range(0x60, 0x70))

# fields of the footer and of the header
VERSION, HEADER_AT, CREATOR, SIZE, GEOMETRY, TYPE, CHECKSUM, UNIQUE_ID = 12, 16, 28, 48, 56, 60, 64, 68
TABLE_AT, HEADER_VERSION, ENTRIES, BLOCK_SIZE, HEADER_CHECKSUM, PARENT_UNIQUE_ID = 16, 24, 28, 32, 36, 40
PARENT_NAME, LOCATORS = 64, 576


def div_ceil(a, b):
    return -(-a // b)


def sectors(data, fill=b"\0"):
    return data + fill * (-len(data) % SECTOR)


def geometry(size):
    """Cylinders, heads, sectors per track, as the specification's appendix computes them."""
    total = min(size // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        track, heads = 255, 16
        tracks = total // track
    else:
        track = 17
        tracks = total // track
        heads = max((tracks + 1023) // 1024, 4)
        if tracks >= heads * 1024 or heads > 16:
            track, heads = 31, 16
            tracks = total // track
        if tracks >= heads * 1024:
            track, heads = 63, 16
            tracks = total // track
    return tracks // heads, heads, track


def checksummed(data, at):
    data = bytearray(data)
    data[at : at + 4] = bytes(4)
    struct.pack_into(">I", data, at, ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def footer(size, kind, *, creator=b"win ", chs=None, unique=ID, header_at=None, version=0x10000, saved=0):
    if header_at is None:
        header_at = NOWHERE if kind == FIXED else SECTOR
    data = struct.pack(
        ">8sIIQI4sI4sQQHBBII16sB427x",
        b"conectix", 2, version, header_at, 0x1B2C3D4E, creator, 0x60001, b"Wi2k", size, size,
        *(chs or geometry(size)), kind, 0, unique, saved,
    )  # fmt: skip
    return checksummed(data, CHECKSUM)


def header(entries, table_at, *, block=BLOCK, parent=bytes(16), name="", locators=(), version=0x10000):
    """locators: (platform, length in bytes, offset)."""
    data = struct.pack(
        ">8sQQIIII16sII", b"cxsparse", NOWHERE, table_at, version, entries, block, 0, parent, 0x1A000000, 0
    )
    data += name.encode("utf-16-be").ljust(512, b"\0")
    for platform, length, offset in locators:
        data += struct.pack(">4sIIIQ", platform, div_ceil(length, SECTOR) * SECTOR, length, 0, offset)
    return checksummed(data.ljust(1024, b"\0"), HEADER_CHECKSUM)


def bitmap(block, written):
    count = block // SECTOR
    bits = bytearray(div_ceil(count, 8))
    for number in range(count) if written is None else written:
        bits[number // 8] |= 0x80 >> number % 8
    return sectors(bytes(bits))


def write_fixed(path, size, runs, **fields):
    """runs: (offset, bytes) of the disk; the rest of the file is holes."""
    with open(path, "wb") as file:
        for offset, data in runs:
            file.seek(offset)
            file.write(data)
        file.seek(size)
        file.write(footer(size, FIXED, **fields))


def write_blocks(path, size, blocks, *, kind=DYNAMIC, block=BLOCK, written=None, rubbish=b"\0", name="", texts=(),
                 parent=bytes(16), entries=None, reverse=False, gap=0, copy=True, **fields):  # fmt: skip
    """A dynamic or differencing disk. texts: (platform, bytes) of locators. reverse: the blocks lie
    the last one first, with `gap` sectors before each. What no bit covers holds rubbish."""
    written = written or {}
    count = div_ceil(size, block) if entries is None else entries
    table_at = SECTOR + 1024
    at = table_at + len(sectors(bytes(4 * count)))
    locators, area = [], b""
    for platform, text in texts:
        locators.append((platform, len(text), at + len(area)))
        area += sectors(text)
    at += len(area)

    table, body = [ABSENT] * count, []
    for number in sorted(blocks, reverse=reverse):
        bits = written.get(number)
        data = bytearray((rubbish * block)[:block])
        whole = blocks[number].ljust(block, b"\0")
        for sector in range(block // SECTOR) if bits is None else bits:
            data[sector * SECTOR : (sector + 1) * SECTOR] = whole[sector * SECTOR : (sector + 1) * SECTOR]
        body.append(bytes(gap * SECTOR))
        at += gap * SECTOR
        table[number] = at // SECTOR
        body.append(bitmap(block, bits) + bytes(data))
        at += len(body[-1])

    end = footer(size, kind, **fields)
    image = (end if copy else bytes(SECTOR)) + header(
        count, table_at, block=block, parent=parent, name=name, locators=locators
    )
    image += sectors(struct.pack(f">{count}I", *table), b"\xff") + area
    with open(path, "wb") as file:
        file.write(image)
        for part in body:
            file.write(part)
        file.write(end)
