# SPDX-License-Identifier: Apache-2.0
"""The programs that the tests run, and comparing files without reading their holes."""

import json
import os
import re
import subprocess
from pathlib import Path

STEP = 1 << 20
TIMEOUT = 120

# What QEMU calls the formats and views that it has another name for.
DRIVERS = {
    "vhd": "vpc",
    "vhd-fixed": "vpc",
    "vmdk-flat": "vmdk",
    "vmdk-flat-extent": "raw",
    "vmdk-stream": "vmdk",
}
# Suffixes of views that are not called like them.
SUFFIXES = {
    "vhd-fixed": "fixed.vhd",
    "vmdk-flat": "flat.vmdk",
    "vmdk-flat-extent": "raw",
    "vmdk-stream": "stream.vmdk",
}

OK, DIFFERENT, REFUSED, NO_IMAGE, READ_ERROR = range(5)


def run(*argv, cwd=None, check=True, text=True):
    argv = [a if isinstance(a, bytes) else str(a) for a in argv]
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=text, timeout=TIMEOUT, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(argv)}\nexit status {done.returncode}\n{done.stdout!s:.2000}\n{done.stderr!s:.4000}"
        )
    return done


def qemu_img(*args, cwd=None, check=True):
    return run("qemu-img", *args, cwd=cwd, check=check)


class QemuIo:
    """Collects commands for one image and runs them in one qemu-io."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        self.commands = []
        self.temporary = []

    def add(self, command):
        self.commands.append(command)

    def write(self, offset, data, flags=""):
        # qemu-io takes the bytes from a file, whose name must not need quoting
        path = self.scratch / f"io-{len(self.commands)}"
        path.write_bytes(data)
        self.temporary.append(path)
        self.add(f"write {flags} -s {path} {offset} {len(data)}")

    def zero(self, offset, length, flags=""):
        self.add(f"write -z {flags} {offset} {length}")

    def run(self, image_format, name, cwd):
        if self.commands:
            argv = ["qemu-io", "-f", image_format]
            for command in self.commands:
                argv += ["-c", command]
            done = run(*argv, name, cwd=cwd)
            # qemu-io exits with 0 when a write fails
            done_lines = re.findall(r"^wrote (\d+)/(\d+) bytes", done.stdout, re.MULTILINE)
            good = sum(a == b for a, b in done_lines)
            writes = sum(c.startswith("write") for c in self.commands)
            assert good == writes, done.stdout + done.stderr
        for path in self.temporary:
            path.unlink()
        self.commands, self.temporary = [], []


class Viewcat:
    def __init__(self, binary):
        self.binary = binary

    def run(self, root, path, *args, options=(), expect=OK, text=True):
        """One call; the exit status must be `expect`, None for any of the documented ones."""
        argv = [self.binary, *options, root, path, *map(str, args)]
        done = run(*argv, check=False, text=text)
        errors = done.stderr if text else done.stderr.decode(errors="replace")
        for trouble in ("runtime error:", "Sanitizer", "assertion", "Assertion"):
            assert trouble not in errors, errors
        good = range(5) if expect is None else (expect,)
        assert done.returncode in good, (
            f"viewcat {' '.join(map(str, argv[1:]))}\n"
            f"exit status {done.returncode}, expected {expect}\n{errors:.4000}"
        )
        return done

    def of(self, source, *args, **kwargs):
        return self.run(source.root, source.path, *args, options=source.options, **kwargs)

    def bytes(self, source, *args):
        return self.of(source, *args, text=False).stdout

    def info(self, source):
        return parse_info(self.of(source, "info").stdout)

    def info_of(self, root, path):
        return parse_info(self.run(root, path, "info").stdout)

    def map(self, source, view):
        """[(start, end, is data)], which must cover the view without gaps, data and holes in turn."""
        ranges = []
        at, last = 0, None
        for line in self.of(source, "map", view).stdout.splitlines():
            start, end, kind = line.split()
            start, end, data = int(start), int(end), kind == "data"
            assert start == at < end and data != last, line
            ranges.append((start, end, data))
            at, last = end, data
        return ranges


def driver(name):
    return DRIVERS.get(name, name)


def suffix(view):
    return SUFFIXES.get(view, view)


def flat_extent_of(text):
    """The name of the one flat extent that a descriptor names."""
    return re.search(rb'^RW \d+ (?:VMFS|FLAT) "([^"]+)"', text, re.MULTILINE)[1].decode()


class Info:
    def __init__(self):
        self.format = self.size = self.standalone = self.files = None
        self.as_is = set()
        self.views, self.blocks, self.absent = {}, {}, {}


def parse_info(text):
    info = Info()
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "view":
            name, size, word, blocks, *as_is = value.split()
            assert word == "blocks" and as_is in ([], ["as-is"])
            if as_is:
                info.as_is.add(name)
            info.views[name], info.blocks[name] = int(size), int(blocks)
        elif key == "absent":
            name, _, reason = value.partition(" ")
            info.absent[name] = reason
        elif key == "format":
            info.format = value
        else:
            setattr(info, key, int(value))
    return info


def qemu_map(image_format, name, cwd):
    """QEMU's idea of where data is: [(start, end, present, reads as zeros)]."""
    done = qemu_img("map", "--output=json", "-f", image_format, name, cwd=cwd)
    return [
        (e["start"], e["start"] + e["length"], e["present"], e["zero"] or not e["data"])
        for e in json.loads(done.stdout)
        if e["length"]
    ]


# ---- comparing ----


def data_ranges(fd):
    """Where lseek finds data, merged into whole steps so that both sides are cut alike."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def _steps(fd):
    for start, end in data_ranges(fd):
        yield from range(start // STEP, (end - 1) // STEP + 1)


def copy_sparse(source, target):
    """Data to data, holes to holes; zeros that were written are written again."""
    with open(source, "rb") as a, open(target, "wb") as b:
        b.truncate(os.fstat(a.fileno()).st_size)
        for start, end in data_ranges(a.fileno()):
            os.pwrite(b.fileno(), os.pread(a.fileno(), end - start, start), start)


def first_difference(one, other, *, pad=False):
    """Offset of the first byte that differs, None if the files are equal. With pad, the shorter
    file counts as followed by zeros."""
    with open(one, "rb") as a, open(other, "rb") as b:
        sizes = [os.fstat(f.fileno()).st_size for f in (a, b)]
        for step in sorted(set(_steps(a.fileno())) | set(_steps(b.fileno()))):
            left = os.pread(a.fileno(), STEP, step * STEP)
            right = os.pread(b.fileno(), STEP, step * STEP)
            length = max(len(left), len(right))
            left, right = left.ljust(length, b"\0"), right.ljust(length, b"\0")
            if left != right:
                return step * STEP + next(i for i in range(length) if left[i] != right[i])
    return None if pad or sizes[0] == sizes[1] else min(sizes)


def assert_same(one, other, *, pad=False):
    at = first_difference(one, other, pad=pad)
    sizes = [os.stat(p).st_size for p in (one, other)]
    assert at is None, f"{one} and {other} ({sizes[0]} and {sizes[1]} bytes) differ from byte {at} on"


def assert_same_bytes(got, expected):
    """For bytes: a short message instead of pytest's diff of megabytes."""
    if got == expected:
        return
    length = min(len(got), len(expected))
    at = next((i for i in range(length) if got[i] != expected[i]), length)
    raise AssertionError(f"{len(got)} bytes, expected {len(expected)}; the first difference is at {at}")
