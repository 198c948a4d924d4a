# SPDX-License-Identifier: Apache-2.0
"""Disks with known bytes, and images that hold them."""

import array
import os
import shutil
import struct
from pathlib import Path

from tools import KIB, MIB, pattern, run

SIZE = 20 * MIB + 5 * 512  # neither whole clusters nor whole grains

# Where the sample disk has data: whole units, parts of units, one sector, the last sector
PLACES = [
    (0, 64 * KIB),
    (128 * KIB + 512, 300 * KIB),
    (3 * MIB, 2 * MIB + 4 * KIB),
    (9 * MIB + 17 * 512, 512),
    (12 * MIB, 3 * MIB),
    (SIZE - 512, 512),
]


class Disk:
    """The sample disk: its bytes in memory, and as a sparse file."""

    def __init__(self, path, seed=1):
        self.path, self.bytes = Path(path), bytearray(SIZE)
        for offset, length in PLACES:
            # half of it compresses, so that compressed images have units of both kinds
            body = pattern(seed + offset, length // 2) + bytes([seed]) * (length - length // 2)
            self.bytes[offset : offset + length] = body
        with open(self.path, "wb") as file:
            file.truncate(SIZE)
            for offset, length in PLACES:
                os.pwrite(file.fileno(), self.bytes[offset : offset + length], offset)

    def convert(self, target, *options):
        run("qemu-img", "convert", "-f", "raw", *options, self.path, target)

    def save(self, target):
        run("cp", "--sparse=always", self.path, target)


# name of the source: how it is made of the sample disk
SOURCES = {
    "plain.raw": lambda disk, path: disk.save(path),
    "normal.qcow2": lambda disk, path: disk.convert(path, "-O", "qcow2"),
    "packed.qcow2": lambda disk, path: disk.convert(path, "-O", "qcow2", "-c"),
    "sparse.vmdk": lambda disk, path: disk.convert(path, "-O", "vmdk"),
    "stream.vmdk": lambda disk, path: disk.convert(
        path, "-O", "vmdk", "-o", "subformat=streamOptimized"
    ),
    "flat.vmdk": lambda disk, path: disk.convert(
        path, "-O", "vmdk", "-o", "subformat=monolithicFlat"
    ),
    "chain.qcow2": lambda disk, path: make_chain(disk, path),
}

# Views that are the source itself
IDENTITY = {"plain.raw", "normal.qcow2", "packed.qcow2", "sparse.vmdk", "stream.vmdk"}


def make_chain(disk, path):
    """An overlay and a base that together hold the disk; the base has other data beneath."""
    base = path.with_name("chain-base.qcow2")
    scratch = path.with_name("chain.tmp")
    disk.save(scratch)
    with open(scratch, "r+b") as file:
        os.pwrite(file.fileno(), pattern(99, 70 * KIB), 12 * MIB + 1024)
        os.pwrite(file.fileno(), pattern(98, 1 * MIB), 6 * MIB)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", scratch, base)
    run("qemu-img", "create", "-qf", "qcow2", "-b", disk.path, "-F", "raw", path)
    run("qemu-img", "rebase", "-qf", "qcow2", "-b", base.name, "-F", "qcow2", path)
    scratch.unlink()


def stem(name):
    return name.rpartition(".")[0]


def fill(directory, disk):
    for name, make in SOURCES.items():
        make(disk, directory / name)
    # ext4 decides late what a file takes; st_blocks is to stay as it is from here on
    for path in directory.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def create(path, size, *options, image_format="qcow2"):
    run("qemu-img", "create", "-qf", image_format, *options, path, size)


def poke(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def sparse_file(path, size, *pieces):
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            os.pwrite(file.fileno(), data, offset)


def replace(path, new):
    """Puts a new file in the place of an old one, as an upload does."""
    temporary = path.with_name(f".{path.name}.new")
    shutil.copyfile(new, temporary)
    os.rename(temporary, path)


def populate(directory, count, raw_too=True):
    """Small images, no two files the same inode: all qcow2, or every second one raw."""
    directory.mkdir()
    template = directory.with_name("template")
    if not template.exists():
        create(template, "64K", "-o", "cluster_size=512")
        run("qemu-io", "-c", "write -P 7 0 1k", template)
    qcow2 = template.read_bytes()
    for number in range(count // 2 if raw_too else count):
        (directory / f"vm{number:05}.qcow2").write_bytes(qcow2)
        if raw_too:
            (directory / f"disk{number:05}.raw").write_bytes(b"\xeb\x3c\x90 raw" + bytes(4089))


def write_full_qcow2(path, size):
    """A qcow2 whose every cluster is mapped. Its data is a hole of its file, its tables are not:
    an L2 table of 64 KiB for every 512 MiB of the disk."""
    cluster, per_table = 1 << 16, 1 << 13
    tables = size // (cluster * per_table)
    l1 = 3 * cluster
    l2 = l1 + -(-tables * 8 // cluster) * cluster
    data = l2 + tables * cluster
    copied = 1 << 63
    with open(path, "wb") as file:
        header = (b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, l1, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
        file.write(struct.pack(">4sIQIIQIIQQIIQQQQII", *header))
        file.seek(l1)
        file.write(b"".join(struct.pack(">Q", copied | l2 + i * cluster) for i in range(tables)))
        file.seek(l2)
        for table in range(tables):
            first = copied | data + table * per_table * cluster
            entries = array.array("Q", range(first, first + per_table * cluster, cluster))
            entries.byteswap()
            file.write(entries.tobytes())
        file.truncate(data + size)
