# SPDX-License-Identifier: Apache-2.0
"""qcow, version 1, by hand. Big-endian. The header, the name of the backing file, the L1 table, the L2
tables, then clusters in the order in which they were added, compressed ones at any byte.
"""

import struct

from qcow2_writer import deflate

COMPRESSED = 1 << 63
SECTOR = 512

# fields
VERSION, BACKING_OFFSET, BACKING_LENGTH, MTIME, SIZE = 4, 8, 16, 20, 24
CLUSTER_BITS, L2_BITS, CRYPT, L1_OFFSET = 32, 33, 36, 40
HEADER = 48


def round_up(n, unit):
    return -(-n // unit) * unit


class QcowWriter:
    def __init__(self, size, cluster_bits=12, l2_bits=9, backing=b"", mtime=0, l1_gap=0, align=None):
        self.size, self.bits, self.l2_bits, self.backing, self.mtime = size, cluster_bits, l2_bits, backing, mtime
        self.cluster, self.per_l2 = 1 << cluster_bits, 1 << l2_bits
        self.align = align or self.cluster  # of clusters in the file; readers need that of sectors
        self.entries = {}
        self.l1_entries = -(-size // (self.cluster * self.per_l2))
        self.l1_offset = round_up(HEADER + len(backing), 8) + l1_gap
        self.body_offset = round_up(self.l1_offset + 8 * self.l1_entries, self.cluster)
        self.body = bytearray()
        self.tables = {}

    def _place(self, data, align):
        at = round_up(self.body_offset + len(self.body), align)
        self.body += bytes(at - self.body_offset - len(self.body)) + data
        return at

    def _table(self, number):
        """Before the first cluster that needs it, as QEMU writes it."""
        index = number // self.per_l2
        if index not in self.tables:
            self.tables[index] = self._place(bytes(8 * self.per_l2), self.align)

    def plain(self, number, data):
        self._table(number)
        self.entries[number] = self._place(data, self.align)

    def compressed(self, number, payload, gap=0):
        self._table(number)
        at = self._place(bytes(gap) + payload, 1) + gap
        assert 0 < len(payload) < self.cluster
        self.entries[number] = COMPRESSED | len(payload) << (63 - self.bits) | at

    def pack(self, number, data, gap=0):
        """Compressed with a small window, or plain where that would be longer."""
        payload = deflate(data, 12)
        if len(payload) < self.cluster:
            self.compressed(number, payload, gap)
        else:
            self.plain(number, data)

    def bytes(self):
        header = struct.pack(
            ">4sIQIIQBBHIQ",
            b"QFI\xfb", 1, HEADER if self.backing else 0, len(self.backing), self.mtime, self.size, self.bits,
            self.l2_bits, 0, 0, self.l1_offset,
        )  # fmt: skip
        image = bytearray((header + self.backing).ljust(self.body_offset, b"\0")) + self.body
        for index, offset in self.tables.items():
            struct.pack_into(">Q", image, self.l1_offset + 8 * index, offset)
        for number, entry in self.entries.items():
            table = self.tables[number // self.per_l2]
            struct.pack_into(">Q", image, table + number % self.per_l2 * 8, entry)
        return bytes(image)

    def write(self, path):
        path.write_bytes(self.bytes())


def overlay(path, backing, size=1 << 20):
    """An image that holds nothing and names a backing file by any bytes."""
    QcowWriter(size, 9, 12, backing.encode() if isinstance(backing, str) else backing).write(path)
