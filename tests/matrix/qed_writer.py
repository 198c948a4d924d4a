# SPDX-License-Identifier: Apache-2.0
"""QED by hand. Little-endian. The header and what it names, the L1 table, the L2 tables, then clusters in
the order in which they were added.
"""

import struct

ZERO = 1  # as an entry

# fields
CLUSTER, TABLE, HEADER_CLUSTERS, FEATURES, COMPATIBLE, AUTOCLEAR = 4, 8, 12, 16, 24, 32
L1_OFFSET, SIZE, BACKING_OFFSET, BACKING_LENGTH = 40, 48, 56, 60
HEADER = 64

BACKING, NEED_CHECK, RAW_BACKING = 1, 2, 4


class QedWriter:
    def __init__(self, size, cluster=65536, table=4, header=1, backing=b"", features=0, name_at=HEADER):
        self.size, self.cluster, self.table, self.header = size, cluster, table, header
        self.backing, self.features, self.name_at = backing, features | (BACKING if backing else 0), name_at
        self.compatible = self.autoclear = 0
        self.per_table = cluster * table // 8
        self.l1_offset = header * cluster
        self.body = bytearray()  # everything behind the L1 table
        self.body_offset = self.l1_offset + cluster * table
        self.tables, self.entries = {}, {}

    def _place(self, data):
        at = self.body_offset + len(self.body)
        assert at % self.cluster == 0
        self.body += data
        return at

    def _set(self, number, entry):
        index = number // self.per_table
        if index not in self.tables:
            self.tables[index] = self._place(bytes(self.cluster * self.table))
        self.entries[number] = entry

    def plain(self, number, data):
        self._set(number, 0)
        self.entries[number] = self._place(data.ljust(self.cluster, b"\0"))

    def zero(self, number):
        self._set(number, ZERO)

    def bytes(self):
        header = struct.pack(
            "<4sIIIQQQQQII",
            b"QED\0", self.cluster, self.table, self.header, self.features, self.compatible, self.autoclear,
            self.l1_offset, self.size, self.name_at if self.backing else 0, len(self.backing),
        )  # fmt: skip
        image = bytearray(self.body_offset) + self.body
        image[: len(header)] = header
        if self.backing:
            image[self.name_at : self.name_at + len(self.backing)] = self.backing
        for index, offset in self.tables.items():
            struct.pack_into("<Q", image, self.l1_offset + 8 * index, offset)
        for number, entry in self.entries.items():
            table = self.tables[number // self.per_table]
            struct.pack_into("<Q", image, table + number % self.per_table * 8, entry)
        return bytes(image)

    def write(self, path):
        path.write_bytes(self.bytes())


def overlay(path, backing, features=0, size=1 << 20):
    """An image that holds nothing and names a backing file by any bytes."""
    name = backing.encode() if isinstance(backing, str) else backing
    QedWriter(size, 4096, 2, backing=name, features=features).write(path)
