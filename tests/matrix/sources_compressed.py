# SPDX-License-Identifier: Apache-2.0
"""Sources in compressed files: what other sources are, but all of it packed."""

import gzip
import lzma
import os
import subprocess

import shapes
from compressed_writer import bgzf, seekable_zstd, xz_blocks, zstd_frames
from qcow2_writer import BACKING_FORMAT, Qcow2Writer
from shapes import KIB, UNIT
from sources import BELOW, TOP, variant
from tools import run

SCAN = ("-s",)  # what has no index may be read to find one


def raw(build):
    build.expect()
    return shapes.write_raw(build.scratch / "disk.raw", build.shape.size, [(build.shape, TOP)])


def image(build, image_format, options=()):
    build.expect()
    path = build.scratch / f"disk.{image_format}"
    build.qemu_img("convert", "-f", "raw", "-O", image_format, *options, build.expected, path)
    return path


def packed(build, plain, suffix, content, **kwargs):
    """The file is made of the compressed bytes; QEMU cannot look into it."""
    name = f"{plain.name}.{suffix}"
    if content is not None:
        build.file(name).write_bytes(content)
    image_format = plain.suffix[1:]
    kwargs.setdefault("granule", None if image_format == "raw" else UNIT)
    kwargs.setdefault("standalone", True)
    return build.source(name, image_format, plain=plain, qemu=False, **kwargs)


def by_tool(suffix, *argv, plain=raw, **kwargs):
    """A tool compresses what is on its standard input."""

    def build_it(build):
        path = plain(build)
        with open(path, "rb") as source, open(build.file(f"{path.name}.{suffix}"), "wb") as target:
            subprocess.run(argv, stdin=source, stdout=target, check=True, timeout=120)
        return packed(build, path, suffix, None, **kwargs)

    return build_it


def qcow2(build):
    return image(build, "qcow2")


def vmdk(build):
    return image(build, "vmdk", ("-o", "subformat=streamOptimized"))


# ---- gzip ----

ODD = (shapes.EMPTY, shapes.ONE, shapes.B513)

variant("gz-raw", also=(*ODD, shapes.CHECKER, shapes.FULL))(by_tool("gz", "gzip", "-6", options=SCAN))
variant("gz-qcow2")(by_tool("gz", "gzip", "-1", plain=qcow2, options=SCAN))
variant("gz-vmdk", shapes.TAIL)(by_tool("gz", "gzip", "-9", plain=vmdk, options=SCAN))


@variant("gz-members", also=(shapes.FULL,))
def members(build):
    """Members of all sizes, empty ones, names and comments in their headers, zeros at the end."""
    path = raw(build)
    content = path.read_bytes()
    parts, at, size = [], 0, 1
    while at < len(content):
        parts.append(gzip.compress(content[at : at + size], 1 + size % 9))
        at += size
        size = size * 3 + 1
    extra = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x04\0ABCD" + b"name\0comment\0" + b"\x03\0" + bytes(8)
    return packed(build, path, "gz", extra + b"".join(parts) + bytes(1000), options=SCAN)


@variant("gz-bgzf", shapes.TAIL)
def blocked_gzip(build):
    path = raw(build)
    return packed(build, path, "gz", bgzf(path.read_bytes()), options=SCAN)


@variant("gz-stored", shapes.TAIL)
def stored(build):
    """Deflate blocks that are not compressed."""
    path = raw(build)
    return packed(build, path, "gz", gzip.compress(path.read_bytes(), 0), options=SCAN)


# ---- xz ----

variant("xz-raw", also=(*ODD, shapes.CHECKER, shapes.FULL))(
    by_tool("xz", "xz", "-0", f"--block-size={1 << 17}")
)
variant("xz-qcow2")(by_tool("xz", "xz", "-1", "-T2", "--block-size=100000", plain=qcow2))
variant("xz-vmdk", shapes.TAIL)(by_tool("xz", "xz", "-9", plain=vmdk))
variant("xz-unverified", shapes.TAIL)(by_tool("xz", "xz", "-0", "--check=none", "--block-size=65536"))
variant("xz-bcj", shapes.TAIL)(by_tool("xz", "xz", "--x86", "--delta=dist=4", "--lzma2=preset=1", "--check=sha256", "--block-size=65536"))


@variant("xz-streams", also=(shapes.FULL,))
def streams(build):
    """Streams of several blocks, empty ones, padding between them."""
    path = raw(build)
    content = path.read_bytes()
    third = len(content) // 3
    return packed(
        build,
        path,
        "xz",
        lzma.compress(b"")
        + xz_blocks(build, content[:third], 70000)
        + bytes(4)
        + lzma.compress(content[third : 2 * third], check=lzma.CHECK_CRC32)
        + bytes(1000)
        + xz_blocks(build, content[2 * third :], 1 << 20)
        + lzma.compress(b"")
        + bytes(8),
    )


@variant("xz-overlay", shapes.TAIL)
def overlay(build):
    """Compressed files that name compressed files."""
    build.expect((shapes.FULL, BELOW), (build.shape, TOP))
    base = shapes.write_raw(build.scratch / "disk-base.raw", build.shape.size, [(shapes.FULL, BELOW)])
    build.file("disk-base.raw.xz").write_bytes(xz_blocks(build, base.read_bytes(), 65536))
    top = Qcow2Writer(build.shape.size)
    top.backing = b"disk-base.raw.xz"
    top.extensions.append((BACKING_FORMAT, b"raw"))
    for number, data in build.units(UNIT).items():
        top.plain(number, data or bytes(UNIT))
    path = build.scratch / "disk.qcow2"
    top.write(path)
    content = xz_blocks(build, path.read_bytes(), 65536)
    return packed(build, path, "xz", content, standalone=False, files=2, granule=None)


# ---- zstd ----


@variant("zst-sized", also=(*ODD[1:], shapes.CHECKER, shapes.FULL))
def sized(build):
    """Frames that say how much is in them."""
    path = raw(build)
    return packed(build, path, "zst", zstd_frames(build, path.read_bytes(), 300000, sized=True))


@variant("zst-seekable")
def seekable(build):
    path = qcow2(build)
    return packed(build, path, "zst", seekable_zstd(build, path.read_bytes(), 128 * KIB))


@variant("zst-seekable-checksums", shapes.TAIL)
def seekable_checksums(build):
    path = vmdk(build)
    return packed(build, path, "zst", seekable_zstd(build, path.read_bytes(), 200001, checksums=True))


@variant("zst-unsized", shapes.TAIL, shapes.EMPTY)
def unsized(build):
    path = raw(build)
    frames = zstd_frames(build, path.read_bytes(), 65536, sized=False)
    return packed(build, path, "zst", frames, options=SCAN)


@variant("zst-by-pzstd", shapes.CHECKER, shapes.FULL)
def by_pzstd(build):
    path = raw(build)
    run("pzstd", "-q", "-p", "2", "-o", build.file("disk.raw.zst"), path)
    return packed(build, path, "zst", None, options=SCAN)


@variant("zst-one-frame", shapes.FULL)
def one_frame(build):
    path = raw(build)
    run("zstd", "-q", "-19", "-o", build.file("disk.raw.zst"), path)
    assert os.path.getsize(build.file("disk.raw.zst")) > 0
    return packed(build, path, "zst", None)
