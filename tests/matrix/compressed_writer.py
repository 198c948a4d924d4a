# SPDX-License-Identifier: Apache-2.0
"""Compressed files in pieces, whose places are known."""

import struct
import subprocess
import zlib

SKIPPABLE = 0x184D2A5E
SEEK_MAGIC = 0x8F92EAB1


def filtered(argv, content):
    return subprocess.run(argv, input=content, stdout=subprocess.PIPE, check=True, timeout=120).stdout


def pieces(content, size):
    return [content[at : at + size] for at in range(0, len(content), size)]


def bgzf(content, size=60000):
    """Blocked gzip: members that tell in an extra field how long they are, and an empty one."""
    out = b""
    for piece in [*pieces(content, size), b""]:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(piece) + deflate.flush()
        total = 18 + len(body) + 8
        out += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", total - 1) + body
        out += struct.pack("<II", zlib.crc32(piece), len(piece))
    return out


def xz_blocks(build, content, size):
    return filtered(["xz", "-0", "-c", f"--block-size={size}"], content)


def zstd_frame(piece, *, sized, check=True):
    argv = ["zstd", "-q", "-c", "-1", "--check" if check else "--no-check"]
    if sized:
        argv.append(f"--stream-size={len(piece)}")
    return filtered(argv, piece)


def skippable(content, magic=0x184D2A50):
    return struct.pack("<II", magic, len(content)) + content


def zstd_frames(build, content, size, *, sized):
    """Frames, with what is to be skipped between them."""
    frames = [zstd_frame(piece, sized=sized, check=i % 2 == 0) for i, piece in enumerate(pieces(content, size))]
    frames = frames or [zstd_frame(b"", sized=sized)]
    return skippable(b"first") + skippable(b"", SKIPPABLE).join(frames) + skippable(bytes(1000))


def seek_table(entries, checksums=False):
    """Of (compressed, decompressed, checksum): the format of zstd's contrib/seekable_format."""
    body = b"".join(struct.pack("<III" if checksums else "<II", *e[: 3 if checksums else 2]) for e in entries)
    body += struct.pack("<IBI", len(entries), 0x80 if checksums else 0, SEEK_MAGIC)
    return skippable(body, SKIPPABLE)


def seekable_zstd(build, content, size, *, checksums=False):
    frames = [(piece, zstd_frame(piece, sized=False)) for piece in pieces(content, size)]
    entries = [(len(frame), len(piece), 0) for piece, frame in frames]
    return b"".join(frame for _, frame in frames) + seek_table(entries, checksums)
