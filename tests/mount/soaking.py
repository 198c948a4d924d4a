# SPDX-License-Identifier: Apache-2.0
"""A datastore of 500 images under readers, while its images are replaced, rewritten, removed and
made again. What is read is right all the time, and at the end the process is as large as it was.

By itself, for as long as one likes:

	soaking.py IMGFS MINUTES
"""

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import images
from crew import Crew, Tally, read_exactly
from mounting import Mount
from tools import KIB, MIB, VIEWS, pattern, run

IMAGES, FOLDERS, VARIANTS, READERS = 500, 5, 6, 3
SIZE = 1 * MIB
UNIT = 64 * KIB
STEM = "vm0000"  # of the templates; as long as every other
CHANGES_PER_SECOND = 40
KEPT = 8  # views that a reader has open at a time

OPTIONS = ("cache_size=4M",)


def variant_disk(variant):
    """The disk of one variant: holes, bytes that compress, bytes that do not; none is another's."""
    chance = random.Random(variant)
    body = bytearray(SIZE)
    for start in range(0, SIZE, UNIT):
        if start == 0 or chance.random() < 0.6:
            half = pattern(variant * SIZE + start, UNIT // 2)
            body[start : start + UNIT] = half + bytes([variant + 1]) * (UNIT // 2)
    return bytes(body)


DISKS = [variant_disk(variant) for variant in range(VARIANTS)]


class Templates:
    """Every kind of image of every variant: names and bytes of its files, the one last that is
    the image."""

    KINDS = {
        "raw": None,
        "qcow2": ("qcow2", "-O", "qcow2"),
        "packed": ("qcow2", "-O", "qcow2", "-c"),
        "sparse": ("vmdk", "-O", "vmdk"),
        "stream": ("vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized"),
        "flat": ("vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat"),
        "chain": None,
    }

    def __init__(self, scratch):
        self.files = {}
        for variant, disk in enumerate(DISKS):
            raw = scratch / "disk"
            raw.write_bytes(disk)
            for kind, how in self.KINDS.items():
                directory = scratch / f"{kind}{variant}"
                directory.mkdir()
                self.make(directory, kind, how, raw)
                names = sorted(directory.iterdir(), key=lambda p: p.stem == STEM)
                self.files[kind, variant] = [(p.name, p.read_bytes()) for p in names]

    def make(self, directory, kind, how, raw):
        if kind == "raw":
            (directory / f"{STEM}.raw").write_bytes(raw.read_bytes())
        elif how:
            suffix, *options = how
            run("qemu-img", "convert", "-f", "raw", *options, raw, directory / f"{STEM}.{suffix}")
        else:
            self.make_chain(directory, raw)

    @staticmethod
    def make_chain(directory, raw):
        base, top = directory / f"{STEM}-base.qcow2", directory / f"{STEM}.qcow2"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
        images.create(top, str(SIZE), "-b", base.name, "-F", "qcow2")
        body = pattern(len(raw.read_bytes()), UNIT)
        first = raw.read_bytes()[:UNIT]
        images.poke(base, base.read_bytes().index(first), body)  # what the top layer hides
        (directory.parent / "first").write_bytes(first)
        command = f"write -s {directory.parent / 'first'} 0 64k"
        run("qemu-io", "-c", command, top)


class Datastore:
    def __init__(self, root, templates):
        self.root, self.templates = root, templates
        self.kinds = sorted(Templates.KINDS)
        for folder in range(FOLDERS):
            (root / f"folder{folder}").mkdir()
        for number in range(IMAGES):
            self.put(number, number % VARIANTS)

    @staticmethod
    def place(number):
        return f"folder{number % FOLDERS}/vm{number:04}"

    def kind(self, number):
        return self.kinds[number % len(self.kinds)]

    def paths(self, number, variant):
        stem = self.place(number).rpartition("/")[2]
        directory = (self.root / self.place(number)).parent
        for name, body in self.templates.files[self.kind(number), variant]:
            yield directory / name.replace(STEM, stem), body.replace(STEM.encode(), stem.encode())

    def remove(self, number):
        """First what names the others, so that no image has files of two variants."""
        for path, _body in reversed(list(self.paths(number, 0))):
            path.unlink(missing_ok=True)

    def put(self, number, variant):
        files = list(self.paths(number, variant))
        if len(files) > 1:
            self.remove(number)
        for path, body in files:
            new = path.with_name(f".{path.name}")
            new.write_bytes(body)
            os.rename(new, path)

    def rewrite(self, number, variant):
        """In place, in one write(2); only what has one size in every variant."""
        ((path, body),) = self.paths(number, variant)
        try:
            fd = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return
        os.pwrite(fd, body, 0)
        os.close(fd)


def keep_changing(stop, datastore, seed):
    chance = random.Random(seed)
    counts = {"replaced": 0, "rewritten": 0, "removed": 0}
    while not stop.is_set():
        number, variant = chance.randrange(IMAGES), chance.randrange(VARIANTS)
        if datastore.kind(number) == "raw" and chance.random() < 0.5:
            datastore.rewrite(number, variant)
            counts["rewritten"] += 1
        elif chance.random() < 0.2:
            datastore.remove(number)
            counts["removed"] += 1
        else:
            datastore.put(number, variant)
            counts["replaced"] += 1
        time.sleep(1 / CHANGES_PER_SECOND)
    return counts


class Reader:
    def __init__(self, point, seed):
        self.point, self.chance = point, random.Random(seed)
        self.tally = Tally()
        self.kept = []

    def open(self):
        number, view = self.chance.randrange(IMAGES), self.chance.choice(VIEWS)
        path = self.point / f"{Datastore.place(number)}.{view}"
        fd = self.tally.attempt(lambda: os.open(path, os.O_RDONLY))
        if fd is None:
            return
        size = self.tally.attempt(lambda: os.fstat(fd).st_size)
        if size is None:  # changed since the open
            os.close(fd)
        else:
            self.kept.append((fd, view, size, set(range(VARIANTS)), {}))

    def read(self, kept):
        """What was read through one handle must be of one variant, the same every time."""
        fd, view, size, variants, seen = kept
        length = self.chance.choice((512, 4096, UNIT, 2 * UNIT))
        offset = self.chance.randrange(max(size - length, 0) // 512 + 1) * 512
        length = min(length, size - offset)
        if self.chance.random() < 0.3:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        body = self.tally.attempt(lambda: read_exactly(fd, length, offset))
        if body is None:
            return
        assert seen.setdefault((offset, length), hash(body)) == hash(body), view
        if view == "raw":
            assert size == SIZE
            variants &= {v for v in variants if DISKS[v][offset : offset + length] == body}
            assert variants, f"no disk has these bytes at {offset}"

    def close_one(self):
        os.close(self.kept.pop(self.chance.randrange(len(self.kept)))[0])

    def go(self, stop):
        while not stop.is_set():
            if len(self.kept) < KEPT:
                self.open()
            for kept in self.kept:
                self.read(kept)
            if len(self.kept) == KEPT:
                self.close_one()
            if self.chance.random() < 0.02:
                folder = self.point / f"folder{self.chance.randrange(FOLDERS)}"
                self.tally.attempt(lambda: [entry.stat() for entry in os.scandir(folder)])
        return self.tally


def keep_reading(stop, point, seed):
    return Reader(point, seed).go(stop)


# ---- how large is the process? ----


def resident(pid):
    """KiB of memory that are the process's own."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))


class Samples:
    """Memory and descriptors of a process over time."""

    def __init__(self, pid):
        self.pid = pid
        self.memory, self.descriptors = [], []

    def take(self):
        self.memory.append(resident(self.pid))
        self.descriptors.append(len(os.listdir(f"/proc/{self.pid}/fd")))

    @staticmethod
    def quarters(values):
        """The medians of the second quarter of the time and of the last."""
        length = len(values) // 4
        return statistics.median(values[length : 2 * length]), statistics.median(values[-length:])

    def problems(self):
        found = []
        before, after = self.quarters(self.memory)
        if after > before * 1.1 + 2 * KIB:
            found.append(f"memory went from {before:.0f} to {after:.0f} KiB")
        before, after = self.quarters(self.descriptors)
        if after > before * 1.1 + 8:
            found.append(f"descriptors went from {before:.0f} to {after:.0f}")
        return found

    def __str__(self):
        memory, descriptors = self.quarters(self.memory), self.quarters(self.descriptors)
        return (
            f"memory {memory[0]:.0f} -> {memory[1]:.0f} KiB (at most {max(self.memory)}), "
            f"descriptors {descriptors[0]:.0f} -> {descriptors[1]:.0f} "
            f"(at most {max(self.descriptors)})"
        )


def soak(mount, datastore, seconds, progress=None):
    """Samples of the process, what the readers had, how often what was changed."""
    samples = Samples(mount.process.pid)
    with Crew() as crew:
        crew.add(keep_changing, datastore, 1)
        for seed in range(READERS):
            crew.add(keep_reading, mount.point, seed)
        start = time.monotonic()
        while time.monotonic() - start < seconds and not crew.someone_ended():
            time.sleep(min(1, seconds / 100))
            samples.take()
            if progress:
                progress(time.monotonic() - start, samples)
        changes, *tallies = crew.finish()
    return samples, sum(tallies, Tally()), changes


def problems_of(samples, total, mount):
    found = samples.problems()
    if not set(total.counts) <= {"good", "ENOENT", "ESTALE"}:
        found.append(f"other errors than of changes: {total.counts}")
    if mount.process.poll() is not None:
        found.append("the process has ended")
    return found


def main():
    program, minutes = os.path.abspath(sys.argv[1]), float(sys.argv[2])

    def progress(elapsed, samples):
        if len(samples.memory) % 60 == 0:
            now = f"{samples.memory[-1]} KiB, {samples.descriptors[-1]} descriptors"
            print(f"{elapsed / 60:5.1f} min: {now}", flush=True)

    with tempfile.TemporaryDirectory(prefix="imgfs-soak-", dir="/var/tmp") as directory:
        base = Path(directory)
        for name in ("scratch", "datastore", "mnt"):
            (base / name).mkdir()
        datastore = Datastore(base / "datastore", Templates(base / "scratch"))
        mount = Mount(program, datastore.root, base / "mnt", OPTIONS, log=base / "log")
        mount.start()
        try:
            samples, total, changes = soak(mount, datastore, minutes * 60, progress)
            found = problems_of(samples, total, mount)
        finally:
            trouble = mount.finish()
    print(f"{samples}\nreads and opens {total.counts}, the longest {total.longest:.1f} s")
    print(f"images {changes}")
    for problem in found + trouble:
        print(f"FAILED: {problem}")
    return 1 if found or trouble else 0


if __name__ == "__main__":
    sys.exit(main())
