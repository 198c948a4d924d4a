# SPDX-License-Identifier: Apache-2.0
"""VHDX sources: fixed, dynamic and differencing disks, by QEMU and by hand; logs to be replayed."""

import shapes
from shapes import DATA, GIB, KIB, MIB, SECTOR, TIB, UNIT, Run, Shape, resized
from sources import BELOW, EVERY_SHAPE, TOP, variant
from vhdx_writer import (
    BELOW_GUID,
    DATA_GUID,
    HEADERS,
    PAGE,
    TABLES,
    UNDEFINED,
    UNMAPPED,
    UNMAPPED_OLD,
    ZERO,
    Partial,
    State,
    linked_to,
    log_entry,
    pages_of,
    write_log,
    write_vhdx,
)

NAME = "disk.vhdx"


def image(build, name=NAME, **kwargs):
    """QEMU 7.2 knows no differencing disks and no holes in the others."""
    return build.source(name, "vhdx", qemu_map=False, **kwargs)


def child_image(build, files):
    return image(build, CHILD, standalone=False, files=files, qemu=False)


# ---- by qemu-img ----


def written(options="", reverse=False, granule=None):
    def build_it(build):
        build.expect()
        args = ["-o", options] if options else []
        build.qemu_img("create", "-q", "-f", "vhdx", *args, NAME, build.shape.size)
        build.fill("vhdx", NAME, build.shape.reversed(MIB) if reverse else None)
        return image(build, standalone=True, granule=granule, qemu=build.shape.size <= TIB)

    return build_it


variant("vhdx-dynamic", also=EVERY_SHAPE)(written())
variant("vhdx-dynamic-1m", also=(shapes.CHECKER, shapes.FULL))(written("block_size=1M", granule=MIB))
variant("vhdx-dynamic-scattered", shapes.FRAG, shapes.FULL)(written("block_size=1M", reverse=True, granule=MIB))
variant("vhdx-dynamic-256m", shapes.FRAG)(written("block_size=256M"))
variant("vhdx-dynamic-large-log", shapes.FRAG)(written("log_size=64M"))
variant("vhdx-fixed", also=(shapes.WIDE,))(written("subformat=fixed"))


@variant("vhdx-converted", shapes.FRAG, shapes.FULL)
def converted(build):
    build.expect()
    build.qemu_img("convert", "-f", "raw", "-O", "vhdx", build.expected, NAME)
    return image(build, standalone=True)


# ---- by hand ----


def blocks_of(build, block=MIB, zero=None, shape=None):
    """Of blocks that are zeros from end to end nothing but a state is kept, if one is given."""
    units = build.units(block, shape)
    if zero is not None:
        return {n: data or State(zero) for n, data in units.items()}
    return {n: data or bytes(block) for n, data in units.items()}


def backwards(numbers):
    return numbers[::-1]


def by_hand(qemu=True, check=True, zero=None, size=None, **layout):
    def build_it(build):
        block = layout.get("block", MIB)
        build.expect(size=size(build.shape.size) if size else None)
        source = image(build, standalone=True, granule=None if size else block, qemu=qemu, check=qemu and check)
        write_vhdx(source.file, source.size, blocks_of(build, block, zero), **layout)
        return source

    return build_it


