# SPDX-License-Identifier: Apache-2.0
"""The VMDK images that the tables of hostile cases change."""

import struct
import zlib

import shapes
from hostile_base import (
    ABSENT_UNIT,
    BELOW_SEED,
    UNITS,
    ZERO_UNIT,
    Base,
    base,
    below_file,
    data,
    disk_of,
    made,
)
from qcow2_writer import deflate, peek, poke
from shapes import MIB, SECTOR, UNIT
from vmdk_writer import (
    ZERO,
    ZERO_GTE,
    descriptor,
    write_cowd,
    write_sesparse,
    write_sparse,
    write_stream,
)

SECTORS = MIB // SECTOR
BASE_CID = 0x11223344

# ---- hosted sparse VMDK ----

VMDK = "disk.vmdk"
TEXT_BYTES = 20 * SECTOR


def hosted_grains(zero=ZERO):
    grains = {n: data(n) for n in range(UNITS) if n != ABSENT_UNIT}
    grains[ZERO_UNIT] = zero
    if zero is None:
        del grains[ZERO_UNIT]
    return grains


def hosted_symbols(path, directory=None):
    """rgd, gd, gt: offsets; eN: the entry of grain N, gN: the sector that it says."""
    gd = (peek(path, 56, "<Q") if directory is None else directory) * SECTOR
    gt = peek(path, gd, "<I") * SECTOR
    symbols = {"rgd": peek(path, 48, "<Q") * SECTOR, "gd": gd, "gt": gt}
    symbols["first"] = peek(path, 64, "<Q")
    for number in range(UNITS):
        symbols[f"e{number}"] = gt + 4 * number
        symbols[f"g{number}"] = peek(path, gt + 4 * number, "<I")
    return symbols


def hosted_text(kind, *, sectors=SECTORS, **kwargs):
    return descriptor(kind, [f'RW {sectors} SPARSE "{VMDK}"'], **kwargs)


def sparse_base(store, **kwargs):
    text = hosted_text("monolithicSparse")
    write_sparse(store / VMDK, SECTORS, hosted_grains(), text, flags=3 | ZERO_GTE, version=2, **kwargs)
    symbols = hosted_symbols(store / VMDK)
    return made(VMDK, symbols=symbols, text=(VMDK, SECTOR, TEXT_BYTES))


@base
def sparse(store):
    return sparse_base(store)


