# SPDX-License-Identifier: Apache-2.0
"""VMDK sources: all createTypes that hold data in files, and chains of them."""

import os
import re

import shapes
from qcow2_writer import poke
from shapes import KIB, MIB, SECTOR, TIB, UNIT, resized
from sources import BELOW, EVERY_SHAPE, TOP, variant
from vmdk_writer import (
    ZERO,
    ZERO_GTE,
    descriptor,
    div_ceil,
    write_cowd,
    write_sesparse,
    write_sparse,
    write_stream,
)

NAME = "disk.vmdk"


def capacity(build):
    return div_ceil(build.shape.size, SECTOR)


def grains(build, grain_bytes, zeros=True, shape=None):
    """The touched grains; zero ones as bytes where the format has no mark for them."""
    units = build.units(grain_bytes, shape)
    if zeros:
        return units
    return {number: data or bytes(grain_bytes) for number, data in units.items()}


# ---- by qemu-img ----


def create(build, options="", name=NAME, size=None):
    args = ["-o", options] if options else []
    build.qemu_img("create", "-q", "-f", "vmdk", *args, name, build.shape.size if size is None else size)


def written(options, files=1, granule=UNIT, standalone=False):
    """A builder: created empty, then filled with writes."""

    def build_it(build):
        build.expect()
        create(build, options)
        build.fill("vmdk", NAME)
        # QEMU asks for the state of 8 TiB grain by grain
        qemu = build.shape.size <= TIB
        return build.source(
            NAME, "vmdk", standalone=standalone, files=files, granule=granule, qemu=qemu, check=qemu
        )

    return build_it


variant("vmdk-sparse", also=EVERY_SHAPE)(written("", standalone=True))
variant("vmdk-sparse-zeroed-grain", also=(shapes.ZEROS, shapes.CHECKER))(
    written("zeroed_grain=on", standalone=True)
)
variant("vmdk-flat", also=(shapes.CHECKER, shapes.FULL))(
    written("subformat=monolithicFlat", files=2, granule=4096)
)
variant("vmdk-2gb-sparse")(written("subformat=twoGbMaxExtentSparse", files=2))
variant("vmdk-2gb-flat")(written("subformat=twoGbMaxExtentFlat", files=2, granule=4096))
variant("vmdk-2gb-sparse-two-extents", shapes.SPLIT)(written("subformat=twoGbMaxExtentSparse", files=3))
variant("vmdk-2gb-flat-two-extents", shapes.SPLIT)(
    written("subformat=twoGbMaxExtentFlat", files=3, granule=4096)
)


@variant("vmdk-sparse-scattered", shapes.FRAG, shapes.FULL)
def scattered(build):
    """Written from the end to the start: no two grains follow each other in the file."""
    build.expect()
    create(build)
    build.fill("vmdk", NAME, build.shape.reversed(UNIT))
    return build.source(NAME, "vmdk", standalone=True, granule=UNIT)


@variant("vmdk-stream-of-qemu", also=(shapes.CHECKER, shapes.FULL))
def stream_of_qemu(build):
    build.expect()
    build.qemu_img(
        "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", build.expected, NAME
    )
    return build.source(NAME, "vmdk", standalone=True, granule=UNIT)


@variant("vmdk-stream-of-vmdkstream")
def stream_of_vmdkstream(build):
    """Debian's python3-vmdkstream, which makers of cloud images use."""
    import VMDKstream

    build.expect()
    VMDKstream.convert_to_stream(str(build.expected), str(build.file(NAME)))
    return build.source(NAME, "vmdk", granule=UNIT)


def edited(options, files, edit, qemu=True, granule=UNIT):
    """QEMU's files with another text in the descriptor."""

    def build_it(build):
        source = written(options, files, granule)(build)
        text = source.file.read_bytes().rstrip(b"\0").decode()
        source.file.write_bytes(edit(text).encode())
        source.qemu = source.check = qemu
        return source

    return build_it


def respell(to):
    return lambda text: re.sub(r'createType="\w+"', f'createType="{to}"', text)


