# SPDX-License-Identifier: Apache-2.0
"""VHDX by hand, after [MS-VHDX]: fixed, dynamic and differencing disks, and their logs.

Little-endian. `blocks` maps the number of a payload block to its bytes, to a State without bytes,
or to a Partial.
"""

import functools
import struct
import uuid
from dataclasses import dataclass, field

KIB, MIB = 1 << 10, 1 << 20
PAGE = 4096
NIL = bytes(16)
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_OLD, PRESENT, PARTIAL = 0, 1, 2, 3, 5, 6, 7

HEADERS, TABLES = (64 * KIB, 128 * KIB), (192 * KIB, 256 * KIB)


def guid(text):
    return uuid.UUID(text).bytes_le


BAT, METADATA = guid("2DC27766-F623-4200-9D64-115E9BFD4A08"), guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
ITEMS = {
    "parameters": guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B"),
    "size": guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8"),
    "id": guid("BECA12AB-B2E6-4523-93EF-C309E000C746"),
    "logical": guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F"),
    "physical": guid("CDA348C7-445D-4471-9CC9-E9885251C556"),
    "locator": guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"),
}
LOCATOR = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")
DATA_GUID = guid("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb")
BELOW_GUID = guid("a59f5aa1-0bdb-4a2e-8ad0-7c3d7ee7a2f3")
LOG_GUID = guid("0c2b1a7e-5a2d-4f0c-9f5b-d2f1b7a40e11")


@dataclass(frozen=True)
class State:
    state: int
    offset: int = 0  # in the entry, of what is not read


@dataclass(frozen=True)
class Partial:
    data: bytes
    sectors: frozenset  # that are here; numbered from the start of the block


@functools.cache
def _table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


@functools.cache
def crc32c(data):
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def summed(data):
    """With the checksum at 4."""
    data = bytes(data[:4]) + bytes(4) + bytes(data[8:])
    return data[:4] + struct.pack("<I", crc32c(data)) + data[8:]


# ---- the pieces ----


def header(sequence, *, data_guid=DATA_GUID, log_guid=NIL, log_version=0, version=1, log=(MIB, MIB)):
    fields = struct.pack(
        "<4sIQ16s16s16sHHIQ", b"head", 0, sequence, b"write of a file!", data_guid, log_guid, log_version, version,
        log[1], log[0],
    )  # fmt: skip
    return summed(fields.ljust(4 * KIB, b"\0"))


def region_table(entries):
    """entries: (guid, offset, length, required)"""
    data = struct.pack("<4sIII", b"regi", 0, len(entries), 0)
    data += b"".join(struct.pack("<16sQII", *entry) for entry in entries)
    return summed(data.ljust(64 * KIB, b"\0"))


def metadata(items):
    """items: (guid, flags, bytes)"""
    table, body = struct.pack("<8sHH20x", b"metadata", 0, len(items)), b""
    for item, flags, data in items:
        table += struct.pack("<16sIIII", item, 64 * KIB + len(body) if data else 0, len(data), flags, 0)
        body += data
    return table.ljust(64 * KIB, b"\0") + body


def locator(pairs, kind=LOCATOR):
    table, body = b"", b""
    first = 20 + 12 * len(pairs)
    for key, value in pairs:
        key, value = key.encode("utf-16-le"), value if isinstance(value, bytes) else value.encode("utf-16-le")
        at = first + len(body)
        table += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        body += key + value
    return kind + struct.pack("<HH", 0, len(pairs)) + table + body


def guid_text(value):
    return "{%s}" % uuid.UUID(bytes_le=value)


def linked_to(name, parent=BELOW_GUID):
    """The pairs that Hyper-V writes."""
    return [
        ("parent_linkage", guid_text(parent)),
        ("relative_path", name),
        ("volume_path", "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\vm\\" + name.split("\\")[-1]),
        ("absolute_win32_path", "\\\\?\\d:\\vm\\" + name.split("\\")[-1]),
    ]


# ---- the file ----