@base
def tables(store):
    """Four grain tables: grains of 4 KiB, 64 entries in each."""
    grains = {}
    for n in range(MIB // 4096):
        unit = n * 4096 // UNIT
        if unit != ABSENT_UNIT:
            grains[n] = ZERO if unit == ZERO_UNIT else data(n, 4096)
    text = hosted_text("monolithicSparse")
    write_sparse(store / VMDK, SECTORS, grains, text, grain=8, gtes=64, flags=3 | ZERO_GTE, version=2)
    return made(VMDK, symbols=hosted_symbols(store / VMDK), text=(VMDK, SECTOR, TEXT_BYTES))


@base
def partial(store):
    """1 MiB and 3 sectors: the last grain is not full."""
    sectors = SECTORS + 3
    grains = hosted_grains() | {UNITS: data(UNITS)[: 3 * SECTOR]}
    write_sparse(store / VMDK, sectors, grains, hosted_text("monolithicSparse", sectors=sectors), flags=7, version=2)
    image = made(VMDK, symbols=hosted_symbols(store / VMDK), text=(VMDK, SECTOR, TEXT_BYTES))
    image.disk += data(UNITS)[: 3 * SECTOR]
    image.units.add(UNITS)
    image.symbols["e16"] = image.symbols["gt"] + 64
    image.symbols["g16"] = peek(store / VMDK, image.symbols["e16"], "<I")
    return image


def payload_blobs():
    whole = data(5)
    packed = zlib.compress(whole)
    body = packed[2:-4]
    return {
        "short": zlib.compress(whole[:-1]),
        "empty": zlib.compress(b""),
        "long": zlib.compress(whole + b"x"),
        "raw-deflate": deflate(whole),
        "no-checksum": packed[:-4],
        "zero-checksum": packed[:-4] + bytes(4),
        "dictionary": b"\x78\xbb" + bytes(4) + body + packed[-4:],
        "method-7": b"\x77\x01" + body + packed[-4:],
        "window-64k": b"\x88\x1c" + body + packed[-4:],
        "header-check": b"\x78\x9d" + body + packed[-4:],
        "gzip": b"\x1f\x8b\x08" + bytes(7) + body + bytes(8),
        "trailing": packed + b"garbage",
        "block-type-3": b"\x78\x01\x07" + bytes(60),
    }


def stream_base(store, **kwargs):
    grains = hosted_grains(None)
    write_stream(store / VMDK, SECTORS, grains, hosted_text("streamOptimized"), **kwargs)
    path = store / VMDK
    end = path.stat().st_size
    directory = None
    if kwargs.get("footer", True):
        directory = peek(path, end - 1024 + 56, "<Q")
    symbols = hosted_symbols(path, directory)
    for number in grains:
        at = symbols[f"g{number}"] * SECTOR
        symbols[f"r{number}"] = at  # the record: lba, size, payload
        symbols[f"n{number}"] = peek(path, at + 8, "<I")
    if directory is not None:
        symbols |= {"footmark": end - 1536, "footer": end - 1024, "eos": end - 512}
        symbols |= {"gdmark": symbols["gd"] - SECTOR, "gtmark": symbols["gt"] - SECTOR}
    return made(VMDK, symbols=symbols, blobs=payload_blobs(), text=(VMDK, SECTOR, TEXT_BYTES))


@base
def stream(store):
    return stream_base(store)


@base
def front(store):
    """A streamOptimized image with its tables before the grains and no footer."""
    return stream_base(store, footer=False)


@base
def split(store):
    """Two sparse extents of 512 KiB; the first one is changed."""
    half = SECTORS // 2
    grains = hosted_grains()
    for part in range(2):
        mine = {n - 8 * part: g for n, g in grains.items() if n // 8 == part}
        write_sparse(store / f"disk-s00{part + 1}.vmdk", half, mine, flags=3 | ZERO_GTE, version=2)
    lines = [f'RW {half} SPARSE "disk-s00{part + 1}.vmdk"' for part in range(2)]
    (store / VMDK).write_bytes(descriptor("twoGbMaxExtentSparse", lines))
    image = made(VMDK, "disk-s001.vmdk", text=(VMDK, 0, None))
    image.symbols = hosted_symbols(store / "disk-s001.vmdk")
    image.others = {"second": "disk-s002.vmdk"}
    return image


@base
def endless_vmdk(store):
    """Grains of 1 GiB and a directory of 32 MiB, a hole of the file: 2^61 bytes and nothing in them."""
    sectors = (1 << 61) // SECTOR
    text = hosted_text("monolithicSparse", sectors=sectors)
    write_sparse(store / VMDK, SECTORS, {}, text, flags=1)
    poke(store / VMDK, 12, struct.pack("<QQ", sectors, 0x200000))
    poke(store / VMDK, 56, struct.pack("<QQ", 128, 128))
    with open(store / VMDK, "r+b") as file:
        file.truncate(128 * SECTOR + (16 << 20))
    return Base(VMDK, {}, b"", set(), VMDK, symbols={"gd": 128 * SECTOR})


# ---- the extents of ESX snapshots ----

DELTA = "disk-000001.vmdk"


def delta(store, create_type, kind, extent, units, **kwargs):
    """Over a flat disk. What is in the extent is this disk's, what is absent there the parent's."""
    below = below_file(store, "disk-flat.vmdk")
    line = f'RW {SECTORS} FLAT "disk-flat.vmdk" 0'
    (store / VMDK).write_bytes(descriptor("monolithicFlat", [line], cid=BASE_CID))
    text = descriptor(create_type, [f'RW {SECTORS} {kind} "{extent}"'], parent_cid=BASE_CID, hint=VMDK)
    (store / DELTA).write_bytes(text)
    disk = b"".join(
        units[n] if n in units else below[n * UNIT : (n + 1) * UNIT] for n in range(UNITS)
    )  # fmt: skip
    occupied = {n for n in range(UNITS) if disk[n * UNIT : (n + 1) * UNIT] != bytes(UNIT)}
    others = {"parent": "disk-flat.vmdk", "text": DELTA, "below": VMDK}
    return Base(
        DELTA, {}, disk, occupied, extent, others=others, below=below, text=(DELTA, 0, None), **kwargs
    )  # fmt: skip


@base
def cowd(store):
    """Grains of one sector; units 0 to 7 are here, but unit 3 is not."""
    extent = "disk-000001-delta.vmdk"
    here = [n for n in range(8) if n != 3]
    grains = {n * 128 + i: data(n * 128 + i, SECTOR) for n in here for i in range(128)}
    write_cowd(store / extent, SECTORS, grains)
    gd = 4 * SECTOR
    gt = peek(store / extent, gd, "<I") * SECTOR
    symbols = {"gd": gd, "gt": gt, "body": gt // SECTOR + 32}
    symbols |= {f"e{n}": gt + 4 * 128 * n for n in range(UNITS)}
    return delta(store, "vmfsSparse", "VMFSSPARSE", extent, {n: data(n) for n in here}, symbols=symbols)


@base
def sesparse(store):
    """Grains of 4 KiB; units 0 to 7 are here, of them 3 as zeros and 4 unmapped."""
    extent = "disk-000001-sesparse.vmdk"
    here = [n for n in range(8) if n not in (3, 4)]
    grains = {n * 16 + i: data(n * 16 + i, 4096) for n in here for i in range(16)}
    grains |= {3 * 16 + i: ZERO for i in range(16)}
    write_sesparse(store / extent, SECTORS, grains, unmapped=[4 * 16 + i for i in range(16)])
    path = store / extent
    gd, gt = peek(path, 128, "<Q") * SECTOR, peek(path, 144, "<Q") * SECTOR
    symbols = {"volatile": peek(path, 80, "<Q") * SECTOR, "gd": gd, "gt": gt}
    symbols["grains"] = peek(path, 192, "<Q") * SECTOR
    symbols |= {f"e{n}": gt + 8 * 16 * n for n in range(UNITS)}
    units = {n: data(n) for n in here} | {3: bytes(UNIT), 4: bytes(UNIT)}
    return delta(store, "seSparse", "SESPARSE", extent, units, symbols=symbols)


# ---- descriptors ----


def text_base(store, create_type, lines, **kwargs):
    (store / VMDK).write_bytes(descriptor(create_type, lines, cid=BASE_CID))
    (store / "other-flat.vmdk").write_bytes(shapes.content(BELOW_SEED, 0, MIB))
    return made(VMDK, zeros=(), text=(VMDK, 0, None), **kwargs)


@base
def flat(store):
    (store / "disk-flat.vmdk").write_bytes(disk_of(()))
    image = text_base(store, "monolithicFlat", [f'RW {SECTORS} FLAT "disk-flat.vmdk" 0'])
    image.others = {"flat": "disk-flat.vmdk"}
    return image


@base
def halves(store):
    """Two flat extents of 512 KiB."""
    half = MIB // 2
    for part in range(2):
        (store / f"disk-f00{part + 1}.vmdk").write_bytes(disk_of(())[part * half : (part + 1) * half])
    lines = [f'RW {half // SECTOR} FLAT "disk-f00{part + 1}.vmdk" 0' for part in range(2)]
    image = text_base(store, "twoGbMaxExtentFlat", lines)
    image.others = {"first": "disk-f001.vmdk", "second": "disk-f002.vmdk"}
    return image


@base
def child(store):
    """A sparse child (units 0 to 7, of them 3 zeros and 7 absent) of a flat disk."""
    below = below_file(store, "disk-flat.vmdk")
    line = f'RW {SECTORS} FLAT "disk-flat.vmdk" 0'
    (store / VMDK).write_bytes(descriptor("monolithicFlat", [line], cid=BASE_CID))
    grains = {n: g for n, g in hosted_grains().items() if n < 8}
    extent = "disk-000001-s001.vmdk"
    write_sparse(store / extent, SECTORS, grains, flags=3 | ZERO_GTE, version=2)
    text = descriptor(
        "twoGbMaxExtentSparse", [f'RW {SECTORS} SPARSE "{extent}"'], parent_cid=BASE_CID, hint=VMDK
    )  # fmt: skip
    (store / DELTA).write_bytes(text)
    disk = disk_of()[: ABSENT_UNIT * UNIT] + below[ABSENT_UNIT * UNIT :]
    units = set(range(UNITS)) - {ZERO_UNIT}
    return Base(
        DELTA, {}, disk, units, VMDK, others={"child": DELTA, "flat": "disk-flat.vmdk"}, below=below,
        symbols=hosted_symbols(store / extent), text=(DELTA, 0, None),
    )  # fmt: skip
