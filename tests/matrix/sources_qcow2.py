# SPDX-License-Identifier: Apache-2.0
"""qcow2 sources: by qemu-img and qemu-io where they can, by hand where not."""

import shapes
from qcow2_writer import (
    CORRUPT,
    DIRTY,
    SIZE,
    ZSTD,
    Qcow2Writer,
    deflate,
    peek,
    poke_int,
    set_incompatible,
    stored,
    zstd_frame,
)
from shapes import GIB, KIB, UNIT, resized
from sources import BELOW, EVERY_SHAPE, TOP, variant

NAME = "disk.qcow2"


def create(build, options="", name=NAME, size=None, below=None, below_format=None):
    args = ["create", "-q", "-f", "qcow2"]
    if options:
        args += ["-o", options]
    if below:
        args += ["-b", below, "-F", below_format]
    build.qemu_img(*args, name, build.shape.size if size is None else size)


def simple(options, granule=UNIT, zero_flags="", **kwargs):
    """A builder: one file, filled with writes."""

    def build_it(build):
        build.expect()
        create(build, options)
        build.fill("qcow2", NAME, zero_flags=zero_flags)
        return build.source(NAME, "qcow2", standalone=True, granule=granule, **kwargs)

    return build_it


variant("qcow2", also=(shapes.EMPTY, *EVERY_SHAPE))(simple(""))
variant("qcow2-v2", also=(shapes.FULL,))(simple("compat=0.10"))
variant("qcow2-512", also=(shapes.CHECKER,))(simple("cluster_size=512", 512))
variant("qcow2-4k")(simple("cluster_size=4k", 4 * KIB))
variant("qcow2-1m")(simple("cluster_size=1M", shapes.MIB))
variant("qcow2-2m", also=(shapes.WIDE, shapes.FAR))(simple("cluster_size=2M", 2 * shapes.MIB))
for bits in (10, 11, 13, 14, 15, 17, 18, 19):  # the other sizes that there are
    variant(f"qcow2-bits-{bits}")(simple(f"cluster_size={1 << bits}", 1 << bits))
variant("qcow2-zero-unmapped", also=(shapes.ZEROS,))(simple("", zero_flags="-u"))
variant("qcow2-refcount-1")(simple("refcount_bits=1"))
variant("qcow2-refcount-64")(simple("refcount_bits=64"))
variant("qcow2-extended-l2", also=(shapes.CHECKER,))(simple("extended_l2=on", 2 * KIB))
variant("qcow2-extended-l2-16k")(simple("extended_l2=on,cluster_size=16k", 512, "-u"))
variant("qcow2-preallocated-metadata")(simple("preallocation=metadata", None))
variant("qcow2-preallocated-falloc")(simple("preallocation=falloc", None))
variant("qcow2-preallocated-full")(simple("preallocation=full", None))


@variant("qcow2-scattered", shapes.FRAG, shapes.FULL)
def scattered(build):
    """Written from the end to the start: no two clusters follow each other in the file."""
    build.expect()
    create(build)
    build.fill("qcow2", NAME, build.shape.reversed(UNIT))
    return build.source(NAME, "qcow2", standalone=True, granule=UNIT)


@variant("qcow2-by-content", shapes.FRAG)
def by_content(build):
    build.expect()
    create(build, name="disk.img")
    build.fill("qcow2", "disk.img")
    return build.source("disk.img", "qcow2", standalone=True, granule=UNIT)


@variant("qcow2-preallocated-extended-l2", shapes.FRAG)
def preallocated_extended_l2(build):
    """Host clusters are there for subclusters that were never written."""
    return simple("extended_l2=on,preallocation=metadata", None)(build)


# ---- compressed ----


def converted(options, granule=UNIT):
    def build_it(build):
        build.expect()
        build.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, build.expected, NAME)
        return build.source(NAME, "qcow2", standalone=True, granule=granule)

    return build_it


variant("qcow2-zlib", also=(shapes.FULL, shapes.WIDE, shapes.FAR))(converted("compression_type=zlib"))
variant("qcow2-zlib-4k")(converted("compression_type=zlib,cluster_size=4k", 4 * KIB))
variant("qcow2-zlib-2m", also=(shapes.WIDE,))(converted("compression_type=zlib,cluster_size=2M", 2 * shapes.MIB))
variant("qcow2-zstd", also=(shapes.FULL,))(converted("compression_type=zstd"))
variant("qcow2-zstd-1m")(converted("compression_type=zstd,cluster_size=1M", shapes.MIB))