@dataclass
class Layout:
    """Where everything is; made by write_vhdx()."""

    log: int
    bat: int
    metadata: int
    block: int
    ratio: int
    entries: dict = field(default_factory=dict)  # index in the BAT: entry
    places: dict = field(default_factory=dict)  # payload block: offset
    bitmaps: dict = field(default_factory=dict)  # chunk: offset
    end: int = 0

    def entry(self, number):
        """Offset of the entry of a payload block."""
        return self.bat + 8 * (number + number // self.ratio)

    def bitmap_entry(self, chunk):
        return self.bat + 8 * ((chunk + 1) * (self.ratio + 1) - 1)


def _items(size, block, sector, fixed, parent, physical):
    flags = (1 if fixed else 0) | (2 if parent else 0)
    items = [
        (ITEMS["parameters"], 4, struct.pack("<II", block, flags)),
        (ITEMS["size"], 6, struct.pack("<Q", size)),
        (ITEMS["id"], 6, b"identity of disk"),
        (ITEMS["logical"], 6, struct.pack("<I", sector)),
        (ITEMS["physical"], 6, struct.pack("<I", physical)),
    ]
    if parent:
        items.append((ITEMS["locator"], 4, locator(parent)))
    return items


def _place(layout, blocks, order, numbers):
    """Gives payload and bitmap blocks their places, from layout.end on."""
    chunks = sorted({n // layout.ratio for n in blocks if isinstance(blocks[n], Partial)})
    for chunk in chunks:
        layout.bitmaps[chunk] = layout.end
        layout.entries[(chunk + 1) * (layout.ratio + 1) - 1] = layout.end | PRESENT
        layout.end += MIB
    for number in order(sorted(numbers)):
        data = blocks[number]
        index = number + number // layout.ratio
        if isinstance(data, State):
            layout.entries[index] = data.offset | data.state
            continue
        layout.places[number] = layout.end
        layout.entries[index] = layout.end | (PARTIAL if isinstance(data, Partial) else PRESENT)
        layout.end += layout.block


def _bitmap(layout, blocks, chunk, per_block):
    """Of a chunk: {offset in the bitmap block: bytes}"""
    pieces = {}
    for number, data in blocks.items():
        if number // layout.ratio == chunk and isinstance(data, Partial):
            bits = sum(1 << sector for sector in data.sectors)
            pieces[number % layout.ratio * per_block // 8] = bits.to_bytes(per_block // 8, "little")
    return pieces


def write_vhdx(
    path, size, blocks, *, block=MIB, sector=512, physical=4096, fixed=False, parent=None, order=lambda n: n,
    regions=("log", "bat", "metadata"), log_length=MIB, sequences=(7, 8), broken=(), more_regions=(), more_items=(),
    data_guid=DATA_GUID, log_guid=NIL, entries=None,
):  # fmt: skip
    """A whole file; the Layout. broken: offsets of headers and region tables that are invalid."""
    ratio = (1 << 23) * sector // block
    count = -(-size // block)
    bat_entries = -(-count // ratio) * (ratio + 1) if parent else count + max(count - 1, 0) // ratio
    lengths = {"log": log_length, "bat": max(-(-8 * bat_entries // MIB), 1) * MIB, "metadata": MIB}
    at, places = MIB, {}
    for name in regions:
        places[name] = at
        at += lengths[name]
    layout = Layout(places["log"], places["bat"], places["metadata"], block, ratio, end=at)
    _place(layout, blocks, order, blocks)
    layout.entries |= entries or {}
    with open(path, "wb") as file:

        def put(offset, data):
            file.seek(offset)
            file.write(data)

        put(0, b"vhdxfile" + "by hand".encode("utf-16-le"))
        for offset, sequence in zip(HEADERS, sequences):
            log = (layout.log, log_length)
            put(offset, header(sequence, data_guid=data_guid, log_guid=log_guid, log=log))
        table = [(BAT, layout.bat, lengths["bat"], 1), (METADATA, layout.metadata, MIB, 1), *more_regions]
        for offset in TABLES:
            put(offset, region_table(table))
        for offset in broken:
            put(offset + 100, b"overwritten")
        items = _items(size, block, sector, fixed, parent, physical)
        put(layout.metadata, metadata([*items, *more_items]))
        for index, entry in layout.entries.items():
            put(layout.bat + 8 * index, struct.pack("<Q", entry))
        for chunk, offset in layout.bitmaps.items():
            for skip, bits in _bitmap(layout, blocks, chunk, block // sector).items():
                put(offset + skip, bits)
        for number, offset in layout.places.items():
            data = blocks[number]
            put(offset, data.data if isinstance(data, Partial) else data)
        file.truncate(layout.end)
    return layout


# ---- the log ----


def log_entry(sequence, tail, writes, *, log_guid=LOG_GUID, flushed=0, last=0, padding=0):
    """writes: (offset, 4096 bytes), or (offset, a number of zero bytes)."""
    descriptors, sectors = b"", b""
    for offset, data in writes:
        if isinstance(data, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, data, offset, sequence)
            continue
        assert len(data) == PAGE
        descriptors += struct.pack("<4s4s8sQQ", b"desc", data[-4:], data[:8], offset, sequence)
        sectors += struct.pack("<4sI", b"data", sequence >> 32) + data[8:-4]
        sectors += struct.pack("<I", sequence & 0xFFFFFFFF)
    length = -(-(64 + len(descriptors)) // PAGE) * PAGE + len(sectors) + padding * PAGE
    head = struct.pack(
        "<4sIIIQII16sQQ", b"loge", 0, length, tail, sequence, len(writes), 0, log_guid, flushed, last
    )  # fmt: skip
    body = (head + descriptors).ljust(length - len(sectors) - padding * PAGE, b"\0")
    return summed((body + sectors).ljust(length, b"\0"))


def write_log(path, layout, entries, *, length=MIB, at=0, log_guid=LOG_GUID, sequences=(9, 10)):
    """Puts entries into the ring from `at` on and says in both headers that there is a log."""
    with open(path, "r+b") as file:
        for data in entries:
            for piece in range(0, len(data), PAGE):
                file.seek(layout.log + at % length)
                file.write(data[piece : piece + PAGE])
                at += PAGE
        for offset, sequence in zip(HEADERS, sequences):
            file.seek(offset + 8)
            file.write(struct.pack("<Q", sequence))
            file.seek(offset + 48)
            file.write(log_guid)
            file.seek(offset)
            head = file.read(PAGE)
            file.seek(offset)
            file.write(summed(head))
    return at % length


def pages_of(path, start, length):
    """[(offset, bytes)] of the pages of a range of a file that are not zeros."""
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(length).ljust(length, b"\0")
    return [
        (start + at, data[at : at + PAGE]) for at in range(0, length, PAGE) if any(data[at : at + PAGE])
    ]  # fmt: skip
