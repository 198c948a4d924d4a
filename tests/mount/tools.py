# SPDX-License-Identifier: Apache-2.0
"""The programs that the tests run, and a few questions about files."""

import errno
import hashlib
import json
import os
import random
import subprocess
import time

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

VIEWS = ("qcow2", "raw", "vmdk")


def run(*argv, check=True, timeout=120, **kw):
    """Runs a program to its end; it must succeed unless check is false."""
    argv = [os.fspath(a) if not isinstance(a, (int, float)) else str(a) for a in argv]
    kw.update(capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout)
    done = subprocess.run(argv, **kw)
    done.out = done.stdout.decode(errors="replace")
    done.err = done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"{argv} exited with {done.returncode}\n{done.out}{done.err}")
    return done


def compare(path, view, raw):
    """qemu-img: the image at path, in the format of the view, holds what the raw disk holds."""
    run("qemu-img", "compare", "-q", "-f", view, "-F", "raw", path, raw, timeout=300)


def check(path, view):
    """qemu-img finds nothing wrong with the image."""
    if view != "raw":
        run("qemu-img", "check", "-q", "-f", view, path)


def qemu_map(path, image_format):
    out = run("qemu-img", "map", "-f", image_format, "--output=json", path).out
    return json.loads(out)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def same(a, b):
    """Are the bytes of both files the same?"""
    return run("cmp", "-s", a, b, check=False).returncode == 0


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


def merged(ranges):
    """Neighbouring ranges as one."""
    out = []
    for start, end in ranges:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        elif start < end:
            out.append((start, end))
    return out


def data_ranges(path):
    """Where SEEK_DATA and SEEK_HOLE say that there is data."""
    found = []
    fd = os.open(path, os.O_RDONLY)
    try:
        offset, end = 0, os.fstat(fd).st_size
        while offset < end:
            try:
                start = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError as e:
                assert e.errno == errno.ENXIO
                break
            offset = os.lseek(fd, start, os.SEEK_HOLE)
            assert start < offset <= end
            found.append((start, offset))
    finally:
        os.close(fd)
    return merged(found)


def eventually(condition, seconds=3.0):
    """Waits until the condition holds, and fails where it does not within the time."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)


def refusal(call, *args, **kw):
    """The errno with which a call fails, as a name; it must fail."""
    try:
        call(*args, **kw)
    except OSError as e:
        return errno.errorcode[e.errno]
    raise AssertionError("it was allowed")