def windows(text):
    """As programs on the other side write it: CRLF, tabs, comments, keys that nobody knows."""
    text = text.replace(
        "version=1\n",
        'version=1\nencoding="windows-1252"\n# a comment: RW 1 SPARSE "nothing.vmdk"\nisNativeSnapshot="no"\n',
    )
    text += '\n\nddb.uuid = "60 00 C2 93 7b a0 3a 03-9f 22 56 c5 29 93 b7 27"\n'
    text += 'ddb.longContentID = "0123456789abcdef0123456789abcdef"\nddb.thinProvisioned = "1"\n'
    text += 'ddb.comment = "CID=12345678 createType=vmfsRDM"\n'
    return text.replace("\n", "\r\n")


variant("vmdk-2gb-sparse-other-spelling")(
    edited("subformat=twoGbMaxExtentSparse", 2, respell("2GbMaxExtentSparse"), qemu=False)
)
variant("vmdk-2gb-flat-other-spelling")(
    edited("subformat=twoGbMaxExtentFlat", 2, respell("2GbMaxExtentFlat"), qemu=False, granule=4096)
)
variant("vmdk-flat-odd-case")(
    edited("subformat=monolithicFlat", 2, respell("MONOLITHICflat"), qemu=False, granule=4096)
)
variant("vmdk-flat-crlf")(edited("subformat=monolithicFlat", 2, windows, granule=4096))
variant("vmdk-2gb-sparse-crlf")(edited("subformat=twoGbMaxExtentSparse", 2, windows))
variant("vmdk-flat-hint-in-comment", shapes.TAIL)(
    # QEMU takes it for the parent's name
    edited(
        "subformat=monolithicFlat",
        2,
        lambda text: text.replace("version=1\n", 'version=1\n# parentFileNameHint="disk-parent.vmdk"\n')
        + '\nddb.comment = "parentFileNameHint=disk-parent.vmdk"\n',
        qemu=False,
        granule=4096,
    )
)
variant("vmdk-custom")(edited("subformat=monolithicFlat", 2, respell("custom"), qemu=False, granule=4096))


def lower_case(text):
    """All that is not a name in quotes. The version line stays the first."""
    return "\n".join(
        line if "ddb." in line or line.startswith("#") else re.sub(r"^[^\"]*", lambda m: m[0].lower(), line)
        for line in text.splitlines()
    )


variant("vmdk-flat-lower-case")(edited("subformat=monolithicFlat", 2, lower_case, qemu=False, granule=4096))


# ---- flat files ----


def flat(create_type, line, qemu=True):
    """One flat file, sparse, under another createType."""

    def build_it(build):
        build.expect()
        shapes.write_raw(build.file("disk-flat.vmdk"), capacity(build) * SECTOR, [(build.shape, TOP)])
        text = descriptor(create_type, [line.format(capacity(build), "disk-flat.vmdk")])
        build.file(NAME).write_bytes(text)
        return build.source(
            NAME, "vmdk", standalone=False, files=2, granule=4096, qemu=qemu, check=qemu, qemu_holes=False
        )

    return build_it


variant("vmdk-vmfs", also=(shapes.WIDE,))(flat("vmfs", 'RW {} VMFS "{}"'))
variant("vmdk-vmfs-thin")(flat("vmfsThin", 'RW {} VMFS "{}"', qemu=False))
variant("vmdk-vmfs-preallocated")(flat("vmfsPreallocated", 'RW {} VMFS "{}"', qemu=False))
variant("vmdk-vmfs-eager")(flat("vmfsEagerZeroedThick", 'RW {} VMFS "{}"', qemu=False))
variant("vmdk-vmfs-with-offset", shapes.TAIL)(flat("vmfs", 'RW {} VMFS "{}" 0', qemu=False))
variant("vmdk-flat-without-offset", shapes.TAIL)(flat("monolithicFlat", 'RW {} FLAT "{}"', qemu=False))
variant("vmdk-flat-read-only", shapes.TAIL)(flat("monolithicFlat", 'RDONLY {} FLAT "{}" 0', qemu=False))
variant("vmdk-flat-more-fields", shapes.TAIL)(
    flat("monolithicFlat", 'RW {} FLAT "{}" 0 partitionUUID device')
)
variant("vmdk-flat-indented", shapes.TAIL)(flat("monolithicFlat", '\t RW  {}\tFLAT  "{}"  0 '))


