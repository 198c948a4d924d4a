# SPDX-License-Identifier: Apache-2.0
"""Parallels' expandable disks by hand. Little-endian. The header, the BAT, and clusters in any order.

`blocks` maps the number of a cluster to its bytes.
"""

import struct

SECTOR = 512
IN_SECTORS, IN_CLUSTERS = b"WithoutFreeSpace", b"WithouFreSpacExt"
IN_USE, CLOSED = 0x746F6E59, 0x312E3276

# fields
VERSION, HEADS, CYLINDERS, TRACKS, ENTRIES, SECTORS, IN_USE_AT, DATA, FLAGS, EXTENSION = (
    16, 20, 24, 28, 32, 36, 44, 48, 52, 56,
)  # fmt: skip
BAT = 64


def round_up(n, unit):
    return -(-n // unit) * unit


def write_parallels(path, size, blocks, *, magic=IN_CLUSTERS, cluster=1 << 20, data=None, say_data=True, order=None,
                    more=0, in_use=CLOSED, flags=0, extension=0, high=0, cut=0):  # fmt: skip
    """data: where the clusters begin, in sectors, else right behind the BAT as the magic wants it;
    say_data: in the header too. order: the clusters as they lie in the file, else in rising order; more: entries
    of the BAT that no disk needs; high: the upper half of the size; cut: bytes of the last cluster that are not there.
    """
    tracks = cluster // SECTOR
    count = -(-size // cluster) + more
    align = cluster if magic == IN_CLUSTERS else SECTOR
    first = round_up(BAT + 4 * count, align) if data is None else data * SECTOR
    step = cluster if magic == IN_CLUSTERS else SECTOR
    present = order(sorted(blocks)) if order else sorted(blocks)
    table = [0] * count
    for place, number in enumerate(present):
        table[number] = (first + place * cluster) // step
    header = struct.pack(
        "<16sIIIIIIIIIIQ", magic, 2, 16, -(-size // SECTOR // 512), tracks, count, size // SECTOR, high, in_use,
        first // SECTOR if say_data else 0, flags, extension,
    )  # fmt: skip
    assert len(header) == BAT
    with open(path, "wb") as file:
        file.write(header + struct.pack(f"<{count}I", *table))
        for place, number in enumerate(present):
            file.seek(first + place * cluster)
            file.write(blocks[number].ljust(cluster, b"\0"))
        file.truncate(first + len(present) * cluster - cut)
