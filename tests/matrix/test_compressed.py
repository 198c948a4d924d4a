# SPDX-License-Identifier: Apache-2.0
"""Compressed files that are large, that lie, or that are none."""

import gzip
import lzma
import os
import struct
import time
import zlib

import pytest
from compressed_writer import filtered, pieces, seek_table, skippable, xz_blocks, zstd_frame
from shapes import MIB
from stores import raw, raw_bytes
from test_references import refused, served
from tools import NO_IMAGE, READ_ERROR, assert_same_bytes, parse_info, qemu_img, run

SCAN = ("-s",)
BLOCK_MAX = 32 * MIB


def write(store, name, content):
    (store / name).write_bytes(content)
    return name


# ---- names ----


def test_the_suffix_inside_declares(viewcat, store):
    """A raw disk is raw whatever it begins with; a qcow2 is one or nothing."""
    qemu_img("create", "-q", "-f", "qcow2", store / "x.qcow2", "1M")
    image = (store / "x.qcow2").read_bytes()
    served(viewcat, store, write(store, "a.raw.xz", lzma.compress(image)), image)
    served(viewcat, store, write(store, "a.qcow2.xz", lzma.compress(image)), bytes(MIB))
    served(viewcat, store, write(store, "a.img.xz", lzma.compress(image)), bytes(MIB))
    refused(viewcat, store, write(store, "b.qcow2.xz", lzma.compress(raw_bytes())), "EINVAL")
    served(viewcat, store, write(store, "b.img.xz", lzma.compress(raw_bytes())), raw_bytes())
    served(viewcat, store, write(store, "c.RAW.XZ", lzma.compress(raw_bytes())), raw_bytes())


@pytest.mark.parametrize("name", ("a.gz", "a.tar.gz", "a.txt.xz", "a.raw.gz.xz", "a.zst"))
def test_names_that_say_nothing(viewcat, store, name):
    write(store, name, lzma.compress(raw_bytes()))
    viewcat.run(store, name, "info", expect=NO_IMAGE)


@pytest.mark.parametrize("suffix", ("bz2", "lz4", "lzma", "lz", "Z"))
def test_compressions_without_an_index(viewcat, store, suffix):
    write(store, f"a.vmdk.{suffix}", b"BZh91AY" + bytes(5000))
    assert suffix in refused(viewcat, store, f"a.vmdk.{suffix}", "ENOTSUP")


@pytest.mark.parametrize("suffix", ("gz", "xz", "zst"))
def test_what_is_not_compressed(viewcat, store, suffix):
    name = f"a.raw.{suffix}"
    for content in (b"", b"x", raw_bytes(), b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        write(store, name, content)
        refused(viewcat, store, name, "EINVAL", options=SCAN)


def test_gzip_needs_leave(viewcat, store):
    write(store, "a.raw.gz", gzip.compress(raw_bytes()))
    assert "scan_gzip" in refused(viewcat, store, "a.raw.gz", "ENOTSUP")
    served(viewcat, store, "a.raw.gz", raw_bytes(), options=SCAN)


def test_references_between_compressed_files(viewcat, store):
    """An image may name a compressed file as any other: of its family."""
    write(store, "disk-base.raw.xz", lzma.compress(raw_bytes()))
    write(store, "other.raw.xz", lzma.compress(raw_bytes(1)))
    for base, ok in (("disk-base.raw.xz", True), ("other.raw.xz", False)):
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "raw", store / "x.qcow2", "1M")
        write(store, "disk.qcow2.xz", lzma.compress((store / "x.qcow2").read_bytes()))
        if ok:
            served(viewcat, store, "disk.qcow2.xz", raw_bytes())
        else:
            refused(viewcat, store, "disk.qcow2.xz", "EPERM")


# ---- bombs ----


def quick(seconds, function, *args, **kwargs):
    start = time.monotonic()
    result = function(*args, **kwargs)
    assert time.monotonic() - start < seconds
    return result


def test_xz_bomb(viewcat, store):
    """32 MiB in each of 200 blocks of 5 KiB: any of them can be read, one at a time."""
    block = xz_blocks(None, bytes(BLOCK_MAX), BLOCK_MAX)
    write(store, "a.raw.xz", block * 200)
    info = quick(10, viewcat.run, store, "a.raw.xz", "info")
    assert parse_info(info.stdout).size == 200 * BLOCK_MAX
    done = quick(10, viewcat.run, store, "a.raw.xz", "read", "raw", 150 * BLOCK_MAX - 5, 10, text=False)
    assert_same_bytes(done.stdout, bytes(10))


@pytest.mark.parametrize("size", (BLOCK_MAX + 1, 1 << 30))
def test_blocks_that_are_too_large(viewcat, store, size):
    write(store, "a.raw.xz", filtered(["xz", "-0"], bytes(size)))
    assert "xz -T0" in refused(viewcat, store, "a.raw.xz", "ENOTSUP")
    write(store, "a.raw.zst", zstd_frame(bytes(size), sized=True))
    assert "pzstd" in refused(viewcat, store, "a.raw.zst", "ENOTSUP")


