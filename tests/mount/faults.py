# SPDX-License-Identifier: Apache-2.0
"""Faults in a daemon that runs: its calls return short, fail, or find no memory.

tests/faults/inject.h tells how. The rules are a file that the daemon has mapped, so a mount
starts well and what fails, and when, changes under it.
"""

import errno
import mmap
import os
import struct
from pathlib import Path

import pytest

SHORT, READ, ALLOC, STAT, OPEN, SEEK, LIST = range(7)
KINDS = 7
RULE = struct.Struct("=7Q")  # calls, faults, every, limit, error, inode, unused
EVERY = struct.Struct("=Q")


class Faults:
    def __init__(self, imgfs, path):
        self.library = Path(imgfs).parent / "tests" / "faults" / "faults.so"
        if not self.library.exists():
            binary = Path(imgfs).read_bytes()
            assert b"__asan_init" in binary or b"__tsan_init" in binary, f"{self.library} is missing"
            pytest.skip("a sanitizer has its own allocator")
        self.path = Path(path)
        self.path.write_bytes(bytes(KINDS * RULE.size))
        with open(self.path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), KINDS * RULE.size)

    @property
    def env(self):
        return {"LD_PRELOAD": str(self.library), "IMGFS_FAULTS": str(self.path)}

    def set(self, kind, every, error=errno.EIO, limit=0, inode=0):
        """Every n-th call of the kind fails from now on, `limit` times if that is not 0."""
        self.end(kind)
        rule = RULE.pack(0, 0, 0, limit, error, inode, 0)
        self.map[kind * RULE.size : (kind + 1) * RULE.size] = rule
        # last, for the daemon looks at it first
        EVERY.pack_into(self.map, kind * RULE.size + 16, every)

    def end(self, *kinds):
        for kind in kinds or range(KINDS):
            EVERY.pack_into(self.map, kind * RULE.size + 16, 0)

    def count(self, kind):
        """How many calls have failed since set()."""
        return RULE.unpack_from(self.map, kind * RULE.size)[1]


class Direct:
    """A file that is read past the kernel's cache: each read is a request."""

    def __init__(self, path, block=1 << 20):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.size = os.fstat(self.fd).st_size
        self.buffer = mmap.mmap(-1, block)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        os.close(self.fd)

    def read(self, offset, length):
        """Bytes up to a length of a block; fewer only at the end of the file."""
        parts, left = [], length
        while left > 0:
            count = os.preadv(self.fd, [memoryview(self.buffer)[:left]], offset)
            if count == 0:
                break
            parts.append(self.buffer[:count])
            offset, left = offset + count, left - count
        return b"".join(parts)

    def blocks(self):
        """(offset, length) of each block of the file."""
        for offset in range(0, self.size, len(self.buffer)):
            yield offset, min(len(self.buffer), self.size - offset)


def read_all(path, block=1 << 20):
    with Direct(path, block) as file:
        return b"".join(file.read(*where) for where in file.blocks())
