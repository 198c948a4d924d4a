# SPDX-License-Identifier: Apache-2.0
"""Sizes of compact views, computed from the disk's size and its occupied units alone."""

from shapes import SECTOR, UNIT


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
