# SPDX-License-Identifier: Apache-2.0
"""Reads as a program does, and what must be out of the way before."""

import hashlib
import mmap
import os
import threading
import time

from settings import MIB
from timing import Failed


def drop_pages(path):
    """Takes a file's pages from the kernel, and nobody else's.

    The pages of a view that the kernel holds would be read without the server, so each run starts
    without them. The pages of the source belong to another file; they stay, as does what the rest
    of the machine has in its memory (which echo 3 >drop_caches would not leave). O_DIRECT would
    do without this, but nobody copies with O_DIRECT.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def read_range(path, start, end, limit):
    """Reads [start, end) in pieces of 1 MiB for at most `limit` seconds; the bytes it was."""
    buffer = mmap.mmap(-1, MIB)
    fd = os.open(path, os.O_RDONLY)
    try:
        stop, offset = time.perf_counter() + limit, start
        while offset < end and time.perf_counter() < stop:
            got = os.preadv(fd, [buffer], offset)
            if got == 0:
                raise Failed(f"{path} ends at {offset}")
            offset += got
        return offset - start
    finally:
        os.close(fd)


def throughput(path, start, size, limit, drop=True):
    """MiB/s of one reader."""
    if drop:
        drop_pages(path)
    begin = time.perf_counter()
    done = read_range(path, start, start + size, limit)
    return done / MIB / (time.perf_counter() - begin)


def shared_throughput(path, start, size, readers, limit, drop=True):
    """MiB/s of several readers at once, each with its own part of the range."""
    share = size // readers // MIB * MIB
    done = [0] * readers

    def reader(number):
        first = start + number * share
        done[number] = read_range(path, first, first + share, limit)

    if drop:
        drop_pages(path)
    threads = [threading.Thread(target=reader, args=(number,)) for number in range(readers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begin
    if not all(done):
        raise Failed("a reader got nothing")
    return sum(done) / MIB / taken


def checksum(path, start, size):
    """Of 16 pieces of 1 MiB that are spread over the range."""
    digest = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        for piece in range(16):
            offset = start + (size - MIB) * piece // 15
            left = MIB
            while left:
                data = os.pread(file.fileno(), left, offset + MIB - left)
                if not data:
                    break
                digest.update(data)
                left -= len(data)
    return digest.hexdigest()


def first_byte(path):
    """Seconds from before open to after a read of one byte."""
    begin = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, 1, 0)
        return time.perf_counter() - begin
    finally:
        os.close(fd)
