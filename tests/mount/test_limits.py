# SPDX-License-Identifier: Apache-2.0
"""What a datastore may cost: memory and time stay small whatever tenants put into it."""

import errno
import os
import struct
import threading
import zlib

import pytest

from fixtures import SANITIZER, plain_only
from tools import GIB, KIB, MIB, TIB, VIEWS, eventually

SECTOR = 512
MEMORY_LIMIT = 256 * MIB


def peak_memory(views):
    """The most that the daemon has ever had in memory."""
    with open(f"/proc/{views.process.pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    raise AssertionError("no VmHWM")


def cpu_seconds(views):
    """What the daemon has used of processors: the machine may have other things to do."""
    with open(f"/proc/{views.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_small(views):
    if not SANITIZER:  # shadow memory and quarantines are not what is measured
        assert peak_memory(views) < MEMORY_LIMIT


def in_parallel(jobs):
    """Runs all of the functions at the same time; the first that failed fails the test."""
    failures = []

    def guarded(job):
        try:
            job()
        except BaseException as e:  # noqa: B036 - to be raised where the test sees it
            failures.append(e)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---- compressed grains of 16 MiB ----

GRAIN = 16 * MIB
GRAINS = 12


def write_large_grains(path):
    """A compressed VMDK whose grains are as large as they may be."""
    size = GRAIN * GRAINS // SECTOR
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="streamOptimized"\nRW {size} SPARSE "{path.name}"\n'
    ).encode()
    body = bytearray(SECTOR) + text.ljust(10 * SECTOR, b"\0")
    table, places = len(body) // SECTOR, []
    body += bytes(512 * 4)
    for number in range(GRAINS):
        places.append(len(body) // SECTOR)
        packed = zlib.compress(bytes([number + 1]) * GRAIN, 0)  # as large as it may be
        body += struct.pack("<QI", number * GRAIN // SECTOR, len(packed)) + packed
        body += bytes(-len(body) % SECTOR)
    struct.pack_into(f"<{GRAINS}I", body, table * SECTOR, *places)
    directory = len(body) // SECTOR
    body += struct.pack("<I", table).ljust(SECTOR, b"\0")
    body[:SECTOR] = struct.pack(
        "<4sIIQQQQIQQQ?4sH433x",
        *(b"KDMV", 3, 0x30001, size, GRAIN // SECTOR, 1, 10, 512),
        *(0, directory, 11, False, b"\n \r\n", 1),
    )
    path.write_bytes(body)


@plain_only  # what is measured is memory
def test_large_units_are_read_in_turn(datastore, mount):
    """Each of them takes 16 MiB, packed and unpacked, and twelve readers want another one."""
    write_large_grains(datastore / "big.vmdk")
    views = mount(datastore, "max_threads=40")

    def reader(number):
        def read():
            fd = os.open(views / "big.raw", os.O_RDONLY | os.O_DIRECT)
            try:
                for step in range(3):
                    grain = (number + step * 7) % GRAINS
                    body = os.pread(fd, MIB, grain * GRAIN + 5 * MIB)
                    assert body == bytes([grain + 1]) * MIB
            finally:
                os.close(fd)

        return read

    in_parallel([reader(number) for number in range(GRAINS)])
    assert_small(views)


# ---- maps of tables that are used again and again ----


def write_aliased(path, bits, tables, pattern):
    """A qcow2 whose L1 entries all name one L2 table; pattern: which of 64 clusters are data."""
    cluster = 1 << bits
    per_table = cluster // 8
    l1 = 2 * cluster
    l2 = l1 + -(-8 * tables // cluster) * cluster
    data = l2 + cluster
    size = tables * per_table * cluster
    with open(path, "wb") as file:
        head = (b"QFI\xfb", 3, 0, 0, bits, size, 0, tables, l1, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
        file.write(struct.pack(">4sIQIIQIIQQIIQQQQII", *head))
        file.seek(l1)
        file.write(struct.pack(">Q", l2 | 1 << 63) * tables)
        file.seek(l2)
        entries = [(data | 1 << 63) * (pattern >> n % 64 & 1) for n in range(per_table)]
        file.write(struct.pack(f">{per_table}Q", *entries))
        try:
            file.truncate(8 * TIB)
        except OSError as e:
            assert e.errno == errno.EFBIG
            pytest.skip("needs files of 8 TiB")


def test_many_maps_at_once(datastore, mount):
    """Each image's map takes 30 MiB: not all of them are kept, nor all of them opened."""
    for number in range(8):
        write_aliased(datastore / f"m{number}.qcow2", 21, 30 + number, 1 << number)
    views = mount(datastore)
    views.expect_log("too much memory|too scattered|cannot be laid out")
    fds, refused = [], 0
    try:
        for number in range(8):
            for view in VIEWS:
                try:
                    fds.append(os.open(views / f"m{number}.{view}", os.O_RDONLY))
                    os.pread(fds[-1], 4096, 0)
                except OSError as e:
                    assert e.errno in (errno.ENOMEM, errno.ENOENT), e
                    refused += 1
        assert len(fds) > 8
    finally:
        for fd in fds:
            os.close(fd)
    assert_small(views)
    # what is closed makes room
    for number in range(8):
        eventually(lambda path=views / f"m{number}.raw": can_be_read(path))


def can_be_read(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(4096)) == 4096
    except OSError as e:  # the kernel tells of a close when it comes to it
        assert e.errno == errno.ENOMEM
        return False


@plain_only  # what is measured is time
@pytest.mark.parametrize("pattern", [0, ~0, 0x5555555555555555], ids=["zeros", "data", "halves"])
def test_endless_tables(datastore, mount, pattern):
    """2 PiB from one table: no request takes long, and the other image does not notice."""
    write_aliased(datastore / "endless.qcow2", 16, 1 << 22, pattern)
    (datastore / "a.raw").write_bytes(b"x" * MIB)
    views = mount(datastore)
    views.expect_log("endless")

    def within(what, *args):
        start = cpu_seconds(views)
        try:
            return what(*args)
        except OSError as e:
            return e.errno
        finally:
            assert cpu_seconds(views) - start < 10, what

    names = within(views.names)
    assert {"a.raw", "endless.qcow2", "endless.raw"} <= set(names)
    for view in VIEWS:
        within(os.stat, views / f"endless.{view}")
    assert not os.path.exists(views / "endless.vmdk")
    fd = os.open(views / "endless.raw", os.O_RDONLY)
    try:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            within(os.lseek, fd, GIB, whence)
        assert within(os.pread, fd, 64 * KIB, 77 * TIB) is not None
    finally:
        os.close(fd)
    assert (views / "a.raw").read_bytes() == b"x" * MIB
    assert_small(views)
