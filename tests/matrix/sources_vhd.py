# SPDX-License-Identifier: Apache-2.0
"""VHD sources: fixed, dynamic and differencing disks, by QEMU and by hand."""

import os
import random

import shapes
from shapes import MIB, SECTOR, resized
from sources import BELOW, TOP, variant
from vhd_writer import BLOCK, DIFFERENCING, ID, PARENT_ID, write_blocks, write_fixed

NAME = "disk.vhd"
# fixed and dynamic disks by others than this program are of no interest to `qemu-img check`
NO_CHECK = {"check": False}


# ---- by qemu-img ----


def create(build, subformat, exact=True):
    options = f"subformat={subformat}" + (",force_size=on" if exact else "")
    build.qemu_img("create", "-q", "-f", "vpc", "-o", options, NAME, build.shape.size)


@variant("vhd-dynamic", also=(shapes.SECTORS, shapes.NOTHING, shapes.ZEROS, shapes.CHECKER, shapes.FULL, shapes.WIDE))
def dynamic(build):
    build.expect()
    create(build, "dynamic")
    build.fill("vpc", NAME)
    return build.source(NAME, "vhd", standalone=True, granule=BLOCK, **NO_CHECK)


@variant("vhd-dynamic-scattered", shapes.FRAG, shapes.WIDE)
def scattered(build):
    build.expect()
    create(build, "dynamic")
    build.fill("vpc", NAME, build.shape.reversed(BLOCK))
    return build.source(NAME, "vhd", standalone=True, granule=BLOCK, **NO_CHECK)


@variant("vhd-fixed", also=(shapes.SECTORS, shapes.FULL))
def fixed(build):
    build.expect()
    create(build, "fixed")
    build.fill("vpc", NAME)
    return build.source(NAME, "vhd", standalone=True, **NO_CHECK)


@variant("vhd-of-qemu-by-geometry", shapes.TAIL, shapes.FRAG)
def by_geometry(build):
    """Without force_size QEMU rounds the size up to its geometry, and says so in both."""
    create(build, "dynamic", exact=False)
    build.fill("vpc", NAME)
    size = int.from_bytes(build.file(NAME).read_bytes()[48:56], "big")
    assert size > build.shape.size
    build.expect(size=size)
    return build.source(NAME, "vhd", standalone=True, **NO_CHECK)


# ---- by hand ----


def blocks_of(build, block, shape=None):
    return {n: data or bytes(block) for n, data in build.units(block, shape).items()}


def by_hand(qemu=True, standalone=True, **layout):
    def build_it(build):
        build.expect()
        block = layout.get("block", BLOCK)
        write_blocks(build.file(NAME), build.shape.size, blocks_of(build, block), **layout)
        return build.source(NAME, "vhd", standalone=standalone, granule=block, qemu=qemu, **NO_CHECK)

    return build_it


variant("vhd-hand-dynamic", also=(shapes.CHECKER, shapes.WIDE))(by_hand())
variant("vhd-hand-small-blocks", also=(shapes.CHECKER,))(by_hand(block=4096))
variant("vhd-hand-blocks-of-512k")(by_hand(block=512 << 10, reverse=True))
variant("vhd-hand-large-blocks", shapes.FRAG, shapes.WIDE)(by_hand(block=32 * MIB))
variant("vhd-hand-gaps")(by_hand(gap=3, reverse=True))
variant("vhd-hand-long-table", shapes.TAIL)(by_hand(entries=5000))
variant("vhd-hand-no-first-copy", shapes.TAIL)(by_hand(copy=False, qemu=False, standalone=False))
variant("vhd-hand-saved-state", shapes.TAIL)(by_hand(saved=1))
variant("vhd-hand-creator-xen", shapes.TAIL)(by_hand(creator=b"tap\0"))


# QEMU cuts these to their geometry, VirtualBox and Hyper-V do not
variant("vhd-hand-creator-vbox", also=(shapes.CHECKER,))(by_hand(creator=b"vbox", qemu=False, standalone=False))
variant("vhd-hand-creator-vpc")(by_hand(creator=b"vpc ", qemu=False, standalone=False))
# but not where there is no geometry for so large a disk
variant("vhd-hand-creator-vbox-beyond-geometry", shapes.TAIL)(by_hand(creator=b"vbox", chs=(65535, 16, 255)))


