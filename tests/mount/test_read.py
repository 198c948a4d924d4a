# SPDX-License-Identifier: Apache-2.0
"""Whatever way a view is read, the bytes are the same."""

import errno
import hashlib
import mmap
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import images
from tools import KIB, MIB, VIEWS, run, sha256

ALL = [f"{images.stem(source)}.{view}" for source in images.SOURCES for view in VIEWS]
SOME = ["plain.qcow2", "packed.raw", "packed.vmdk", "stream.raw", "chain.raw", "flat.vmdk"]


def contents(path):
    return path.read_bytes()


@pytest.fixture
def opened(sample):
    """opened(NAME, flags): a descriptor, closed at the end."""
    fds = []

    def open_view(name, flags=0):
        fds.append(os.open(sample.mount / name, os.O_RDONLY | flags))
        return fds[-1]

    yield open_view
    for fd in fds:
        os.close(fd)


def drop_pages(fd):
    """The next reads of the file are answered by imgfs and not by the kernel."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


@pytest.mark.parametrize("name", SOME)
def test_byte_by_byte(sample, opened, name):
    """Single bytes around every multiple of 64 KiB of a part of the file."""
    whole = contents(sample.mount / name)
    fd = opened(name)
    drop_pages(fd)
    for edge in range(0, 2 * MIB, 64 * KIB):
        for offset in range(max(edge - 2, 0), edge + 3):
            assert os.pread(fd, 1, offset) == whole[offset : offset + 1]
    assert os.pread(fd, 1, len(whole) - 1) == whole[-1:]
    assert os.pread(fd, 1, len(whole)) == b""


@pytest.mark.parametrize("name", ALL)
def test_unaligned_reads(sample, opened, name):
    whole = contents(sample.mount / name)
    fd = opened(name)
    drop_pages(fd)
    rng = random.Random(name)
    for _ in range(60):
        offset = rng.randrange(len(whole))
        length = rng.choice([1, 3, 511, 513, 4095, 65_537, 1_000_003])
        assert os.pread(fd, length, offset) == whole[offset : offset + length]


def test_reading_over_the_end(sample, opened):
    whole = contents(sample.mount / "chain.raw")
    fd = opened("chain.raw")
    assert os.pread(fd, MIB, len(whole) - 777) == whole[-777:]
    assert os.pread(fd, MIB, len(whole)) == b""
    assert os.pread(fd, MIB, len(whole) + 123_456_789) == b""
    with pytest.raises(OSError) as caught:
        os.lseek(fd, -1, os.SEEK_SET)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ALL)
def test_direct_io(sample, opened, name):
    """O_DIRECT as QEMU's cache=none and incus do it: aligned memory, any multiple of 512."""
    whole = contents(sample.mount / name)
    fd = opened(name, os.O_DIRECT)
    memory = mmap.mmap(-1, MIB)
    for length in (512, 4096, 64 * KIB, MIB):
        for offset in (0, 512, 64 * KIB - 512, 12 * MIB, 12 * MIB + 1536, len(whole) // 512 * 512):
            view = memoryview(memory)[:length]
            count = os.preadv(fd, [view], offset)
            expected = whole[offset : offset + length]
            assert count == len(expected)
            assert view[:count] == expected


def test_replies_from_descriptors(sample, mount, tmp_path):
    """With zero_copy plain data goes from the source's descriptor into the reply, by splice(2),
    and the bytes are the same. Without it nothing is spliced: a copy was checked."""
    spliced = {}
    for options in ("zero_copy", ""):
        views = mount(sample.datastore, *options.split())
        trace = tmp_path / f"trace-{options}"
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-e", "trace=splice", "-o", trace, "-p", str(views.process.pid)],
            stderr=subprocess.DEVNULL,
        )
        while b"TracerPid:\t0\n" in open(f"/proc/{views.process.pid}/status", "rb").read():
            assert tracer.poll() is None
        for name in ALL:
            assert contents(views / name) == contents(sample.mount / name), name
        tracer.terminate()
        tracer.wait()
        spliced[options] = trace.read_text().count("splice(")
    assert spliced["zero_copy"] > 0
    assert spliced[""] == 0


@pytest.mark.parametrize("name", SOME)
def test_dd_direct(sample, tmp_path, name):
    source, target = sample.mount / name, tmp_path / "copy"
    run("dd", f"if={source}", f"of={target}", "bs=256k", "iflag=direct", "status=none")
    assert target.read_bytes() == contents(source)


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE], ids=["shared", "private"])
@pytest.mark.parametrize("name", ALL)
def test_mmap(sample, opened, name, flags):
    fd = opened(name)
    size = os.fstat(fd).st_size
    drop_pages(fd)
    with mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ) as memory:
        assert memory[size - 1 :] == os.pread(fd, 1, size - 1)
        digest = hashlib.sha256(memory)
    assert digest.hexdigest() == sha256(sample.mount / name)


def random_reads(path, whole, seed, count=150):
    """Random reads through a descriptor of its own; the first that differs, or None."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDONLY)
    try:
        drop_pages(fd)
        for _ in range(count):
            offset = rng.randrange(len(whole))
            length = rng.randrange(1, 200 * KIB)
            if os.pread(fd, length, offset) != whole[offset : offset + length]:
                return offset, length
    finally:
        os.close(fd)
    return None


@pytest.mark.parametrize("name", SOME)
def test_eight_readers_of_one_view(sample, name):
    whole = contents(sample.mount / name)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(random_reads, sample.mount / name, whole, seed) for seed in range(8)]
        assert [job.result() for job in jobs] == [None] * 8


def test_eight_readers_of_all_views(sample):
    """Each its own view at a time, in different orders: one's cache is not the other's."""
    known = {name: contents(sample.mount / name) for name in ALL}

    def tour(seed):
        order = random.Random(seed).sample(ALL, len(ALL))
        return [random_reads(sample.mount / name, known[name], seed, 15) for name in order]

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(tour, range(8)):
            assert result == [None] * len(ALL)


def test_readers_share_one_descriptor(sample, opened):
    whole = contents(sample.mount / "packed.raw")
    fd = opened("packed.raw")
    drop_pages(fd)

    def read(seed):
        rng = random.Random(seed)
        for _ in range(200):
            offset = rng.randrange(len(whole))
            if os.pread(fd, 70_000, offset) != whole[offset : offset + 70_000]:
                return offset
        return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [None] * 8


def test_a_cache_that_holds_next_to_nothing(sample, mount):
    """With the smallest cache everything is unpacked again and again, and right."""
    views = mount(sample.datastore, "cache_size=1M")
    for name in ("packed.raw", "stream.qcow2", "chain.vmdk"):
        whole = contents(sample.mount / name)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(random_reads, views / name, whole, seed, 60) for seed in range(4)]
            assert [job.result() for job in jobs] == [None] * 4


def test_one_thread_alone(sample, mount):
    views = mount(sample.datastore, args=["-s"])
    for name in ALL:
        assert sha256(views / name) == sha256(sample.mount / name)


READ_WHILE_KILLED = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
while True:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, 1 << 20, 12 << 20)
"""


def test_readers_that_are_killed(sample):
    """Readers die in the middle of their reads; those who stay notice nothing."""
    path = sample.mount / "packed.raw"
    whole = contents(path)
    for _ in range(5):
        command = [sys.executable, "-c", READ_WHILE_KILLED, path]
        readers = [subprocess.Popen(command) for _ in range(4)]
        assert random_reads(path, whole, 7, 100) is None
        for reader in readers:
            assert reader.poll() is None
            reader.kill()
            reader.wait()
    assert random_reads(path, whole, 8) is None