def whole_pages(size):
    return -(-size // 4096) * 4096


variant("vhdx-hand", also=(shapes.SECTORS, shapes.CHECKER, shapes.WIDE, shapes.NOTHING))(by_hand())
variant("vhdx-hand-scattered", shapes.FRAG, shapes.WIDE)(by_hand(order=backwards, block=2 * MIB))
variant("vhdx-hand-fixed-flag", shapes.FULL)(by_hand(fixed=True))
variant("vhdx-hand-zero", also=(shapes.ZEROS,))(by_hand(zero=ZERO))
variant("vhdx-hand-undefined", also=(shapes.ZEROS,))(by_hand(zero=UNDEFINED))
variant("vhdx-hand-unmapped", also=(shapes.ZEROS,))(by_hand(zero=UNMAPPED))
variant("vhdx-hand-unmapped-of-old", also=(shapes.ZEROS,))(by_hand(zero=UNMAPPED_OLD))
variant("vhdx-hand-first-header-newer", shapes.TAIL)(by_hand(sequences=(1 << 63, 5)))
variant("vhdx-hand-first-header-broken", shapes.TAIL)(by_hand(broken=HEADERS[:1]))
variant("vhdx-hand-second-header-broken", shapes.TAIL)(by_hand(broken=HEADERS[1:]))
variant("vhdx-hand-equal-headers", shapes.TAIL)(by_hand(sequences=(3, 3)))
# QEMU looks at the first one only
variant("vhdx-hand-first-table-broken", shapes.TAIL)(by_hand(broken=TABLES[:1], qemu=False))
variant("vhdx-hand-second-table-broken", shapes.TAIL)(by_hand(broken=TABLES[1:]))
variant("vhdx-hand-optional-things", shapes.TAIL)(
    by_hand(more_regions=[(b"nobody knows it!", 3 * MIB, 0, 0)], more_items=[(b"nor this item...", 1, b"user's")])
)
variant("vhdx-hand-metadata-first", shapes.FRAG)(by_hand(regions=("metadata", "log", "bat"), log_length=2 * MIB))
variant("vhdx-hand-sectors-of-4k")(by_hand(sector=4096, size=whole_pages, qemu=False))
# more than one chunk: entries of bitmap blocks lie between
CHUNKS = Shape(
    "chunks",
    9 * GIB + 3 * SECTOR,
    (
        Run(DATA, 4 * GIB - SECTOR, 4 * GIB + SECTOR),
        Run(DATA, 8 * GIB, 8 * GIB + UNIT),
        Run(DATA, 9 * GIB, 9 * GIB + 2 * SECTOR),
    ),
)
variant("vhdx-hand-chunks", CHUNKS)(by_hand())
variant("vhdx-hand-chunks-of-one-page", shapes.WIDE)(by_hand(block=256 * MIB, zero=ZERO))


# ---- logs ----


def blank(path, pages):
    """What the log has is not in the file yet."""
    with open(path, "r+b") as file:
        for offset, _ in pages:
            file.seek(offset)
            file.write(b"not the newest!!" * 256)


def in_the_log(entries_of, at=0, length=MIB, check=False, **layout):
    """A disk whose BAT and metadata are in its log alone."""

    def build_it(build):
        build.expect()
        source = image(build, standalone=False, qemu=False, check=check)
        places = write_vhdx(source.file, source.size, blocks_of(build, zero=ZERO), log_length=length, **layout)
        pages = pages_of(source.file, places.bat, MIB) + pages_of(source.file, places.metadata, MIB)
        blank(source.file, pages)
        write_log(source.file, places, entries_of(pages, at), at=at, length=length)
        return source

    return build_it


def together(pages, at):
    return [log_entry(77, at, pages)]


def one_by_one(pages, at):
    """The tail is the first one, and what is before that is out of date."""
    old = log_entry(40, at, [(offset, b"long ago" * 512) for offset, _ in pages])
    entries, first = [old], (at + len(old)) % MIB
    for number, page in enumerate(pages):
        entries.append(log_entry(41 + number, first, [page]))
    return entries


def twice(pages, at):
    """The later one counts; between them zeros."""
    wrong = [(offset, b"not this" * 512) for offset, _ in pages]
    zeros = [(offset, PAGE) for offset, _ in pages]
    return [log_entry(1, at, wrong), log_entry(2, at, zeros), log_entry(3, at, pages)]


def with_leftovers(pages, at):
    """Behind the newest sequence lies one of an older round, with the same GUID."""
    old = [(offset, b"old page" * 512) for offset, _ in pages]
    new = log_entry(1000, at, pages)
    return [new, log_entry(12, at + len(new), old), log_entry(13, at + len(new), old)]


def with_zeros(pages, at):
    """Two pages that must be zeros, of which the first is said twice."""
    return [log_entry(5, at, [(512 * KIB, 16 * PAGE), *pages, (512 * KIB, 2 * PAGE), (516 * KIB, PAGE)])]


variant("vhdx-log", also=(shapes.WIDE, shapes.CHECKER))(in_the_log(together))
variant("vhdx-log-many-entries")(in_the_log(one_by_one))
variant("vhdx-log-twice")(in_the_log(twice))
variant("vhdx-log-leftovers")(in_the_log(with_leftovers))
variant("vhdx-log-zeros", shapes.TAIL)(in_the_log(with_zeros))
variant("vhdx-log-wraps", shapes.FRAG)(in_the_log(one_by_one, at=MIB - 3 * PAGE))
variant("vhdx-log-entry-wraps", shapes.FRAG)(in_the_log(together, at=2 * MIB - PAGE, length=2 * MIB))


@variant("vhdx-log-region-table", shapes.TAIL)
def logged_region_table(build):
    """Both copies of the table of regions are in the log."""
    build.expect()
    source = image(build, standalone=False, qemu=False, check=False)
    places = write_vhdx(source.file, source.size, blocks_of(build))
    pages = [page for table in TABLES for page in pages_of(source.file, table, 64 * KIB)]
    blank(source.file, pages)
    write_log(source.file, places, [log_entry(9, 0, pages)])
    return source


@variant("vhdx-log-of-data", shapes.FULL)
def logged_data(build):
    """Pages of payload: no writer should, but a replay writes them as well."""
    build.expect()
    source = image(build, standalone=False, qemu=False, check=False)
    places = write_vhdx(source.file, source.size, blocks_of(build))
    at = places.places[1]
    pages = [(at + n * PAGE, build.disk(MIB + n * PAGE, MIB + (n + 1) * PAGE)) for n in (0, 1, 7, 255)]
    blank(source.file, pages)
    write_log(source.file, places, [log_entry(9, 0, pages)])
    return source


@variant("vhdx-log-longer-file", shapes.NOTHING)
def logged_length(build):
    """The file had been made longer for a block, which had not been written yet."""
    build.expect()
    source = image(build, standalone=False, qemu=False, check=False)
    places = write_vhdx(source.file, source.size, {})
    end = places.end
    bat = (end | 6).to_bytes(8, "little").ljust(PAGE, b"\0")
    write_log(source.file, places, [log_entry(9, 0, [(places.bat, bat)], flushed=end, last=end + MIB)])
    return source


# ---- differencing ----

CHILD, BASE = "disk-000001.vhdx", "disk.vhdx"


def sectors_of(build, number, sector=SECTOR):
    """Of a block of 1 MiB: its sectors in which something was written."""
    found = set()
    for start, end in build.shape.touched(sector):
        for at in range(max(start, number * MIB), min(end, (number + 1) * MIB), sector):
            found.add(at % MIB // sector)
    return frozenset(found)


def child_blocks(build, full=(), sector=SECTOR):
    """Bytes of sectors that are not here are nonsense."""
    blocks = {}
    for number, data in build.units(MIB).items():
        sectors = sectors_of(build, number, sector)
        data = bytearray(data or bytes(MIB))
        if number in full:
            blocks[number] = bytes(data)
            continue
        for n in range(MIB // sector):
            if n not in sectors:
                data[n * sector : (n + 1) * sector] = b"?" * sector
        blocks[number] = Partial(bytes(data), sectors)
    return blocks


def below(build, size=None, name=BASE, **layout):
    shape = resized(shapes.FRAG2, build.shape.size if size is None else size)
    path = shapes.write_raw(build.scratch / "below", shape.size, [(shape, BELOW)])
    data = path.read_bytes()
    blocks = {n: data[n * MIB : (n + 1) * MIB] for n in range(-(-shape.size // MIB))}
    write_vhdx(build.file(name), shape.size, blocks, data_guid=BELOW_GUID, **layout)
    return shape


def differencing(size=None, pairs=None, full=(), sector=SECTOR, order=lambda n: n):
    def build_it(build):
        shape = below(build, size, sector=sector)
        build.expect((shape, BELOW), (build.shape, TOP))
        blocks = child_blocks(build, full, sector)
        write_vhdx(
            build.file(CHILD), build.shape.size, blocks, parent=pairs or linked_to(BASE), order=order, sector=sector
        )
        return child_image(build, 2)

    return build_it


def linkage2():
    pairs = linked_to(".\\" + BASE, b"another state...")
    return [*pairs, ("parent_linkage2", linked_to(BASE)[0][1].upper())]


variant("vhdx-differencing", also=(shapes.CHECKER, shapes.ZEROS))(differencing())
variant("vhdx-differencing-scattered", shapes.FRAG)(differencing(order=backwards))
variant("vhdx-differencing-short-parent", shapes.FRAG)(differencing(size=MIB + 5 * SECTOR))
variant("vhdx-differencing-long-parent", shapes.TAIL)(differencing(size=5 * MIB))
variant("vhdx-differencing-second-linkage", shapes.TAIL)(differencing(pairs=linkage2()))


@variant("vhdx-differencing-full-blocks", shapes.FRAG)
def full_blocks(build):
    """A whole block hides what is below whatever the bitmap says; so does one of zeros."""
    shape = below(build)
    middle = shapes.Shape("middle", shape.size, (Run(DATA, MIB, 2 * MIB), Run(shapes.ZERO, 3 * MIB, 5 * MIB)))
    build.expect((shape, BELOW), (build.shape, TOP), (middle, 3))
    blocks = child_blocks(build)
    blocks |= {1: build.disk(MIB, 2 * MIB), 3: State(ZERO), 4: State(UNMAPPED)}
    write_vhdx(build.file(CHILD), build.shape.size, blocks, parent=linked_to(BASE))
    return child_image(build, 2)


@variant("vhdx-differencing-sectors-of-4k", shapes.CHECKER)
def large_sectors(build):
    return differencing(sector=4096)(build)


@variant("vhdx-differencing-chunks", CHUNKS)
def chunks(build):
    """Bitmap blocks of three chunks over a parent that has only the first."""
    shape = Shape("below", build.shape.size, (Run(DATA, 4 * GIB - 4 * SECTOR, 4 * GIB + 4 * SECTOR),))
    build.expect((shape, BELOW))
    parent = {n: build.disk(n * MIB, (n + 1) * MIB) for n in (4095, 4096)}
    write_vhdx(build.file(BASE), build.shape.size, parent, data_guid=BELOW_GUID)
    build.expect((shape, BELOW), (build.shape, TOP))
    write_vhdx(build.file(CHILD), build.shape.size, child_blocks(build), parent=linked_to(BASE))
    return child_image(build, 2)


@variant("vhdx-differencing-chain", shapes.FRAG)
def chain(build):
    """Three layers; the bitmap of the lowest child is in its log."""
    shape = below(build)
    middle = shapes.Shape("middle", shape.size, (Run(DATA, MIB + SECTOR, MIB + 9 * SECTOR),))
    build.expect((shape, BELOW), (middle, 3))
    block = Partial(build.disk(MIB, 2 * MIB), frozenset(range(1, 9)))
    name = "disk-m.vhdx"
    places = write_vhdx(build.file(name), shape.size, {1: block}, parent=linked_to(BASE), data_guid=DATA_GUID)
    pages = pages_of(build.file(name), places.bitmaps[0], MIB) + pages_of(build.file(name), places.bat, MIB)
    blank(build.file(name), pages)
    write_log(build.file(name), places, [log_entry(3, 0, pages)])
    build.expect((shape, BELOW), (middle, 3), (build.shape, TOP))
    write_vhdx(
        build.file(CHILD), build.shape.size, child_blocks(build), parent=linked_to(name, DATA_GUID),
        data_guid=b"d" * 16,
    )  # fmt: skip
    return child_image(build, 3)