@variant("vhd-hand-bitmaps", also=(shapes.CHECKER,))
def bitmaps(build):
    """Only what was written has its bit set; where none is, whatever the block holds is not the
    disk's. QEMU shows it."""
    build.expect()
    written = {}
    for run in build.shape.runs:
        for sector in range(run.start // SECTOR, -(-run.end // SECTOR)):
            written.setdefault(sector * SECTOR // BLOCK, set()).add(sector * SECTOR % BLOCK // SECTOR)
    write_blocks(
        build.file(NAME), build.shape.size, blocks_of(build, BLOCK), written=written, rubbish=b"\xe5"
    )
    return build.source(NAME, "vhd", standalone=True, granule=BLOCK, qemu=False, **NO_CHECK)


@variant("vhd-hand-lost-footer")
def lost_footer(build):
    """The last 512 bytes are not a footer: the copy counts."""
    source = by_hand(qemu=True, standalone=False)(build)
    with open(source.file, "r+b") as file:
        file.seek(-SECTOR, os.SEEK_END)
        file.write(bytes(SECTOR))
    return source


@variant("vhd-hand-fixed", also=(shapes.CHECKER, shapes.WIDE))
def hand_fixed(build):
    build.expect()
    runs = [(r.start, build.disk(r.start, r.end)) for r in build.shape.runs]
    write_fixed(build.file(NAME), build.shape.size, runs)
    # QEMU does not look for the holes of the file
    return build.source(NAME, "vhd", standalone=True, granule=4096, **NO_CHECK)


@variant("vhd-fixed-as-img", shapes.FRAG)
def fixed_as_img(build):
    """Recognised by its footer alone."""
    source = hand_fixed(build)
    source.file.rename(build.file("disk.img"))
    source.path = "disk.img"
    return source


@variant("vhd-hand-fixed-with-a-guest-footer", shapes.FULL)
def guest_footer(build):
    """The guest's disk begins like a dynamic VHD, which QEMU then takes it for."""
    build.expect()
    write_blocks(build.file("inner.vhd"), MIB, {0: b"x" * MIB})
    inner = build.file("inner.vhd").read_bytes()[: 64 << 10]
    build.file("inner.vhd").unlink()
    with open(build.expected, "r+b") as file:
        file.write(inner)
    write_fixed(build.file(NAME), build.shape.size, [(0, build.expected.read_bytes())])
    return build.source(NAME, "vhd", standalone=False, qemu=False, **NO_CHECK)


# ---- differencing ----


def parent(build, name="disk-base.vhd", size=None, fixed=False, **layout):
    """What lies below. Returns its shape."""
    shape = resized(shapes.FRAG2, build.shape.size if size is None else size)
    with open(shapes.write_raw(build.scratch / "below", shape.size, [(shape, BELOW)]), "rb") as file:
        below = file.read()
    if fixed:
        write_fixed(build.file(name), shape.size, [(0, below)], unique=PARENT_ID)
    else:
        blocks = {n: below[n * BLOCK : (n + 1) * BLOCK] for n in range(-(-shape.size // BLOCK))}
        write_blocks(build.file(name), shape.size, blocks, unique=PARENT_ID, **layout)
    return shape


def sectors_of(shape):
    """{block: numbers of the sectors that the shape wrote}."""
    written = {}
    for run in shape.runs:
        for sector in range(run.start // SECTOR, -(-run.end // SECTOR)):
            written.setdefault(sector * SECTOR // BLOCK, set()).add(sector * SECTOR % BLOCK // SECTOR)
    return written


def child(build, path, below=PARENT_ID, unique=ID, **how):
    how = how or {"texts": [(b"W2ru", ".\\disk-base.vhd".encode("utf-16-le"))]}
    write_blocks(
        build.file(path), build.shape.size, blocks_of(build, BLOCK), kind=DIFFERENCING,
        written=sectors_of(build.shape), rubbish=b"\xe5", parent=below, unique=unique, **how,
    )  # fmt: skip


def differencing(size=None, fixed=False, **how):
    def build_it(build):
        shape = parent(build, size=size, fixed=fixed)
        build.expect((shape, BELOW), (build.shape, TOP))
        child(build, NAME, **how)
        return build.source(NAME, "vhd", standalone=False, files=2, qemu=False, **NO_CHECK)

    return build_it


def utf16(text):
    return text.encode("utf-16-le")


variant("vhd-differencing", also=(shapes.CHECKER,))(differencing())
variant("vhd-differencing-fixed-parent")(differencing(fixed=True))
variant("vhd-differencing-short-parent", shapes.FRAG)(differencing(size=MIB + 5 * SECTOR))
variant("vhd-differencing-long-parent", shapes.TAIL)(differencing(size=shapes.FRAG2.size))
variant("vhd-differencing-name-alone", shapes.TAIL)(differencing(name="C:\\images\\disk-base.vhd"))
variant("vhd-differencing-mac", shapes.TAIL)(differencing(texts=[(b"MacX", b"file://./disk-base.vhd")]))
variant("vhd-differencing-all-names", shapes.TAIL)(
    # the relative one counts
    differencing(
        name="disk-another.vhd",
        texts=[
            (b"W2ku", utf16("C:\\images\\disk-other.vhd")),
            (b"MacX", b"file://./disk-other.vhd"),
            (b"W2ru", utf16("disk-base.vhd\0")),
        ],
    )
)


@variant("vhd-differencing-chain", shapes.FRAG)
def chain(build):
    """Three layers; the middle one has a few sectors of its own."""
    shape = parent(build)
    rng = random.Random(3)
    runs = []
    for _ in range(12):
        start = rng.randrange(shape.size // SECTOR) * SECTOR
        runs.append(shapes.Run(shapes.DATA, start, min(start + SECTOR * rng.randrange(1, 9), shape.size)))
    middle = shapes.Shape("middle", shape.size, tuple(runs))
    build.expect((shape, BELOW), (middle, 3), (build.shape, TOP))
    blocks = {}
    for number, bits in sectors_of(middle).items():
        data = bytearray(BLOCK)
        for s in bits:
            at = number * BLOCK + s * SECTOR
            data[s * SECTOR : (s + 1) * SECTOR] = shapes.content(3, at, at + SECTOR)
        blocks[number] = bytes(data)
    write_blocks(
        build.file("disk-middle.vhd"), shape.size, blocks, kind=DIFFERENCING, written=sectors_of(middle),
        rubbish=b"\xe5", parent=PARENT_ID, unique=bytes(range(16)), texts=[(b"W2ru", utf16(".\\disk-base.vhd"))],
    )  # fmt: skip
    child(build, NAME, below=bytes(range(16)), texts=[(b"W2ru", utf16(".\\disk-middle.vhd"))])
    return build.source(NAME, "vhd", standalone=False, files=3, qemu=False, **NO_CHECK)