def mixed(options, cluster):
    """Compressed, plain and zero clusters in turn."""

    def build_it(build):
        build.expect()
        create(build, options)
        io = build.qemu_io()
        for number, data in build.units(cluster).items():
            start = number * cluster
            length = min(cluster, build.shape.size - start)
            if not data:
                io.zero(start, length, "-u" if number % 2 else "")
            else:
                io.write(start, data[:length], "-c" if number % 2 else "")
        io.run("qcow2", NAME, build.root)
        return build.source(NAME, "qcow2", standalone=True, granule=cluster)

    return build_it


variant("qcow2-mixed-zlib", also=(shapes.CHECKER,))(mixed("", UNIT))
variant("qcow2-mixed-zstd")(mixed("compression_type=zstd", UNIT))
variant("qcow2-mixed-extended-l2")(mixed("extended_l2=on", UNIT))


def by_hand(cluster_bits=16, version=3, compression=0, padded=True):
    """Clusters of all kinds, packed in ways of other writers than QEMU."""
    cluster = 1 << cluster_bits

    def pack(number, data):
        if compression == ZSTD:
            half = len(data) // 2
            return (
                zstd_frame(data[:half]) + zstd_frame(data[half:], known_size=False),
                zstd_frame(data),
            )[number % 2]
        # with a window of 32 KiB, or stored, which is longer than the cluster
        return stored(data) if number % 4 == 0 else deflate(data)

    def build_it(build):
        build.expect()
        image = Qcow2Writer(build.shape.size, cluster_bits, version, compression)
        units = build.units(cluster)
        last = max(units)
        for number, data in units.items():
            if not data and version == 3:
                image.zero(number, preallocated=number % 2 == 0)
            elif number % 5 == 2 or (number == last and not padded and compression != ZSTD):
                # an unpadded file ends inside the last cluster, where its data ends
                end = build.shape.end - number * cluster
                image.plain(number, (data or bytes(cluster))[: end if number == last else cluster])
            else:
                image.compressed(number, pack(number, data or bytes(cluster)), gap=number % 3)
        image.write(build.file(NAME), padded)
        return build.source(NAME, "qcow2", standalone=True, granule=cluster, check=False)

    return build_it


variant("qcow2-hand-zlib-32k-window", also=(shapes.FULL,))(by_hand())
variant("qcow2-hand-v2")(by_hand(version=2))
variant("qcow2-hand-zlib-512")(by_hand(cluster_bits=9))
variant("qcow2-hand-zlib-256k")(by_hand(cluster_bits=18))
variant("qcow2-hand-zstd-frames")(by_hand(compression=ZSTD))
variant("qcow2-hand-ends-in-last-cluster", also=(shapes.TAIL_SHORT,))(by_hand(padded=False))
variant("qcow2-hand-ends-with-payload")(by_hand(compression=ZSTD, padded=False))


# ---- pokes into the header ----


def poked(options, bits):
    def build_it(build):
        source = simple(options, check=False)(build)
        set_incompatible(source.file, bits)
        return source

    return build_it


variant("qcow2-dirty")(poked("lazy_refcounts=on", DIRTY))
variant("qcow2-corrupt")(poked("", CORRUPT))


@variant("qcow2-size-not-in-sectors")
def odd_size(build):
    size = build.shape.size - 100
    build.expect(size=size)
    create(build)
    build.fill("qcow2", NAME)
    poke_int(build.file(NAME), SIZE, ">Q", size)
    return build.source(NAME, "qcow2", standalone=True, exact=False)


@variant("qcow2-long-l1")
def long_l1(build):
    """The L1 table of a disk that was once larger, with data in what is cut off."""
    build.expect()
    create(build, size=8 * GIB)
    io = build.qemu_io()
    io.write(4 * GIB, shapes.content(BELOW, 0, UNIT))
    io.run("qcow2", NAME, build.root)
    build.fill("qcow2", NAME)
    poke_int(build.file(NAME), SIZE, ">Q", build.shape.size)
    assert peek(build.file(NAME), 36, ">I") == 16
    return build.source(NAME, "qcow2", standalone=True, granule=UNIT, check=False)


@variant("qcow2-snapshots")
def snapshots(build):
    """Two internal snapshots below the active state, which shares some of their clusters."""
    older = resized(shapes.FRAG2, build.shape.size)
    build.expect((older, BELOW), (build.shape, TOP))
    create(build)
    build.fill("qcow2", NAME, older, BELOW)
    build.qemu_img("snapshot", "-c", "first", NAME)
    build.fill("qcow2", NAME)
    build.qemu_img("snapshot", "-c", "second", NAME)
    io = build.qemu_io()
    io.write(0, build.disk(0, 4096))
    io.run("qcow2", NAME, build.root)
    return build.source(NAME, "qcow2", standalone=True)


# ---- internal snapshots, as images of their own ----


