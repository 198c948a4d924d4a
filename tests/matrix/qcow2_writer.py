# SPDX-License-Identifier: Apache-2.0
"""qcow2 by hand: what qemu-img does not write, and pokes into what it wrote.

Big-endian. Header, a refcount table that nobody needs for reading, the L1 table, all L2 tables,
then clusters in the order in which they were added, compressed ones at any byte.
"""

import struct
import zlib

OFFSET_MASK = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

# header fields
BACKING_OFFSET, BACKING_LENGTH = 8, 16
CLUSTER_BITS = 20
SIZE = 24
CRYPT = 32
L1_SIZE, L1_OFFSET = 36, 40
INCOMPATIBLE, AUTOCLEAR = 72, 88
HEADER_LENGTH = 100
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 1, 2, 4, 8, 16

ZLIB, ZSTD = 0, 1

# header extensions
BACKING_FORMAT, DATA_FILE, LUKS_HEADER = 0xE2792ACA, 0x44415441, 0x0537BE77


def deflate(data, window=15, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, -window)
    return packer.compress(data) + packer.flush()


def stored(data):
    """Deflate that does not compress: longer than its input."""
    return deflate(data, level=0)


def zstd_frame(data, known_size=True):
    """A zstd frame of raw and run-length blocks, which need no compressor."""
    if known_size:
        frame = struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data))  # single segment, 4-byte size
    else:
        frame = struct.pack("<IBB", 0xFD2FB528, 0, 6 << 3)  # a window of 64 KiB
    size = 8192
    blocks = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    for i, block in enumerate(blocks):
        last = i == len(blocks) - 1
        if block and block.count(block[0]) == len(block):
            frame += (len(block) << 3 | 1 << 1 | last).to_bytes(3, "little") + block[:1]
        else:
            frame += (len(block) << 3 | last).to_bytes(3, "little") + block
    return frame


class Qcow2Writer:
    def __init__(self, size, cluster_bits=16, version=3, compression=ZLIB):
        self.size, self.bits, self.version, self.compression = size, cluster_bits, version, compression
        self.cluster = 1 << cluster_bits
        self.per_l2 = self.cluster // 8
        self.entries = {}
        self.backing = None  # bytes
        self.extensions = []  # (type, bytes)
        self.incompatible = COMPRESSION_TYPE if compression else 0
        self.l1_entries = -(-self.size // (self.cluster * self.per_l2))
        l1_clusters = max(-(-self.l1_entries * 8 // self.cluster), 1)
        self.l1_offset = 2 * self.cluster
        self.l2_offset = self.l1_offset + l1_clusters * self.cluster
        self.body_offset = self.l2_offset + self.l1_entries * self.cluster
        self.body = bytearray()

    def _place(self, data, align, gap=0):
        at = self.body_offset + len(self.body) + gap
        at = -(-at // align) * align
        self.body += bytes(at - self.body_offset - len(self.body))
        self.body += data
        return at

    def plain(self, number, data):
        self.entries[number] = self._place(data, self.cluster) | COPIED

    def zero(self, number, preallocated=False):
        offset = self._place(b"\xee" * self.cluster, self.cluster) | COPIED if preallocated else 0
        self.entries[number] = offset | ZERO

    def compressed(self, number, payload, gap=0):
        """The payload at the next byte, or `gap` bytes further; its window is as small as can be."""
        at = self._place(payload, 1, gap)
        sectors = (at + len(payload) - 1) // 512 - at // 512
        self.entries[number] = COMPRESSED | sectors << (70 - self.bits) | at

    def _header(self):
        if self.version == 2:
            tail = b""
        elif self.compression == ZLIB:
            tail = struct.pack(">QQQII", self.incompatible, 0, 0, 4, 104)
        else:
            tail = struct.pack(">QQQIIB7x", self.incompatible, 0, 0, 4, 112, self.compression)
        for kind, data in self.extensions:
            tail += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
        backing = self.backing or b""
        backing_at = 0
        if self.extensions or backing:
            tail += bytes(8)
        if backing:
            backing_at = 72 + len(tail)
        header = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb", self.version, backing_at, len(backing), self.bits, self.size, 0, self.l1_entries,
            self.l1_offset, self.cluster, 1, 0, 0,
        )  # fmt: skip
        return header + tail + backing

    def write(self, path, padded=True):
        """Unpadded, the file ends with the last byte that anything needs."""
        tables = {}
        for number, entry in self.entries.items():
            tables.setdefault(number // self.per_l2, {})[number % self.per_l2] = entry
        image = bytearray(self.body_offset)
        image[: len(self._header())] = self._header()
        for index, table in tables.items():
            offset = self.l2_offset + index * self.cluster
            struct.pack_into(">Q", image, self.l1_offset + index * 8, offset | COPIED)
            for slot, entry in table.items():
                struct.pack_into(">Q", image, offset + slot * 8, entry)
        image += self.body
        if padded:
            image += bytes(-len(image) % self.cluster)
        path.write_bytes(image)


def overlay(path, backing, backing_format=None, size=1 << 20):
    """An image that holds nothing and names a backing file by any bytes."""
    image = Qcow2Writer(size)
    image.backing = backing.encode() if isinstance(backing, str) else backing
    if backing_format is not None:
        image.extensions.append((BACKING_FORMAT, backing_format.encode()))
    image.write(path)


# ---- looking into and poking at an image file ----


def peek(path, offset, fmt):
    with open(path, "rb") as file:
        file.seek(offset)
        return struct.unpack(fmt, file.read(struct.calcsize(fmt)))[0]


def poke(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def poke_int(path, offset, fmt, value):
    poke(path, offset, struct.pack(fmt, value))


def set_incompatible(path, bits):
    poke_int(path, INCOMPATIBLE, ">Q", peek(path, INCOMPATIBLE, ">Q") | bits)


def l1_entry_at(path, guest):
    """File offset of the L1 entry for a guest byte."""
    bits = peek(path, CLUSTER_BITS, ">I")
    return peek(path, L1_OFFSET, ">Q") + (guest >> (2 * bits - 3)) * 8


def l2_entry_at(path, guest):
    """File offset of the L2 entry for a guest byte (not for extended L2)."""
    bits = peek(path, CLUSTER_BITS, ">I")
    table = peek(path, l1_entry_at(path, guest), ">Q") & OFFSET_MASK
    assert table, "no L2 table there"
    return table + (guest >> bits) % (1 << (bits - 3)) * 8
