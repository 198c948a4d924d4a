# SPDX-License-Identifier: Apache-2.0
"""qcow sources, version 1: by qemu-img and by hand."""

import re
import subprocess

import shapes
from qcow2_writer import deflate, peek
from qcow_writer import BACKING_LENGTH, BACKING_OFFSET, QcowWriter
from shapes import KIB, MIB, SECTOR, UNIT, resized
from sources import BELOW, TOP, variant
from tools import assert_same, qemu_img, run

NAME = "disk.qcow"
# `qemu-img check` does not know the format
NO_CHECK = {"check": False}


def source(build, path=NAME, standalone=True, libqcow=True, packed=False, **kwargs):
    if standalone and libqcow:
        second_opinion(build, path)
    if standalone and not packed:
        third_opinion(build, path)
    return build.source(path, "qcow", standalone=standalone, **NO_CHECK, **kwargs)


def second_opinion(build, path):
    """libqcow sees version 1 and the size."""
    done = run("qcowinfo", build.file(path))
    assert re.search(r"Format version\s*: 1\n", done.stdout), done.stdout
    size = re.search(r"Media size\s*:.*?(\d+)(?: bytes)?\)?$", done.stdout, re.MULTILINE)
    assert int(size[1]) == build.expected.stat().st_size, done.stdout


def third_opinion(build, path):
    """7-Zip extracts the same disk. It writes out all zeros, and knows no compressed clusters here."""
    if 0 < build.expected.stat().st_size <= 64 * MIB:
        out = build.scratch / "7z"
        with open(out, "wb") as file:
            subprocess.run(["7z", "e", "-so", "-tqcow", build.file(path)], stdout=file, check=True, timeout=120)
        assert_same(out, build.expected)
        out.unlink()


# ---- by qemu-img ----


def create(build, name=NAME, below=None, below_format=None):
    backing = ["-b", below, "-F", below_format] if below else []
    build.qemu_img("create", "-q", "-f", "qcow", *backing, name, build.shape.size)


def written(name=NAME, reverse=False, **kwargs):
    def build_it(build):
        build.expect()
        create(build, name)
        build.fill("qcow", name, build.shape.reversed(UNIT) if reverse else None)
        return source(build, name, granule=4 * KIB, **kwargs)

    return build_it


variant(
    "qcow",
    also=(shapes.SECTORS, shapes.NOTHING, shapes.ZEROS, shapes.CHECKER, shapes.FULL, shapes.WIDE),
)(written())
# at each of whose 2^31 clusters QEMU looks
variant("qcow-far", shapes.FAR)(written(qemu=False))
variant("qcow-scattered", shapes.FRAG, shapes.FULL)(written(reverse=True))


def convert_compressed(build, raw):
    """qemu-img says that it failed when it has written everything: it ends with a write of no bytes, which
    the driver refuses."""
    done = qemu_img("convert", "-c", "-f", "raw", "-O", "qcow", raw, NAME, cwd=build.root, check=False)
    assert done.returncode == 0 or (done.returncode == 1 and done.stderr == ""), done.stderr


@variant("qcow-compressed", also=(shapes.FULL, shapes.WIDE))
def compressed(build):
    build.expect()
    convert_compressed(build, build.expected)
    return source(build, packed=True, granule=4 * KIB)


@variant("qcow-compressed-and-written", shapes.FRAG, shapes.FULL)
def compressed_and_written(build):
    """Half of it overwritten after it was compressed."""
    other = shapes.Shape("other", build.shape.size, build.shape.runs[::2])
    build.expect((build.shape, BELOW), (other, TOP))
    old = shapes.write_raw(build.scratch / "old", build.shape.size, [(build.shape, BELOW)])
    convert_compressed(build, old)
    build.fill("qcow", NAME, other)
    return source(build, packed=True)


# ---- by hand ----


def by_hand(pack=None, shrink=0, qemu=True, libqcow=True, **layout):
    """pack: a writer's method for whole clusters, by their number. shrink: bytes that the disk lacks of whole
    sectors."""

    def build_it(build):
        build.expect(size=build.shape.size - shrink)
        image = QcowWriter(build.shape.size - shrink, **layout)
        for number, data in build.units(image.cluster).items():
            data = data or bytes(image.cluster)
            (pack or QcowWriter.plain)(image, number, data)
        image.write(build.file(NAME))
        return source(build, granule=image.cluster, qemu=qemu, libqcow=libqcow, packed=pack, exact=shrink == 0)

    return build_it