def at_snapshot(options="", granule=UNIT, fill=None, after=None, files=1, below=None):
    """What is seen is the snapshot; `after` is what has become of the active state since then."""

    def build_it(build):
        layers = [(build.shape, TOP)]
        if below:
            base = resized(shapes.FRAG2, build.shape.size)
            shapes.write_raw(build.file(below), base.size, [(base, BELOW)])
            layers.insert(0, (base, BELOW))
        build.expect(*layers)
        create(build, options, below=below, below_format="raw" if below else None)
        (fill or fill_plainly)(build)
        build.qemu_img("snapshot", "-c", "then", NAME)
        (after or overwritten)(build)
        return build.source(
            f"{NAME}//then", "qcow2", standalone=False, granule=None if below else granule, files=files,
            qemu=False, check=False, plain=build.file(NAME),
        )  # fmt: skip

    return build_it


def fill_plainly(build):
    build.fill("qcow2", NAME)


def fill_packed(build):
    """Compressed clusters and plain ones in turn."""
    io = build.qemu_io()
    for number, data in build.units(UNIT).items():
        start = number * UNIT
        if data:
            length = min(UNIT, build.shape.size - start)
            io.write(start, data[:length], "-c" if number % 2 else "")
    io.run("qcow2", NAME, build.root)


def overwritten(build):
    """Other data, and zeros where there was some: some clusters stay those of the snapshot."""
    build.fill("qcow2", NAME, resized(shapes.FRAG2, build.shape.size), BELOW)
    io = build.qemu_io()
    io.zero(0, min(build.shape.size, 3 * UNIT))
    io.run("qcow2", NAME, build.root)


def emptied(build):
    io = build.qemu_io()
    io.zero(0, build.shape.size, "-u")
    io.run("qcow2", NAME, build.root)


def resized_to(size):
    def after(build):
        overwritten(build)
        build.qemu_img("resize", "-q", "--shrink", NAME, size(build.shape.size))

    return after


def snapshot_and_fill(build):
    build.qemu_img("snapshot", "-c", "a snapshot with a longer name", NAME)
    fill_plainly(build)


def one_of_many(build):
    """Before and behind it in the table are others, of other states."""
    overwritten(build)
    build.qemu_img("snapshot", "-c", "a", NAME)
    emptied(build)


