# SPDX-License-Identifier: Apache-2.0
"""Sizes of compact views, computed from the disk's size and its occupied units alone."""

from shapes import SECTOR, UNIT


VHD_BLOCK, VDI_BLOCK = 2 << 20, 1 << 20


def div_ceil(a, b):
    return -(-a // b)


def occupied(raw_map):
    """The 64 KiB units that hold data, from a map of the raw view."""
    units = set()
    for start, end, data in raw_map:
        if data:
            units.update(range(start // UNIT, div_ceil(end, UNIT)))
    return units


def disk_size(size):
    return div_ceil(size, SECTOR) * SECTOR


def qcow2_size(size, units):
    """Version 3, clusters of 64 KiB, refcounts of 16 bits, every table only where it is needed."""
    per_table, per_block = UNIT // 8, UNIT // 2
    clusters = div_ceil(disk_size(size), UNIT)
    l1_clusters = div_ceil(8 * div_ceil(clusters, per_table), UNIT)
    tables = len({unit // per_table for unit in units})
    base = 1 + l1_clusters + tables + len(units)
    blocks = directory = 0
    while True:
        more = div_ceil(base + blocks + directory, per_block)
        further = max(div_ceil(8 * more, UNIT), 1)
        if (more, further) == (blocks, directory):
            return (base + blocks + directory) * UNIT
        blocks, directory = more, further


def vmdk_size(size, units):
    """monolithicSparse: grains of 64 KiB, both grain directories, all tables."""
    grains = div_ceil(disk_size(size), UNIT)
    tables = div_ceil(grains, 512)
    directory = div_ceil(4 * tables, SECTOR)
    first = 21 + 2 * (directory + 4 * tables)
    overhead = div_ceil(first, 128) * 128
    return SECTOR * (overhead + 128 * len(units))


def stream_overhead(size):
    """Sectors of a streamOptimized VMDK before its first record."""
    groups = div_ceil(div_ceil(disk_size(size), UNIT), 512)
    return div_ceil(22 + div_ceil(4 * groups, SECTOR), 128) * 128


def stream_size(size, units):
    """streamOptimized: stored grains of 129 sectors, a table and its marker for every 512 that hold
    anything, and both directories."""
    groups = div_ceil(div_ceil(disk_size(size), UNIT), 512)
    tables = len({unit // 512 for unit in units})
    end = 1 + div_ceil(4 * groups, SECTOR) + 3
    return SECTOR * (stream_overhead(size) + 129 * len(units) + 5 * tables + end)


def blocks_of(units, block):
    """The blocks of several units that hold any of these."""
    return {unit * UNIT // block for unit in units}


def widened(size, units, block):
    """All units of these blocks: what a view that keeps blocks knows of them."""
    return {
        unit
        for number in blocks_of(units, block)
        for unit in range(number * block // UNIT, min((number + 1) * block, disk_size(size) + UNIT - 1) // UNIT)
    }


def vhd_size(size, units):
    """Dynamic: footer, header, table, blocks of 2 MiB with a sector of bits before each, footer."""
    table = div_ceil(4 * div_ceil(disk_size(size), VHD_BLOCK), SECTOR) * SECTOR
    return 1536 + table + len(blocks_of(units, VHD_BLOCK)) * (SECTOR + VHD_BLOCK) + SECTOR


def vdi_size(size, units):
    """Dynamic: header and map, both filled up to 1 MiB, and blocks of that."""
    table = div_ceil(4 * div_ceil(disk_size(size), VDI_BLOCK), VDI_BLOCK) * VDI_BLOCK
    return VDI_BLOCK + table + len(blocks_of(units, VDI_BLOCK)) * VDI_BLOCK


def vhdx_block(size):
    block = 1 << 20
    while div_ceil(disk_size(size), block) > 1 << 20:
        block *= 2
    return block


def vhdx_size(size, units):
    """Dynamic: 3 MiB of headers, log and metadata, a table with an entry more after every 4 GiB."""
    block = vhdx_block(size)
    blocks = div_ceil(disk_size(size), block)
    table = 8 * (blocks + (blocks - 1) * block // (4 << 30))
    return (3 + div_ceil(table, 1 << 20) << 20) + len(blocks_of(units, block)) * block


# The size of every view, of a disk of so many bytes with these units.
SIZES = {
    "raw": lambda size, units: size,
    "qcow2": qcow2_size,
    "vmdk": vmdk_size,
    "vmdk-stream": stream_size,
    "vmdk-flat-extent": lambda size, units: disk_size(size),
    "vhd": vhd_size,
    "vhd-fixed": lambda size, units: disk_size(size) + SECTOR,
    "vdi": vdi_size,
    "vhdx": vhdx_size,
}

# Those that know nothing of units.
WITHOUT_UNITS = ("raw", "vhd-fixed", "vmdk-flat", "vmdk-flat-extent")

# Those that keep blocks of many units.
BLOCKS = {"vhd": lambda size: VHD_BLOCK, "vdi": lambda size: VDI_BLOCK, "vhdx": vhdx_block}


def unit_of(view, size):
    """Bytes of what a view of a disk of so many bytes keeps together."""
    return BLOCKS[view](size) if view in BLOCKS else UNIT



# Those that have no empty disks.
NEVER_EMPTY = ("vmdk", "vmdk-stream", "vmdk-flat", "vmdk-flat-extent", "vhd", "vhd-fixed", "vdi", "vhdx")

# Those that hold so many bytes at most.
LIMITS = {"vhd": 2040 << 30, "vhd-fixed": 2040 << 30, "vhdx": 64 << 40}
