# SPDX-License-Identifier: Apache-2.0
"""The images. What is there from an earlier run is used again."""

import os
import shutil
import time
from pathlib import Path

import disk
import images
from settings import DISK_SIZE, GIB, HUGE, MIB, MORE_SOURCES, SOURCES
from tools import data_ranges, run

# Of what an image is that the code here makes: another number makes all of them anew.
VERSION = 1

# A disk is made of the larger files: the many small ones take minutes, and hold little.
SMALLEST_FILE = 32 << 10

# Chunks of the chains, each in one layer.
CHUNK = MIB
DEPTHS = (1, 4, 16)
CROWDS = (100, 1000, 10_000)
SIZES = (10 * GIB, 100 * GIB, HUGE)


def larger(path):
    return path.stat().st_size >= SMALLEST_FILE


class Images:
    def __init__(self, directory, settings, results):
        kind = f"{settings.name}-{settings.disk_bytes // MIB}-{VERSION}"
        self.directory = Path(directory) / f"images-{kind}"
        self.settings, self.results = settings, results
        self.directory.mkdir(parents=True, exist_ok=True)

    def made(self, name, make):
        """The path of a file or a directory; `make` writes it, to its end or not at all."""
        path = self.directory / name
        if not path.exists():
            start = time.monotonic()
            # By its own name from the start: a VMDK says in itself what it is called.
            unready = self.directory / ".unready"
            shutil.rmtree(unready, ignore_errors=True)
            unready.mkdir()
            make(unready / path.name)
            path.parent.mkdir(exist_ok=True)
            os.rename(unready / path.name, path)
            shutil.rmtree(unready)
            self.results.say(f"made {name} in {time.monotonic() - start:.0f} s")
        return path

    # ---- the real disk ----

    def raw(self):
        return self.made("disk/raw.raw", self.make_disk)

    def source(self, name):
        """Sources of the same disk, in one datastore."""
        options = {**SOURCES, **MORE_SOURCES}[name]
        if options is None:
            return self.raw()
        raw = self.raw()

        def make(path):
            flags = ["-W", "-m", "8", "-f", "raw", *options]
            run("qemu-img", "convert", *flags, raw, path, timeout=900)

        return self.made(f"disk/{name}", make)

    def make_disk(self, path):
        """Files of the installed packages, more than once where there are too few."""
        tree = path.with_name("tree")
        left = self.settings.disk_bytes
        for copy in range(10):
            directory = tree / str(copy)
            disk.gather(directory, left, larger)
            left -= sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
            if left < self.settings.disk_bytes // 20:
                break
        with open(path, "wb") as file:
            file.truncate(DISK_SIZE)
        disk.write_ext4(path, tree, (0, DISK_SIZE // MIB))
        shutil.rmtree(tree)

    def window(self):
        """Where the disk is fullest: the start of `settings.window` bytes of it."""
        size, ranges = self.settings.window, data_ranges(self.raw())
        starts = range(0, DISK_SIZE - size + 1, 32 * MIB)

        def data(start):
            return sum(max(0, min(e, start + size) - max(s, start)) for s, e in ranges)

        return max(starts, key=data)

    # ---- huge ones ----

    def full(self, size=HUGE):
        """A fully mapped qcow2 of that size and an empty overlay on it: of the first the qcow2
        view is the file itself, of the second every view is made from the tables of the first."""

        def make(directory):
            directory.mkdir()
            images.write_full_qcow2(directory / "over-full.qcow2", size)
            below = ["-b", "over-full.qcow2", "-F", "qcow2"]
            images.create(directory / "over.qcow2", size, *below)

        return self.made(f"full-{size // GIB}", make)

    def empty(self):
        def make(directory):
            directory.mkdir()
            images.sparse_file(directory / "holes.raw", HUGE)
            images.create(directory / "qcow2.qcow2", HUGE)
            images.create(directory / "vmdk.vmdk", HUGE, image_format="vmdk")

        return self.made("empty", make)

    # ---- many ----

    def crowd(self, count):
        return self.made(
            f"crowd-{count}", lambda directory: images.populate(directory, count, raw_too=False)
        )

    def chain(self, depth):
        """The directory and the name of a chain whose chunks are in its layers in turn."""

        def make(directory):
            directory.mkdir()
            below = []
            for layer in range(depth):
                path = directory / f"layer-{layer}.qcow2"
                images.create(path, self.settings.chain_bytes, *below)
                below = ["-b", path.name, "-F", "qcow2"]
                orders = [
                    f"write -q -P {chunk_byte(chunk)} {chunk * CHUNK} {CHUNK}"
                    for chunk in range(layer, self.settings.chain_bytes // CHUNK, depth)
                ]
                run("qemu-io", *(word for order in orders for word in ("-c", order)), path)

        return self.made(f"chain-{depth}", make) / f"layer-{depth - 1}.qcow2"

    def settle(self):
        """What is young is looked at more often, and so is written back by the kernel."""
        run("sync", "-f", self.directory, timeout=600)
        newest = max((p.stat().st_ctime for p in self.directory.glob("*/*")), default=0)
        time.sleep(max(0.0, min(5.0, newest + 5 - time.time())))


def chunk_byte(chunk):
    return 1 + chunk % 251


def warm(path):
    """Into the page cache, data only."""
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        for start, end in data_ranges(path):
            file.seek(start)
            while start < end:
                start += file.readinto(memoryview(buffer)[: min(MIB, end - start)])