def mixed(image, number, data):
    if number % 3 == 2:
        image.plain(number, data)
    else:
        image.pack(number, data, gap=number % 5)


def wide_window(image, number, data):
    payload = deflate(data, 15)
    if len(payload) < image.cluster:
        image.compressed(number, payload)
    else:
        image.plain(number, data)


variant("qcow-hand", also=(shapes.CHECKER, shapes.WIDE, shapes.TAIL_SHORT))(by_hand())
variant("qcow-hand-512", also=(shapes.SECTORS,))(by_hand(cluster_bits=9, l2_bits=6))
variant("qcow-hand-512-as-overlays-have-it")(by_hand(cluster_bits=9, l2_bits=12))
# of which libqcow knows none so large
variant("qcow-hand-64k")(by_hand(cluster_bits=16, l2_bits=13, libqcow=False))
variant("qcow-hand-64k-small-tables", also=(shapes.WIDE,))(by_hand(cluster_bits=16, l2_bits=6))
variant("qcow-hand-mixed", also=(shapes.FULL,))(by_hand(mixed))
variant("qcow-hand-mixed-512")(by_hand(mixed, cluster_bits=9, l2_bits=7))
variant("qcow-hand-mixed-64k", also=(shapes.FULL,))(by_hand(mixed, cluster_bits=16, l2_bits=9))
variant("qcow-hand-clusters-at-sectors", shapes.FRAG, shapes.TAIL)(by_hand(align=SECTOR, cluster_bits=14))
variant("qcow-hand-l1-anywhere", shapes.TAIL)(by_hand(l1_gap=5 * SECTOR + 8, mtime=0xFFFFFFFF))
variant("qcow-hand-size-not-in-sectors")(by_hand(shrink=100))
# QEMU has a window of 4 KiB
variant("qcow-hand-wide-window", also=(shapes.FULL,))(by_hand(wide_window, cluster_bits=16, qemu=False))


# ---- chains ----


def chain(below_size=lambda size: size, by_qemu=True):
    """The format of what is below is not recorded; its name says raw."""

    def build_it(build):
        base = resized(shapes.FRAG2, below_size(build.shape.size))
        build.expect((base, BELOW), (build.shape, TOP))
        shapes.write_raw(build.file("disk-base.raw"), base.size, [(base, BELOW)])
        if by_qemu:
            create(build, below="disk-base.raw", below_format="raw")
            build.fill("qcow", NAME)
            assert peek(build.file(NAME), BACKING_OFFSET, ">Q") and peek(build.file(NAME), BACKING_LENGTH, ">I") == 13
        else:
            image = QcowWriter(build.shape.size, 12, 9, b"disk-base.raw")
            for number, data in build.units(image.cluster).items():
                mixed(image, number, data or bytes(image.cluster))
            image.write(build.file(NAME))
        return source(build, standalone=False, files=2)

    return build_it


variant("qcow-over-raw", also=(shapes.CHECKER, shapes.ZEROS, shapes.NOTHING))(chain())
variant("qcow-over-shorter-raw")(chain(lambda size: size // 2 // 512 * 512 + 512))
variant("qcow-over-longer-raw")(chain(lambda size: size + 3 * UNIT + 512))
variant("qcow-hand-over-raw")(chain(by_qemu=False))


@variant("qcow2-over-qcow", shapes.FRAG, shapes.TAIL)
def below_qcow2(build):
    base = resized(shapes.FRAG2, build.shape.size)
    build.expect((base, BELOW), (build.shape, TOP))
    build.qemu_img("create", "-q", "-f", "qcow", "disk-base.qcow", base.size)
    build.fill("qcow", "disk-base.qcow", base, BELOW)
    build.qemu_img("create", "-q", "-f", "qcow2", "-b", "disk-base.qcow", "-F", "qcow", "disk.qcow2", build.shape.size)
    build.fill("qcow2", "disk.qcow2")
    return build.source("disk.qcow2", "qcow2", standalone=False, files=2)


@variant("qcow2-named-qcow", shapes.FRAG)
def qcow2_by_that_name(build):
    """The suffix is that of both; the version decides."""
    build.expect()
    build.qemu_img("create", "-q", "-f", "qcow2", NAME, build.shape.size)
    build.fill("qcow2", NAME)
    return build.source(NAME, "qcow2", standalone=True, granule=UNIT)


@variant("qcow-by-content", shapes.TAIL)
def by_content(build):
    """Alone it needs no suffix."""
    return written("disk.img")(build)