def test_xz_index_of_too_many_blocks(viewcat, store):
    """An index without end, of blocks that are not there."""
    index = b"\0" + varint(1 << 40) + b"\x15\x01" * (4 * MIB)
    index += bytes(-len(index) % 4)
    write(store, "a.raw.xz", xz_file(index))
    quick(10, refused, viewcat, store, "a.raw.xz", "ENOTSUP", "EINVAL")


def test_many_streams(viewcat, store):
    """A million empty streams."""
    write(store, "a.raw.xz", lzma.compress(b"") * 1000000)
    quick(60, refused, viewcat, store, "a.raw.xz", "ENOTSUP", "EINVAL")
    frame = zstd_frame(b"", sized=True)
    write(store, "a.raw.zst", frame * 5000000)
    assert "too many" in quick(60, refused, viewcat, store, "a.raw.zst", "ENOTSUP")


def test_zstd_frame_of_empty_blocks(viewcat, store):
    frame = struct.pack("<IBB", 0xFD2FB528, 0x00, 0x50) + bytes(30 * MIB)
    write(store, "a.raw.zst", frame)
    quick(60, refused, viewcat, store, "a.raw.zst", "ENOTSUP", "EINVAL", options=SCAN)


def test_gzip_bomb(viewcat, store):
    """1 GiB of zeros in 1 MiB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = b"".join(deflate.compress(bytes(MIB)) for _ in range(1024)) + deflate.flush()
    write(store, "a.raw.gz", content)
    info = viewcat.run(store, "a.raw.gz", "info", options=SCAN)
    assert parse_info(info.stdout).size == 1 << 30
    done = viewcat.run(store, "a.raw.gz", "read", "raw", (1 << 30) - 10, 10, options=SCAN, text=False)
    assert_same_bytes(done.stdout, bytes(10))


# ---- indexes that lie ----


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def xz_file(index, blocks=b"", check=1):
    """A stream with any index, by the .xz file format (2.1)."""
    flags = bytes([0, check])
    index += struct.pack("<I", zlib.crc32(index))
    backward = struct.pack("<I", len(index) // 4 - 1) + flags
    return (
        b"\xfd7zXZ\0" + flags + struct.pack("<I", zlib.crc32(flags)) + blocks + index
        + struct.pack("<I", zlib.crc32(backward)) + backward + b"YZ"
    )  # fmt: skip


def xz_parts(content):
    """(block, unpadded size, content size) of a stream of one block."""
    packed = lzma.compress(content, check=lzma.CHECK_CRC32, preset=0)
    backward = (struct.unpack_from("<I", packed, len(packed) - 8)[0] + 1) * 4
    block = packed[12 : len(packed) - 12 - backward]
    index = packed[len(packed) - 12 - backward :]
    at, numbers = 1, []
    while len(numbers) < 3:
        value = shift = 0
        while index[at] & 0x80:
            value |= (index[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
        numbers.append(value | index[at] << shift)
        at += 1
    return block, numbers[1], numbers[2]


def xz_of(parts):
    index = b"\0" + varint(len(parts)) + b"".join(varint(p[1]) + varint(p[2]) for p in parts)
    return xz_file(index + bytes(-len(index) % 4), b"".join(p[0] for p in parts))


def test_xz_by_hand(viewcat, store):
    one, two = raw_bytes(1), raw_bytes(2)
    write(store, "a.raw.xz", xz_of([xz_parts(one), xz_parts(two)]))
    served(viewcat, store, "a.raw.xz", one + two)


@pytest.mark.parametrize(("unpadded", "size"), ((0, 1), (0, -1), (0, 10 * MIB), (4, 0), (-4, 0)))
def test_xz_index_that_lies(viewcat, store, unpadded, size):
    """What is in the block is not what the index says: an error, and the other block is there."""
    one, two = raw_bytes(1), raw_bytes(2)
    block, true_unpadded, true_size = xz_parts(one)
    wrong = (block + bytes(max(unpadded, 0)), true_unpadded + unpadded, true_size + size)
    write(store, "a.raw.xz", xz_of([xz_parts(two), wrong]))
    if unpadded < 0:
        refused(viewcat, store, "a.raw.xz", "EINVAL")  # then the blocks are not where they were
        return
    assert parse_info(viewcat.run(store, "a.raw.xz", "info").stdout).size == 2 * MIB + size
    done = viewcat.run(store, "a.raw.xz", "read", "raw", 0, MIB, text=False)
    assert_same_bytes(done.stdout, two)
    viewcat.run(store, "a.raw.xz", "read", "raw", MIB, 1, expect=READ_ERROR)


def seekable(frames, lies=()):
    entries = [(len(f), n) for f, n in frames]
    for number, length, content in lies:
        entries[number] = (entries[number][0] + length, entries[number][1] + content)
    return b"".join(f for f, _ in frames) + seek_table(entries)


@pytest.mark.parametrize("content", (1, -1, 5 * MIB))
def test_seek_table_that_lies_about_content(viewcat, store, content):
    frames = [(zstd_frame(p, sized=False), len(p)) for p in pieces(raw_bytes(), MIB // 4)]
    write(store, "a.raw.zst", seekable(frames, [(2, 0, content)]))
    assert parse_info(viewcat.run(store, "a.raw.zst", "info").stdout).size == MIB + content
    done = viewcat.run(store, "a.raw.zst", "read", "raw", 0, MIB // 2, text=False)
    assert_same_bytes(done.stdout, raw_bytes()[: MIB // 2])
    viewcat.run(store, "a.raw.zst", "read", "raw", MIB // 2, 1, expect=READ_ERROR)


def test_seek_table_that_lies_about_places(viewcat, store):
    """Where lengths do not add up to the file, it is no table; where they do, frames are no frames."""
    frames = [(zstd_frame(p, sized=False), len(p)) for p in pieces(raw_bytes(), MIB // 4)]
    write(store, "a.raw.zst", seekable(frames, [(2, 1, 0)]))
    assert "scan_gzip" in refused(viewcat, store, "a.raw.zst", "ENOTSUP")
    served(viewcat, store, "a.raw.zst", raw_bytes(), options=SCAN)
    write(store, "a.raw.zst", seekable(frames, [(2, 1, 0), (3, -1, 0)]))
    viewcat.run(store, "a.raw.zst", "read", "raw", MIB // 2, 1, expect=READ_ERROR)
    viewcat.run(store, "a.raw.zst", "read", "raw", 3 * MIB // 4, 1, expect=READ_ERROR)
    done = viewcat.run(store, "a.raw.zst", "read", "raw", 0, MIB // 2, text=False)
    assert_same_bytes(done.stdout, raw_bytes()[: MIB // 2])


def test_frame_that_lies_about_its_content(viewcat, store):
    frame = bytearray(zstd_frame(raw_bytes(), sized=True))
    assert frame[4] >> 6 == 2 and not frame[4] & 3
    at = 5 if frame[4] & 0x20 else 6
    assert struct.unpack_from("<I", frame, at)[0] == MIB
    struct.pack_into("<I", frame, at, MIB + 1)
    write(store, "a.raw.zst", bytes(frame) + zstd_frame(b"x" * 511, sized=True))
    viewcat.run(store, "a.raw.zst", "read", "raw", 0, 1, expect=READ_ERROR)
    done = viewcat.run(store, "a.raw.zst", "read", "raw", MIB + 1, 511, text=False)
    assert done.stdout == b"x" * 511


def test_skippable_frames_that_skip_too_much(viewcat, store):
    write(store, "a.raw.zst", zstd_frame(raw_bytes(), sized=True) + struct.pack("<II", 0x184D2A50, 0xFFFFFFFF))
    refused(viewcat, store, "a.raw.zst", "EINVAL")
    write(store, "a.raw.zst", skippable(b"nothing else"))
    assert parse_info(viewcat.run(store, "a.raw.zst", "info").stdout).size == 0


# ---- damage ----


def test_damage_in_a_block(viewcat, store):
    """Each block for itself."""
    content = xz_blocks(None, raw_bytes(), MIB // 4)
    for at in range(1000, len(content) - 1000, len(content) // 13):
        damaged = bytearray(content)
        damaged[at] ^= 4
        write(store, "a.raw.xz", bytes(damaged))
        errors = 0
        for quarter in range(4):
            offset = quarter * MIB // 4
            done = viewcat.run(store, "a.raw.xz", "read", "raw", offset, 1000, expect=None, text=False)
            errors += done.returncode == READ_ERROR
            assert done.returncode == READ_ERROR or done.stdout == raw_bytes()[offset : offset + 1000]
        assert errors == 1


def test_damage_in_gzip(viewcat, store):
    content = gzip.compress(raw_bytes())
    for at in range(20, len(content), len(content) // 17):
        damaged = bytearray(content)
        damaged[at] ^= 4
        write(store, "a.raw.gz", bytes(damaged))
        refused(viewcat, store, "a.raw.gz", "EINVAL", options=SCAN)
    write(store, "a.raw.gz", content[:-1])
    refused(viewcat, store, "a.raw.gz", "EINVAL", options=SCAN)
    write(store, "a.raw.gz", content + b"behind it")
    refused(viewcat, store, "a.raw.gz", "EINVAL", options=SCAN)


def test_cut_files(viewcat, store):
    raw(store / "x")
    run("xz", "-k", "-0", store / "x")
    run("zstd", "-q", store / "x")
    for suffix in ("xz", "zst"):
        path = store / f"a.raw.{suffix}"
        os.rename(store / f"x.{suffix}", path)
        for left in (path.stat().st_size - 1, path.stat().st_size // 2, 20):
            os.truncate(path, left)
            refused(viewcat, store, path.name, "EINVAL")
