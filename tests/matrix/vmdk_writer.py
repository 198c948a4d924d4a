# SPDX-License-Identifier: Apache-2.0
"""VMDK by hand: descriptors, hosted sparse, streamOptimized, COWD and seSparse extents.

Little-endian, in sectors of 512. `grains` maps a grain's number to its bytes; a value of ZERO is
a grain that the format marks as zeros.
"""

import struct
import zlib

SECTOR = 512
ZERO = b""  # as a grain

GD_AT_END = (1 << 64) - 1
VALID_NEWLINE, REDUNDANT, ZERO_GTE, COMPRESSED, MARKERS = 1, 2, 4, 1 << 16, 1 << 17
MARK_EOS, MARK_GT, MARK_GD, MARK_FOOTER, MARK_PROGRESS = range(5)

CID = 0x1EAF2B3C
NO_PARENT = 0xFFFFFFFF

# fields of the hosted sparse header
VERSION, CAPACITY, GRAIN, GTES, GD_OFFSET = 4, 12, 20, 44, 56


def div_ceil(a, b):
    return -(-a // b)


def sectors(data):
    return data + bytes(-len(data) % SECTOR)


def descriptor(create_type, extents, *, cid=CID, parent_cid=NO_PARENT, hint=None, newline="\n", keys=(), ddb=()):
    """The text. extents: whole lines; keys: further lines of the header; ddb: of the database."""
    lines = ["# Disk DescriptorFile", "version=1", *keys, f"CID={cid:08x}", f"parentCID={parent_cid:08x}"]
    lines.append(f'createType="{create_type}"')
    if hint is not None:
        lines.append(f'parentFileNameHint="{hint}"')
    lines += ["", "# Extent description", *extents, "", "# The Disk Data Base", "#DDB", ""]
    lines += ['ddb.virtualHWVersion = "4"', 'ddb.adapterType = "lsilogic"', *ddb]
    return (newline.join(lines) + newline).encode()


def _header(version, flags, capacity, grain, descriptor_at, descriptor_length, gtes, rgd, gd, overhead, codec=0):
    return struct.pack(
        "<4sIIQQQQIQQQB4sH433x",
        b"KDMV", version, flags, capacity, grain, descriptor_at, descriptor_length, gtes, rgd, gd, overhead,
        0, b"\n \r\n", codec,
    )  # fmt: skip


def _tables(capacity, grain, gtes, entries, first_table, everywhere):
    """(grain directory, tables) as bytes; a table only where it has an entry, or everywhere."""
    groups = div_ceil(div_ceil(capacity, grain), gtes)
    size = sectors_of_table(gtes)
    directory, tables = [], b""
    for group in range(groups):
        table = [entries.get(group * gtes + i, 0) for i in range(gtes)]
        if everywhere or any(table):
            directory.append(first_table + len(tables) // SECTOR)
            tables += sectors(struct.pack(f"<{gtes}I", *table))
        else:
            directory.append(0)
    assert len(tables) % (size * SECTOR) == 0
    return sectors(struct.pack(f"<{groups}I", *directory)), tables


def sectors_of_table(gtes):
    return div_ceil(gtes * 4, SECTOR)


def write_sparse(path, capacity, grains, text=b"", *, grain=128, gtes=512, version=1, flags=3, tables_everywhere=True):  # fmt: skip
    """A hosted sparse extent, or with a text a monolithicSparse image."""
    groups = div_ceil(div_ceil(capacity, grain), gtes)
    gd_sectors = div_ceil(groups * 4, SECTOR)
    count = groups
    if not tables_everywhere:
        count = len({number // gtes for number in grains})
    copy = gd_sectors + count * sectors_of_table(gtes)
    first_gd = 21
    rgd = first_gd if flags & REDUNDANT else 0
    gd = first_gd + copy if flags & REDUNDANT else first_gd
    overhead = div_ceil(gd + copy, grain) * grain

    entries, body = {}, []
    for number, data in sorted(grains.items()):
        if data == ZERO:
            entries[number] = 1
            continue
        entries[number] = overhead + len(body) * grain
        body.append(data.ljust(grain * SECTOR, b"\0"))
    image = _header(version, flags, capacity, grain, 1 if text else 0, 20 if text else 0, gtes, rgd, gd, overhead)
    image += text.ljust(20 * SECTOR, b"\0")
    for start in [rgd, gd] if rgd else [gd]:
        directory, tables = _tables(capacity, grain, gtes, entries, start + gd_sectors, tables_everywhere)
        image += directory + tables
    image = image.ljust(overhead * SECTOR, b"\0")
    path.write_bytes(image + b"".join(body))


def _marker(value, kind):
    return sectors(struct.pack("<QII", value, 0, kind))


def _packed_grain(number, data, grain):
    payload = zlib.compress(data)
    return sectors(struct.pack("<QI", number * grain, len(payload)) + payload)


def write_stream(path, capacity, grains, text, *, grain=128, version=3, footer=True, full_last=True,
                 progress=False, text_sectors=20):  # fmt: skip
    """A streamOptimized image, its tables after the grains (with a footer) or before them."""
    gtes = 512
    flags = VALID_NEWLINE | COMPRESSED | MARKERS
    groups = div_ceil(div_ceil(capacity, grain), gtes)
    gd_sectors = div_ceil(groups * 4, SECTOR)
    used = {number // gtes for number in grains}
    gd_front = 1 + text_sectors
    overhead = 128
    if not footer:
        overhead = gd_front + gd_sectors + len(used) * 4

    def last_cut(number, data):
        end = capacity - number * grain
        return data[: end * SECTOR] if end < grain and not full_last else data.ljust(grain * SECTOR, b"\0")

    body, entries, directory = b"", {}, [0] * groups
    for group in sorted(used):
        if progress:
            body += _marker(1, MARK_PROGRESS) + bytes(SECTOR)
        for number in sorted(n for n in grains if n // gtes == group):
            entries[number] = overhead + len(body) // SECTOR
            body += _packed_grain(number, last_cut(number, grains[number]), grain)
        if footer:
            body += _marker(4, MARK_GT)
            directory[group] = overhead + len(body) // SECTOR
            table = [entries.get(group * gtes + i, 0) for i in range(gtes)]
            body += struct.pack(f"<{gtes}I", *table)

    def header(gd):
        return _header(version, flags, capacity, grain, 1, text_sectors, gtes, 0, gd, overhead, codec=1)

    image = header(GD_AT_END if footer else gd_front) + text.ljust(text_sectors * SECTOR, b"\0")
    if footer:
        image = image.ljust(overhead * SECTOR, b"\0") + body + _marker(gd_sectors, MARK_GD)
        gd = len(image) // SECTOR
        image += sectors(struct.pack(f"<{groups}I", *directory))
        image += _marker(1, MARK_FOOTER) + header(gd) + bytes(SECTOR)
    else:
        gd_bytes, tables = _tables(capacity, grain, gtes, entries, gd_front + gd_sectors, False)
        image += gd_bytes + tables + body + bytes(SECTOR)
    path.write_bytes(image)


def write_cowd(path, capacity, grains, *, grain=1):
    """A COWD extent (createType vmfsSparse). Tables have 4096 entries."""
    gtes = 4096
    groups = div_ceil(div_ceil(capacity, grain), gtes)
    gd_sectors = div_ceil(groups * 4, SECTOR)
    used = sorted({number // gtes for number in grains})
    first = 4 + gd_sectors
    start = first + len(used) * 32
    entries = {number: start + i * grain for i, number in enumerate(sorted(grains))}
    directory, tables = _tables(capacity, grain, gtes, entries, first, False)
    body = b"".join(grains[number].ljust(grain * SECTOR, b"\0") for number in sorted(grains))
    header = struct.pack(
        "<4sIIIIIII", b"COWD", 1, 3, capacity, grain, 4, groups, start + len(grains) * grain
    )
    path.write_bytes(header.ljust(4 * SECTOR, b"\0") + directory + tables + body)


SE_ABSENT, SE_UNMAPPED, SE_ZERO, SE_DATA = range(4)


def write_sesparse(path, capacity, grains, unmapped=(), first=0):
    """An seSparse extent: grains of 8 sectors, tables of 4096 u64 entries. Grains of ZERO, and those
    in `unmapped`, are of the two kinds that read as zeros. Data starts at place `first`."""
    gtes, gt_sectors, grain = 4096, 64, 8
    groups = div_ceil(div_ceil(capacity, grain), gtes)
    used = sorted({n // gtes for n in (*grains, *unmapped)})
    gd_sectors = div_ceil(groups * 8, SECTOR)
    volatile, journal_header, journal, gd = 1, 2, 4, 6
    tables = div_ceil(gd + gd_sectors, grain) * grain
    bitmap = tables + len(used) * gt_sectors
    backmap = bitmap + 8
    body = backmap + 8
    data = [n for n in sorted(grains) if grains[n] != ZERO]

    def entry(number):
        if number in unmapped:
            return SE_UNMAPPED << 60
        if number not in grains:
            return 0
        if grains[number] == ZERO:
            return SE_ZERO << 60
        index = first + data.index(number)
        return SE_DATA << 60 | (index & 0xFFF) << 48 | index >> 12

    header = struct.pack(
        "<10Q18Q",
        0xCAFEBABE, 0x0000000200000001, capacity, grain, gt_sectors, 0, 0, 0, 0, 0,
        volatile, 1, journal_header, 2, journal, 2, gd, gd_sectors, tables, len(used) * gt_sectors,
        bitmap, 8, backmap, 8, body, (first + max(len(data), 1)) * grain, 0, 0,
    )  # fmt: skip
    image = header.ljust(SECTOR, b"\0") + struct.pack("<4Q", 0xCAFECAFE, 0, 0, 0)
    image = image.ljust(gd * SECTOR, b"\0")
    directory = [0] * groups
    for index, group in enumerate(used):
        directory[group] = 1 << 60 | index
    image += struct.pack(f"<{groups}Q", *directory)
    image = image.ljust(tables * SECTOR, b"\0")
    for group in used:
        image += struct.pack(f"<{gtes}Q", *(entry(group * gtes + i) for i in range(gtes)))
    with open(path, "wb") as file:
        file.write(image)
        file.seek((body + first * grain) * SECTOR)
        file.write(b"".join(grains[n].ljust(grain * SECTOR, b"\0") for n in data))