variant("qcow2-at-snapshot", also=(shapes.CHECKER, shapes.ZEROS, shapes.NOTHING))(at_snapshot())
variant("qcow2-at-snapshot-v2")(at_snapshot("compat=0.10"))
variant("qcow2-at-snapshot-512", shapes.FRAG)(at_snapshot("cluster_size=512", 512))
variant("qcow2-at-snapshot-2m", shapes.FRAG)(at_snapshot("cluster_size=2M", 2 * shapes.MIB))
variant("qcow2-at-snapshot-mixed-zlib")(at_snapshot(fill=fill_packed))
variant("qcow2-at-snapshot-mixed-zstd")(at_snapshot("compression_type=zstd", fill=fill_packed))
variant("qcow2-at-snapshot-extended-l2")(at_snapshot("extended_l2=on", 2 * KIB))
variant("qcow2-at-snapshot-before-growth")(at_snapshot(after=resized_to(lambda size: size + GIB)))
variant("qcow2-at-snapshot-before-shrinking")(at_snapshot(after=resized_to(lambda size: size // 2 // 512 * 512)))
variant("qcow2-at-snapshot-of-what-is-gone")(at_snapshot(after=emptied))
variant("qcow2-at-snapshot-of-many")(at_snapshot(fill=snapshot_and_fill, after=one_of_many))
variant("qcow2-at-snapshot-over-raw")(at_snapshot(files=2, below="disk-base.raw"))


# ---- chains ----


def chain(below_size, options="", below_options="", below_format="qcow2"):
    """Two layers. below_size: from the size of the overlay to that of what is below it."""

    def build_it(build):
        base_name = f"disk-base.{below_format}"
        base = resized(shapes.FRAG2, below_size(build.shape.size))
        build.expect((base, BELOW), (build.shape, TOP))
        if below_format == "raw":
            shapes.write_raw(build.file(base_name), base.size, [(base, BELOW)])
        else:
            args = ["-o", below_options] if below_options else []
            build.qemu_img("create", "-q", "-f", below_format, *args, base_name, base.size)
            build.fill(below_format, base_name, base, BELOW)
        create(build, options, below=base_name, below_format=below_format)
        build.fill("qcow2", NAME)
        return build.source(NAME, "qcow2", standalone=False, files=2)

    return build_it


def same(size):
    return size


def shorter(size):
    return size // 2 // 512 * 512 + 512


def longer(size):
    return size + 3 * UNIT + 512


variant("qcow2-over-raw", also=(shapes.CHECKER, shapes.ZEROS, shapes.NOTHING))(chain(same, below_format="raw"))
variant("qcow2-over-shorter-raw")(chain(shorter, below_format="raw"))
variant("qcow2-over-longer-raw")(chain(longer, below_format="raw"))
variant("qcow2-over-qcow2", also=(shapes.CHECKER,))(chain(same))
variant("qcow2-over-shorter-qcow2")(chain(shorter))
variant("qcow2-over-longer-qcow2")(chain(longer))
variant("qcow2-over-v2")(chain(same, below_options="compat=0.10,cluster_size=4k"))
variant("qcow2-v2-over-qcow2")(chain(same, "compat=0.10"))
variant("qcow2-2m-over-512")(chain(shorter, "cluster_size=2M", "cluster_size=512"))
variant("qcow2-512-over-2m")(chain(longer, "cluster_size=512", "cluster_size=2M"))
variant("qcow2-over-vmdk")(chain(same, below_format="vmdk"))
variant("qcow2-extended-l2-over-qcow2")(chain(shorter, "extended_l2=on"))


@variant("qcow2-over-odd-raw")
def over_odd_raw(build):
    """What is below ends inside a sector."""
    base = resized(shapes.FRAG2, build.shape.size // 2 + 77)
    build.expect((base, BELOW), (build.shape, TOP))
    shapes.write_raw(build.file("disk-base.raw"), base.size, [(base, BELOW)])
    create(build, below="disk-base.raw", below_format="raw")
    build.fill("qcow2", NAME)
    return build.source(NAME, "qcow2", standalone=False, files=2)


@variant("qcow2-over-raw-unrecorded", shapes.TAIL)
def over_raw_unrecorded(build):
    """No backing format is recorded; the name says .raw."""
    build.expect((resized(shapes.FRAG2, build.shape.size), BELOW), (build.shape, TOP))
    shapes.write_raw(
        build.file("disk-base.raw"), build.shape.size, [(resized(shapes.FRAG2, build.shape.size), BELOW)]
    )
    create(build, below="disk-base.raw", below_format="raw")
    forget_backing_format(build.file(NAME))
    build.fill("qcow2", NAME)
    return build.source(NAME, "qcow2", standalone=False, files=2)


def forget_backing_format(path):
    """Makes the extension that records it one of a type that nobody knows."""
    head = path.read_bytes()[:4096]
    at = head.index(b"\xe2\x79\x2a\xca")
    poke_int(path, at, ">I", 0x12345678)


@variant("qcow2-over-other-image", shapes.FRAG)
def over_other_image(build):
    """Outside the family: -r datastore."""
    base = resized(shapes.FRAG2, build.shape.size)
    build.expect((base, BELOW), (build.shape, TOP))
    build.file("bases").mkdir()
    shapes.write_raw(build.file("bases/common.img"), base.size, [(base, BELOW)])
    create(build, below="bases/common.img", below_format="raw")
    build.fill("qcow2", NAME)
    return build.source(NAME, "qcow2", standalone=False, files=2, options=("-r", "datastore"))


def thinned(shape, layer, of):
    return shapes.Shape(f"{shape.name}-{layer}", shape.size, shape.runs[layer::of])


@variant("qcow2-chain-of-16")
def deep_chain(build):
    """As many layers as are allowed, each with a part of the shape and content of its own."""
    depth = 16
    parts = [thinned(build.shape, i, depth // 4) for i in range(depth)]
    build.expect(*((part, i + 1) for i, part in enumerate(parts)))
    shapes.write_raw(build.file("disk-00.raw"), build.shape.size, [(parts[0], 1)])
    below, below_format = "disk-00.raw", "raw"
    for i in range(1, depth):
        name = NAME if i == depth - 1 else f"disk-{i:02}.qcow2"
        create(build, name=name, below=below, below_format=below_format)
        build.fill("qcow2", name, parts[i], i + 1)
        below, below_format = name, "qcow2"
    return build.source(NAME, "qcow2", standalone=False, files=depth)


# ---- external data file ----


def external(options, granule):
    def build_it(build):
        build.expect()
        create(build, f"data_file=disk-data.raw,{options}")
        build.fill("qcow2", NAME)
        return build.source(NAME, "qcow2", standalone=False, files=2, granule=granule)

    return build_it


variant("qcow2-data-file", also=(shapes.CHECKER,))(external("data_file_raw=off", UNIT))
variant("qcow2-data-file-raw", also=(shapes.CHECKER,))(external("data_file_raw=on", None))
variant("qcow2-data-file-extended-l2")(external("data_file_raw=off,extended_l2=on", 2 * KIB))
