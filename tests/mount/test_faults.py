# SPDX-License-Identifier: Apache-2.0
"""A mount whose system calls and allocations fail: right bytes or an error, and then all is well.

What fails inside the core is seen to by the unit tests and the matrix; here it is the daemon as
it is, and what comes out of the kernel.
"""

import errno
import os
import shutil
import signal
import time

import pytest

import images
from faults import ALLOC, LIST, OPEN, READ, SEEK, SHORT, STAT, Direct, Faults, read_all
from fixtures import plain_only
from mounting import DidNotMount
from tools import KIB, MIB, VIEWS, eventually, pattern

pytestmark = plain_only

SIZE = 2 * MIB + 512
IMAGES = 80
EVERY = (1, 2, 3, 7)
# Lines that say what was done here on purpose
SAID = r"Input/output error|Cannot allocate memory|out of memory|like the next one|cannot be|is not shown"
REFUSED_SECONDS = 5


class Disk(images.Disk):
    """As the sample disk, but small."""

    def __init__(self, path):
        self.path, self.bytes = path, bytearray(SIZE)
        for offset, length in ((0, 64 * KIB), (300 * KIB, 700 * KIB), (SIZE - 512, 512)):
            self.bytes[offset : offset + length] = pattern(offset, length // 2).ljust(length, b"x")
        self.path.write_bytes(self.bytes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every kind of source, small. Not to be changed."""
    base = tmp_path_factory.mktemp("faults")
    directory = base / "datastore"
    directory.mkdir()
    disk = Disk(base / "disk.raw")
    for name, make in images.SOURCES.items():
        if name != "chain.qcow2":
            make(disk, directory / name)
    disk.convert(directory / "chain-base.qcow2", "-O", "qcow2", "-c")
    images.create(directory / "chain.qcow2", SIZE, "-b", "chain-base.qcow2", "-F", "qcow2")
    time.sleep(3.1)  # what is younger is looked at each time it is asked for
    return directory


@pytest.fixture
def faults(imgfs, tmp_path):
    faults = Faults(imgfs, tmp_path / "rules")
    yield faults
    faults.end()


@pytest.fixture(autouse=True)
def no_test_hangs():
    """An EINTR that comes out of the kernel is repeated by Python, for ever."""

    def stop(*unused):
        raise AssertionError("it takes too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def start(mount, faults, store, *options):
    return mount(store, *options, env=faults.env, expect=[SAID])


def contents(views, block=MIB):
    """Name and bytes of every view."""
    return {name: read_all(views / name, block) for name in views.names()}


def different(views, expected, block=MIB):
    """Names whose bytes are not those expected: pytest would look for the differences for ever."""
    got = contents(views, block)
    return [name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name)]


def read_or_fail(path, expected, block, allowed=(errno.EIO,)):
    """Each block right or an error; how many of each."""
    right = wrong = 0
    with Direct(path, block) as file:
        for offset, length in file.blocks():
            try:
                got = file.read(offset, length)
            except OSError as e:
                assert e.errno in allowed, f"{path.name} at {offset}: {e}"
                wrong += 1
                continue
            same = got == expected[offset : offset + length]
            assert same, f"{path.name} at {offset}"
            right += 1
    return right, wrong


# ---- reads that come in pieces ----


@pytest.fixture(params=[(), ("zero_copy",)], ids=["copied", "zero_copy"])
def options(request):
    return request.param


def test_short_and_interrupted_reads(store, mount, faults, options):
    views = start(mount, faults, store, *options)
    expected = contents(views)
    assert len(expected) == 8 * len(VIEWS)
    for every in EVERY:
        faults.set(SHORT, every)
        if not options:  # libfuse does not go on after an EINTR, which splice() of a file never has
            faults.set(READ, every + 1, errno.EINTR)
        assert different(views, expected, 100 * KIB) == []
        assert faults.count(SHORT) > 20 and (options or faults.count(READ) > 20)


# ---- calls that fail ----


def test_read_errors(store, mount, faults, options):
    views = start(mount, faults, store, *options)
    expected = contents(views)
    for every in EVERY:
        faults.set(READ, every)
        counts = [read_or_fail(views / name, data, 48 * KIB) for name, data in expected.items()]
        right, wrong = map(sum, zip(*counts))
        assert wrong > 20 and (right > 20 or every == 1)
        faults.end()
        assert different(views, expected, 100 * KIB) == []


def read_and_seek(fd, expected):
    """Through the kernel's cache. 1 where an error came out, of the two that may."""
    try:
        same = os.pread(fd, 4096, 128 * KIB) == expected[128 * KIB :][:4096]
        assert same
        os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError as e:
        assert e.errno in (errno.EIO, errno.ESTALE), e
        return 1
    return 0


def test_what_comes_out_of_a_read(store, mount, faults):
    """Only EIO and ESTALE, whatever went in: others make an NFS client try for ever."""
    views = start(mount, faults, store)
    expected = contents(views)
    opened = {name: os.open(views / name, os.O_RDONLY) for name in expected}
    for kind, errors in {
        READ: (errno.EAGAIN, errno.ENOMEM, errno.ETIMEDOUT, errno.ENODEV),
        SEEK: (errno.EAGAIN, errno.ENOMEM, errno.EINTR),
        STAT: (errno.ENOMEM, errno.EINTR),
    }.items():
        for error in errors:
            if kind == STAT:
                time.sleep(1.1)  # and the kernel asks for the attributes again
            faults.set(kind, 1, error)
            assert sum(read_and_seek(fd, expected[name]) for name, fd in opened.items())
            faults.end()
    assert different(views, expected) == []
    for fd in opened.values():
        os.close(fd)


def test_one_bad_file(store, mount, faults):
    """The others read as before, and the log says which it is, not a line for each read."""
    views = start(mount, faults, store)
    expected = contents(views)
    faults.set(READ, 1, inode=os.stat(store / "flat-flat.vmdk").st_ino)
    since = time.monotonic()
    for name, data in expected.items():
        right, wrong = read_or_fail(views / name, data, 4 * KIB)
        assert wrong == 0 or name.startswith("flat.")
        assert wrong > 200 or not name.startswith("flat.")
    lines = views.log_lines("Input/output error")
    assert any("'flat-flat.vmdk'" in line for line in lines)
    assert len(lines) <= 5 * (time.monotonic() - since + 2)
    faults.end()
    assert different(views, expected) == []


def look_at(directory, names):
    """What a directory shows and how large it is, as far as there is an answer."""
    try:
        shown = sorted(os.listdir(directory))
    except OSError as e:
        assert e.errno in (errno.EIO, errno.ENOENT)
        shown = []
    assert set(shown) <= set(names)
    for name in names:
        try:
            assert os.stat(directory / name).st_size > 0
        except OSError as e:
            assert e.errno in (errno.ENOENT, errno.EIO, errno.ESTALE)
    return shown


def test_errors_at_the_first_look(store, datastore, mount, faults):
    """What cannot be opened is not shown, and the log says why; later it is shown."""
    kinds = [(kind, every) for kind in (READ, STAT, OPEN, SEEK, LIST) for every in (1, 2, 5)]
    for kind, every in kinds:
        shutil.copytree(store, datastore / f"{kind}-{every}")
    views = start(mount, faults, datastore)
    sources = [name for name in os.listdir(store) if "-flat" not in name]
    names = sorted(f"{images.stem(name)}.{view}" for name in sources for view in VIEWS)
    for kind, every in kinds:
        faults.set(kind, every)
        shown = look_at(views / f"{kind}-{every}", names)
        assert faults.count(kind) > 0 or every > 1
        faults.end()
        if (kind, every) == (READ, 1):
            assert not any(name.startswith("normal.") for name in shown)
            assert views.log_lines("normal.qcow2' is not shown: .*Input/output error")
    for kind, every in kinds:
        directory = f"{kind}-{every}"
        eventually(lambda: views.names(directory) == names, REFUSED_SECONDS)
        assert look_at(views / directory, names) == names
        assert all((views / directory / name).stat().st_size > 0 for name in names)


# ---- memory ----


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images with compressed clusters: each has a name that the kernel has not asked for."""
    base = tmp_path_factory.mktemp("many")
    disk = Disk(base / "disk.raw")
    disk.convert(base / "image.qcow2", "-O", "qcow2", "-c")
    (base / "datastore").mkdir()
    for number in range(IMAGES):
        os.link(base / "image.qcow2", base / "datastore" / f"{number}.qcow2")
    return base / "datastore", bytes(disk.bytes)


def try_to_use(views, name, expected):
    """A listing, a lookup, an open, reads. None of them does harm; a read says EIO or ESTALE."""
    try:
        assert name in views.names()
        with Direct(views / name) as file:
            assert file.size == SIZE
    except OSError as e:
        assert e.errno in (errno.ENOMEM, errno.EIO), e
        return
    try:
        with Direct(views / name) as file:
            fd = os.dup(file.fd)
    except OSError as e:
        assert e.errno in (errno.ENOMEM, errno.EIO), e
        return
    for offset in (0, 300 * KIB, SIZE - 5000):
        try:
            got = os.pread(fd, 5000, offset)
            same = got == expected[offset : offset + 5000]
            assert same
        except OSError as e:
            assert e.errno in (errno.EIO, errno.ESTALE), e
    os.close(fd)


def test_allocations(many, mount, faults):
    """One fails, each in turn; then every n-th; then none does and all is as it should be."""
    store, expected = many
    views = start(mount, faults, store)
    for number in range(IMAGES):
        faults.set(ALLOC, number + 1, errno.ENOMEM, limit=1 if number < IMAGES - 10 else 0)
        if number >= IMAGES - 10:
            faults.set(ALLOC, 1 + number % 10, errno.ENOMEM)
        try_to_use(views, f"{number}.raw", expected)
        assert faults.count(ALLOC) > 0
    faults.end()
    assert len(views.names()) == IMAGES * len(VIEWS)
    for number in range(IMAGES):
        same = read_all(views / f"{number}.raw") == expected
        assert same


def test_the_first_allocation_of_a_request(store, mount, faults):
    views = start(mount, faults, store)
    names = views.names()
    directory = os.open(views.point, os.O_RDONLY)
    faults.set(ALLOC, 1, errno.ENOMEM, limit=1)
    with pytest.raises(OSError) as e:
        os.listdir(directory)
    assert e.value.errno == errno.ENOMEM
    assert sorted(os.listdir(directory)) == names
    os.close(directory)
    with Direct(views / "normal.raw") as file:
        # nothing has been read yet, so the thread has no buffer for these zeros
        faults.set(ALLOC, 1, errno.ENOMEM, limit=1)
        with pytest.raises(OSError) as e:
            file.read(128 * KIB, 4096)
        assert e.value.errno == errno.EIO
        assert file.read(128 * KIB, 4096) == bytes(4096)


def test_a_start_without_memory(store, mount, faults):
    """imgfs starts or ends in order, with each of its first allocations failing."""
    failed = 0
    for number in range(1, 200):
        faults.set(ALLOC, number, errno.ENOMEM, limit=1)
        try:
            views = start(mount, faults, store)
        except DidNotMount as e:
            assert e.status in (1, 2, 32), f"allocation {number}: {e}"
            failed += 1
            continue
        except OSError as e:  # from the listing that start() makes
            assert e.errno == errno.ENOMEM
            continue
        assert views.unmount() == 0
        if faults.count(ALLOC) == 0 or number > 36:
            break
    faults.end()
    assert failed > 5