@variant("vmdk-flat-pieces")
def flat_pieces(build):
    """Pieces out of one file by offsets, not in their order in the file, which is longer."""
    build.expect()
    total = capacity(build)
    first = total // 3
    second = total // 4
    third = total - first - second
    at = {0: 100 + second, 1: 17, 2: 200 + second + first}
    lines, file = [], build.file("disk-f001.vmdk")
    with open(file, "wb") as out:
        out.truncate((total + 299) * SECTOR)
        start = 0
        for number, length in enumerate((first, second, third)):
            out.seek(at[number] * SECTOR)
            out.write(build.disk(start * SECTOR, (start + length) * SECTOR))
            lines.append(f'RW {length} FLAT "disk-f001.vmdk" {at[number]}')
            start += length
    build.file(NAME).write_bytes(descriptor("twoGbMaxExtentFlat", lines))
    return build.source(NAME, "vmdk", standalone=False, files=2, qemu_holes=False)


def split(align, qemu):
    """Three small sparse pieces; align: of their borders, in sectors."""

    def build_it(build):
        build.expect()
        total = capacity(build)
        piece = div_ceil(total, 3 * align) * align
        lines = []
        for number, first in enumerate(range(0, total, piece)):
            length = min(piece, total - first)
            start, end = first * SECTOR, (first + length) * SECTOR
            found = {}
            for run in build.shape.runs:
                for grain in range((max(run.start, start) - start) // UNIT, div_ceil(min(run.end, end) - start, UNIT)):
                    at = start + grain * UNIT
                    found[grain] = build.disk(at, min(at + UNIT, end))
            name = f"disk-s{number + 1:03}.vmdk"
            write_sparse(build.file(name), length, found)
            lines.append(f'RW {length} SPARSE "{name}"')
        build.file(NAME).write_bytes(descriptor("twoGbMaxExtentSparse", lines))
        return build.source(
            NAME, "vmdk", standalone=False, files=1 + len(lines), check=False, qemu=qemu, qemu_holes=qemu
        )

    return build_it


variant("vmdk-hand-split", also=(shapes.CHECKER,))(split(128, True))
# Here QEMU reads the rest of an extent's partial last grain in place of the next extent's start.
variant("vmdk-hand-split-inside-grains", also=(shapes.CHECKER,))(split(8, False))


def with_middle(line):
    """A flat piece, something without a file in the middle, and a flat piece."""

    def build_it(build):
        total = capacity(build)
        first, middle = total // 4, total // 3
        shapes.write_raw(build.expected, build.shape.size, [(build.shape, TOP)])
        flat_file, second = build.file("disk-f001.vmdk"), build.file("disk-f002.vmdk")
        flat_file.write_bytes(build.disk(0, first * SECTOR))
        second.write_bytes(build.disk((first + middle) * SECTOR, total * SECTOR))
        with open(build.expected, "r+b") as file:
            file.seek(first * SECTOR)
            file.write(bytes(middle * SECTOR))
        build.file(NAME).write_bytes(
            descriptor(
                "twoGbMaxExtentFlat",
                [
                    f'RW {first} FLAT "disk-f001.vmdk" 0',
                    line.format(middle),
                    f'RDONLY {total - first - middle} FLAT "disk-f002.vmdk" 0',
                ],
            )
        )
        return build.source(NAME, "vmdk", standalone=False, files=3, qemu=False)

    return build_it


variant("vmdk-zero-extent-and-rdonly")(with_middle("RW {} ZERO"))
variant("vmdk-zero-extent-read-only", shapes.TAIL)(with_middle("RDONLY {} ZERO"))


# ---- hosted sparse by hand ----


def sparse(grain=128, version=1, flags=3, mark=False, qemu=True, standalone=True, tail_cut=False, **layout):
    def build_it(build):
        build.expect()
        text = descriptor("monolithicSparse", [f'RW {capacity(build)} SPARSE "{NAME}"'])
        found = grains(build, grain * SECTOR, zeros=mark)
        write_sparse(
            build.file(NAME), capacity(build), found, text, grain=grain, version=version, flags=flags, **layout
        )
        if tail_cut:
            # the file ends inside the last grain, where its data ends
            unused = -build.shape.end % (grain * SECTOR)
            os.truncate(build.file(NAME), build.file(NAME).stat().st_size - unused)
        return build.source(
            NAME,
            "vmdk",
            standalone=standalone,
            granule=grain * SECTOR,
            qemu=qemu,
            check=qemu and not tail_cut,
        )

    return build_it


variant("vmdk-hand-grain-4k", also=(shapes.CHECKER,))(sparse(grain=8))
variant("vmdk-hand-grain-16k-few-tables")(sparse(grain=32, tables_everywhere=False))
variant("vmdk-hand-grain-1m", also=(shapes.WIDE,))(sparse(grain=2048))
variant("vmdk-hand-one-directory")(sparse(flags=1, tables_everywhere=False))
variant("vmdk-hand-small-tables")(sparse(grain=8, gtes=128))
variant("vmdk-hand-zero-grains", also=(shapes.ZEROS, shapes.CHECKER))(
    sparse(version=2, flags=3 | ZERO_GTE, mark=True)
)
# readers disagree about these, so they are not served as they are
variant("vmdk-hand-zero-grains-without-flag")(sparse(mark=True, qemu=False, standalone=None))
variant("vmdk-hand-ends-in-last-grain", shapes.TAIL, shapes.FRAG, shapes.TAIL_SHORT)(
    sparse(tail_cut=True, standalone=None)
)


def stream(**layout):
    def build_it(build):
        build.expect()
        text = descriptor("streamOptimized", [f'RW {capacity(build)} SPARSE "{NAME}"'])
        grain = layout.get("grain", 128)
        found = grains(build, grain * SECTOR, zeros=False)
        write_stream(build.file(NAME), capacity(build), found, text, **layout)
        return build.source(NAME, "vmdk", standalone=True, granule=grain * SECTOR)

    return build_it


variant("vmdk-stream-v3-footer", also=(shapes.CHECKER, shapes.WIDE))(stream())
variant("vmdk-stream-v3-short-last-grain")(stream(full_last=False))
variant("vmdk-stream-v2-footer")(stream(version=2))
variant("vmdk-stream-v1-front")(stream(version=1, footer=False))
variant("vmdk-stream-v3-front-short")(stream(footer=False, full_last=False))
variant("vmdk-stream-progress")(stream(progress=True))
variant("vmdk-stream-grain-4k")(stream(grain=8))
variant("vmdk-stream-one-sector-of-text", shapes.TAIL)(stream(text_sectors=1))


# ---- deltas ----


def parent(build, size=None, cid=0xC0FFEE11):
    """disk.vmdk, a vmfs disk that lies below. Returns its shape."""
    shape = resized(shapes.FRAG2, build.shape.size if size is None else size)
    shapes.write_raw(build.file("disk-flat.vmdk"), shape.size, [(shape, BELOW)])
    lines = [f'RW {shape.size // SECTOR} VMFS "disk-flat.vmdk"']
    build.file(NAME).write_bytes(descriptor("vmfs", lines, cid=cid))
    return shape


CHILD = "disk-000001.vmdk"


def delta(create_type, line, write, below_size=None, qemu=True, hint=NAME):
    def build_it(build):
        below = parent(build, below_size(build.shape.size) if below_size else None)
        build.expect((below, BELOW), (build.shape, TOP))
        write(build)
        text = descriptor(
            create_type, [line.format(capacity(build))], parent_cid=0xC0FFEE11, hint=hint, keys=['encoding="UTF-8"']
        )
        build.file(CHILD).write_bytes(text)
        # vmfsSparse and seSparse: QEMU has no check
        return build.source(
            CHILD,
            "vmdk",
            standalone=False,
            files=4,
            qemu=qemu,
            check=False,
            qemu_holes=False,
            slow=create_type == "vmfsSparse",  # grain by grain, of one sector each
        )

    return build_it


def cowd(grain=1):
    def write(build):
        found = grains(build, grain * SECTOR, zeros=False)
        write_cowd(build.file("disk-000001-delta.vmdk"), capacity(build), found, grain=grain)

    return write


def sesparse(first=0):
    def write(build):
        found = grains(build, 4 * KIB)
        unmapped = [n for i, n in enumerate(sorted(n for n in found if found[n] == ZERO)) if i % 2]
        for number in unmapped:
            del found[number]
        write_sesparse(build.file("disk-000001-sesparse.vmdk"), capacity(build), found, unmapped, first)

    return write


def shorter(size):
    return size // 2 // SECTOR * SECTOR


def longer(size):
    return size + 3 * UNIT + SECTOR


COWD_LINE = 'RW {} VMFSSPARSE "disk-000001-delta.vmdk"'
SESPARSE_LINE = 'RW {} SESPARSE "disk-000001-sesparse.vmdk"'

variant("vmdk-cowd", also=(shapes.CHECKER,))(delta("vmfsSparse", COWD_LINE, cowd()))
variant("vmdk-cowd-grain-4k")(delta("vmfsSparse", COWD_LINE, cowd(8)))
variant("vmdk-cowd-over-shorter")(delta("vmfsSparse", COWD_LINE, cowd(), shorter))
variant("vmdk-sesparse", also=(shapes.CHECKER,))(delta("seSparse", SESPARSE_LINE, sesparse()))
variant("vmdk-sesparse-over-longer")(delta("seSparse", SESPARSE_LINE, sesparse(), longer))
# places of more than twelve bits
variant("vmdk-sesparse-far", shapes.FRAG)(delta("seSparse", SESPARSE_LINE, sesparse(first=4090)))


def sparse_child(mark):
    """A hosted sparse extent under a descriptor of its own; zero grains hide what is below."""

    def write(build):
        flags = 3 | ZERO_GTE if mark else 3
        found = grains(build, UNIT, zeros=mark)
        write_sparse(build.file("disk-000001-s001.vmdk"), capacity(build), found, flags=flags, version=2)

    return delta("twoGbMaxExtentSparse", 'RW {} SPARSE "disk-000001-s001.vmdk"', write)


variant("vmdk-split-child-with-zero-grains", also=(shapes.CHECKER, shapes.ZEROS))(sparse_child(True))


def qemu_child(build, name, below, shape, seed):
    build.qemu_img("create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", name)
    build.fill("vmdk", name, shape, seed)


@variant("vmdk-child-of-qemu", also=(shapes.CHECKER,))
def child_of_qemu(build):
    below = resized(shapes.FRAG2, build.shape.size)
    build.expect((below, BELOW), (build.shape, TOP))
    create(build)
    build.fill("vmdk", NAME, below, BELOW)
    qemu_child(build, CHILD, NAME, build.shape, TOP)
    return build.source(CHILD, "vmdk", standalone=False, files=2)


@variant("vmdk-chain-of-3")
def chain_of_3(build):
    bottom = resized(shapes.FRAG2, build.shape.size)
    middle = resized(shapes.Shape("middle", MIB, (shapes.Run(shapes.DATA, 8 * KIB, 9 * UNIT),)), build.shape.size)
    build.expect((bottom, 4), (middle, BELOW), (build.shape, TOP))
    create(build)
    build.fill("vmdk", NAME, bottom, 4)
    qemu_child(build, CHILD, NAME, middle, BELOW)
    qemu_child(build, "disk-000002.vmdk", CHILD, build.shape, TOP)
    return build.source("disk-000002.vmdk", "vmdk", standalone=False, files=3)


# ---- what other tools leave behind ----


@variant("vmdk-wrong-redundant-tables", shapes.FRAG)
def wrong_redundant_tables(build):
    """The second copy of the tables is not read."""
    source = written("", standalone=True)(build)
    poke(source.file, 21 * SECTOR, b"\xff" * 2048)
    return source


@variant("vmdk-unclean", shapes.FRAG)
def unclean(build):
    source = written("", standalone=True)(build)
    poke(source.file, 72, b"\1")
    return source
