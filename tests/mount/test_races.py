# SPDX-License-Identifier: Apache-2.0
"""Sources that change while four readers are at them: names that turn into something else, bytes
that are rewritten in place, files that shrink and grow.

What can be promised is what the kernel tells. write(2) sets a file's times first and copies the
bytes then, and a reader is not kept out meanwhile; so whoever opens a view waits until the last
change is 20 ms old, and a single write(2) that takes longer than that may be seen in parts by a
view that is opened during it, until it is opened again some seconds later. These tests note how
long each write(2) took, and let nothing else pass as an excuse."""

import errno
import os
import random
import subprocess
import time

import pytest

import images
from crew import Crew, Numbers, Tally, read_exactly, stamp_of, stamped
from fixtures import require_programs
from tools import KIB, MIB, VIEWS, eventually, pattern, refusal, run

READERS = 4
SLOW = 0.010  # seconds; half of what an open waits


def descriptors(mount):
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


def total_of(tallies):
    total = Tally()
    for tally in tallies:
        total += tally
    return total


# ---- names that turn into something else ----

MARKER = b"a secret outside of the datastore. "
SMALL = 32 * KIB


class Swapper:
    """Puts one thing after the other in the place of a name, the last time an image."""

    def __init__(self, store, outside):
        self.store, self.outside = store, outside
        self.random = random.Random(1)
        self.new = store / ".new"
        self.number = 0

    def image(self, _name):
        self.number += 1
        self.new.write_bytes(stamped(self.number, SMALL))

    def absolute_link(self, name):
        os.symlink(self.outside / name, self.new)

    def relative_link(self, name):
        os.symlink(f"../{self.outside.name}/{name}", self.new)

    def fifo(self, _name):
        os.mkfifo(self.new)

    def device(self, _name):
        os.mknod(self.new, 0o20666, os.makedev(1, 5))  # /dev/zero

    def swap(self, name, make=None):
        kinds = (self.image, self.absolute_link, self.relative_link, self.fifo, self.device)
        (make or self.random.choice(kinds))(name)
        os.rename(self.new, self.store / name)

    def swap_directory(self):
        """The directory gives way to a link to one outside with the same names, and returns."""
        os.rename(self.store / "sub", self.store / ".sub")
        os.symlink(self.outside / "sub", self.store / "sub")
        os.unlink(self.store / "sub")
        os.rename(self.store / ".sub", self.store / "sub")


def keep_swapping(_stop, store, outside, swaps):
    swapper = Swapper(store, outside)
    for burst in range(swaps // 100):
        for _ in range(98):
            swapper.swap("a.raw")
            if swapper.number % 4 == 0:
                swapper.swap("x-base.raw")
                swapper.swap_directory()
        for name in ("a.raw", "x-base.raw"):
            swapper.swap(name, swapper.image)
        time.sleep(0.03 if burst % 2 else 0.005)
    return swapper.number


def read_whole(path):
    with open(path, "rb", buffering=0) as file:
        return read_exactly(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def holds(path, body):
    try:
        return read_whole(path) == body
    except FileNotFoundError:  # it was refused, and is for a moment yet
        return False


def read_names(stop, point, known):
    """Lists, looks and reads; whatever the moment, only what is in the datastore is seen."""
    tally = Tally()
    while not stop.is_set():
        for name in tally.attempt(lambda: os.listdir(point)) or ():
            assert name in known, name
        for name in ("a.raw", "x.raw", "sub/b.raw"):
            st = tally.attempt(lambda name=name: os.stat(point / name))
            assert st is None or st.st_size == SMALL
            body = tally.attempt(lambda name=name: read_whole(point / name))
            if body is not None:
                assert len(body) == SMALL
                assert stamp_of(body) in range(1, 256), stamp_of(body)
        for name in ("a.qcow2", "x.vmdk"):
            body = tally.attempt(lambda name=name: read_whole(point / name))
            assert body is None or MARKER not in body
    return tally


@pytest.fixture
def outside(tmp_path):
    """Files outside of the datastore whose names are those inside."""
    directory = tmp_path / "outside"
    (directory / "sub").mkdir(parents=True)
    secret = (MARKER * (SMALL // len(MARKER) + 1))[:SMALL]
    for name in ("a.raw", "x-base.raw", "sub/b.raw"):
        (directory / name).write_bytes(secret)
    return directory


@pytest.mark.parametrize("swaps, options", [(20_000, ()), (5000, ("follow_symlinks",))])
def test_names_that_turn_into_something_else(datastore, outside, mount, swaps, options):
    """Image, symbolic link, FIFO and device take turns by rename, and a directory's place is a
    link out for a moment. What lies outside is never seen, no FIFO and no device is opened."""
    (datastore / "sub").mkdir()
    for name in ("a.raw", "x-base.raw", "sub/b.raw"):
        (datastore / name).write_bytes(stamped(0, SMALL))
    images.create(datastore / "x.qcow2", str(SMALL), "-b", "x-base.raw", "-F", "raw")
    views = mount(datastore, *options)
    known = set(views.names())
    assert len(known) == 10
    before = descriptors(views)
    with Crew() as crew:
        crew.add(keep_swapping, datastore, outside, swaps)
        for _ in range(READERS):
            crew.add(read_names, views.point, known)
        crew.wait_for(0, 240)
        number, *tallies = crew.finish()
    total = total_of(tallies)
    assert total["good"] > swaps / 100, total.counts
    assert set(total.counts) <= {"good", "ENOENT", "ESTALE"}, total.counts
    assert total.longest < 5, f"a call took {total.longest:.1f} s"
    assert views.process.poll() is None
    eventually(lambda: holds(views / "a.raw", stamped(number - 1, SMALL)))
    eventually(lambda: holds(views / "x.raw", stamped(number, SMALL)), 6)
    eventually(lambda: holds(views / "sub/b.raw", stamped(0, SMALL)))
    assert descriptors(views) <= before + 6
    assert MARKER.decode() not in views.log()


# ---- bytes that are rewritten in place ----

BLOCKS = 256 * KIB
REWRITES = 1000
BEGUN, ENDED, TIMES = 0, 1, 2


def keep_rewriting(_stop, path, numbers):
    """One pwrite(2) each, in bursts, so that there are moments to open a view in."""
    fd = os.open(path, os.O_RDWR)
    for number in range(1, REWRITES + 1):
        body = stamped(number, BLOCKS)
        if number % 20 == 0:
            time.sleep(0.06)
        numbers[BEGUN] = number
        start = time.monotonic()
        os.pwrite(fd, body, 0)
        numbers[TIMES + number] = int((time.monotonic() - start) * 1e6)
        numbers[ENDED] = number
    os.close(fd)


class Rewritten:
    """A reader of what is being rewritten, and the rules that its reads must keep."""

    def __init__(self, path, flags, numbers):
        self.path, self.flags, self.numbers = path, flags, numbers
        self.tally = Tally()
        self.random = random.Random(os.getpid())
        self.fresh = self.late = self.blends = 0

    def excused(self, since):
        """Was one of the writes since then so slow that an open did not wait for its end?"""
        writes = range(since, self.numbers[BEGUN] + 1)
        return any(self.numbers[TIMES + w] > SLOW * 1e6 for w in writes)

    def read(self, fd, opened):
        """The stamps of one read; None where it failed, which it must after a change."""
        ended = self.numbers[ENDED]
        offset = self.random.randrange(0, BLOCKS // 4096) * 4096
        size = min(128 * KIB, BLOCKS - offset)
        body = self.tally.attempt(lambda: read_exactly(fd, size, offset))
        if body is None:
            return None
        if self.flags & os.O_DIRECT:
            assert ended <= opened, f"state {opened} was read when {ended} had been written"
        return set(body)

    def handle(self, fd, before):
        opened = self.numbers[BEGUN]
        stamps, failed = set(), False
        for _ in range(12):
            found = self.read(fd, opened)
            if found is None:
                failed = True
                self.late += 1
                continue
            assert not (failed and self.flags & os.O_DIRECT), "a stale handle came back to life"
            stamps |= found
        if len(stamps) > 1:
            time.sleep(0.2)  # the writer notes how long it took when it is done
            assert self.excused(before), f"states {before} to {opened}: stamps {stamps}"
            self.blends += 1
        elif stamps and opened == before:  # nothing was written during the open
            assert stamps == set(stamped(before, 1)), f"state {before}: stamp {stamps}"
            self.fresh += 1

    def go(self, stop):
        while not stop.is_set():
            before = self.numbers[ENDED]
            fd = self.tally.attempt(lambda: os.open(self.path, os.O_RDONLY | self.flags))
            if fd is not None:
                self.handle(fd, before)
                os.close(fd)
        return self.tally, self.fresh, self.late, self.blends


def read_rewritten(stop, path, flags, numbers):
    return Rewritten(path, flags, numbers).go(stop)


@pytest.fixture(params=["disk", "coarse"])
def clocked(request, datastore):
    """A datastore whose file system may have fine time stamps, and one that has only ticks."""
    if request.param == "disk":
        yield datastore
        return
    require_programs("umount")
    run("mount", "-t", "ramfs", "none", datastore)
    yield datastore
    subprocess.run(["umount", "-l", datastore], check=True)


def test_bytes_that_are_rewritten_in_place(clocked, mount):
    """A thousand times, each time with a new stamp. All that one handle reads has one stamp; what
    is opened between two writes has the last one's; after the next write the handle is stale."""
    path = clocked / "stamp.raw"
    path.write_bytes(stamped(0, BLOCKS))
    views = mount(clocked)
    before = descriptors(views)
    numbers = Numbers(TIMES + REWRITES + 1)
    with Crew() as crew:
        crew.add(keep_rewriting, path, numbers)
        for flags in (0, os.O_DIRECT) * (READERS // 2):
            crew.add(read_rewritten, views / "stamp.raw", flags, numbers)
        crew.wait_for(0, 120)
        _, *found = crew.finish()
    tallies, fresh, late, blends = zip(*found)
    total = total_of(tallies)
    assert set(total.counts) <= {"good", "ESTALE"}, total.counts
    assert total["good"] > 500 and sum(fresh) > 50 and sum(late) > 50, (total.counts, found)
    assert sum(blends) <= 5
    assert total.longest < 5
    eventually(lambda: (views / "stamp.raw").read_bytes() == stamped(REWRITES, BLOCKS))
    assert descriptors(views) <= before + 6


def test_two_writes_in_one_tick(clocked, mount):
    """A view is read between two writes that a coarse clock does not tell apart. It has the bytes
    of the second one in the end, not for ever those of the first."""
    path = clocked / "twice.raw"
    path.write_bytes(stamped(0, BLOCKS))
    views = mount(clocked)
    tally = Tally()
    with open(path, "r+b", buffering=0) as file:
        for number in range(1, 41):
            os.pwrite(file.fileno(), stamped(2 * number, BLOCKS), 0)
            tally.attempt(lambda: read_whole(views / "twice.raw"))
            os.pwrite(file.fileno(), stamped(2 * number + 1, BLOCKS), 0)
            time.sleep(0.03)
            body = (views / "twice.raw").read_bytes()
            assert stamp_of(body) == stamped(2 * number + 1, 1)[0]
    assert set(tally.counts) <= {"good", "ESTALE"}, tally.counts


LONG = 16 * MIB
FILES = 8


def test_a_view_opened_during_a_long_write(datastore, mount):
    """It may have seen the file in parts, but nobody who opens it later does: neither its pages
    nor what was read of its tables is kept."""
    for number in range(FILES):
        (datastore / f"f{number}.raw").write_bytes(stamped(0, LONG))
    views = mount(datastore)

    def keep_opening(stop, number):
        tally = Tally()
        while not stop.is_set():
            for view in VIEWS:
                tally.attempt(lambda v=view: read_end(views / f"f{number}.{v}"))
        return tally

    def read_end(path):
        with open(path, "rb", buffering=0) as file:
            return read_exactly(file.fileno(), 128 * KIB, LONG - 128 * KIB)

    def overwrite(number):
        with open(datastore / f"f{number}.raw", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), stamped(1, LONG), 0)

    for number in range(FILES):
        with Crew() as crew:
            crew.add(keep_opening, number)
            time.sleep(0.002 * (number % 6))
            overwrite(number)
            (tally,) = crew.finish()
        assert set(tally.counts) <= {"good", "ESTALE"}, tally.counts
    time.sleep(3.2)
    for _ in range(2):
        for number in range(FILES):
            assert stamp_of(read_end(views / f"f{number}.raw")) == stamped(1, 1)[0], number


# ---- files that shrink and grow ----

WHOLE, HALF, MORE = 512 * KIB, 256 * KIB, 516 * KIB
BODY = pattern(11, WHOLE)


def keep_truncating(stop, path, body, zeros):
    """A thousand changes of the size per second, now and then a pause in a state that lasts."""
    fd = os.open(path, os.O_RDWR)
    half = len(body) // 8192 * 4096
    steps = [lambda: os.ftruncate(fd, half), lambda: os.pwrite(fd, body[half:], half)]
    if zeros:
        steps.insert(1, lambda: os.ftruncate(fd, len(body) + 4096))
        steps.insert(2, lambda: os.ftruncate(fd, half))
    changes = 0
    while not stop.is_set():
        for step in range(len(steps) * 15):
            steps[step % len(steps)]()
            changes += 1
            time.sleep(0.0009)
        if zeros and changes % 2 == 1:
            os.ftruncate(fd, len(body) + 4096)  # a state with a hole at its end
        time.sleep(0.05)
    os.ftruncate(fd, half)
    os.pwrite(fd, body[half:], half)
    os.close(fd)
    return changes


def bytes_of_state(size):
    """What the file holds when it has this size."""
    return BODY[:size] if size <= WHOLE else BODY[:HALF] + bytes(size - HALF)


def read_truncated(stop, path, flags, whole):
    """Every successful read has the bytes that the file had in the state of the open."""
    tally = Tally()
    while not stop.is_set():
        fd = tally.attempt(lambda: os.open(path, os.O_RDONLY | flags))
        if fd is None:
            continue
        expected = whole or bytes_of_state(os.fstat(fd).st_size)
        assert len(expected) == os.fstat(fd).st_size
        for step in range(16):
            offset = step * 7 % 16 * len(expected) // 16 // 4096 * 4096
            size = min(64 * KIB, len(expected) - offset)
            body = tally.attempt(lambda o=offset, s=size: read_exactly(fd, s, o))
            right = body is None or body == expected[offset : offset + size]
            assert right, f"size {len(expected)}, offset {offset}: {body.count(0)} bytes are zero"
        os.close(fd)
    return tally


def assert_truncation_is_safe(views, source, view, body, whole):
    with Crew() as crew:
        crew.add(keep_truncating, source, body, whole is None)
        for flags in (0, os.O_DIRECT) * (READERS // 2):
            crew.add(read_truncated, views / view, flags, whole)
        time.sleep(5)
        changes, *tallies = crew.finish()
    total = total_of(tallies)
    assert changes > 500
    assert set(total.counts) <= {"good", "ESTALE", "EIO", "ENOENT"}, total.counts
    assert total["good"] > 200 and total["ESTALE"] > 20, total.counts
    assert total.longest < 5
    assert views.process.poll() is None


def test_a_raw_disk_that_shrinks_and_grows(datastore, mount):
    (datastore / "t.raw").write_bytes(BODY)
    views = mount(datastore)
    assert_truncation_is_safe(views, datastore / "t.raw", "t.raw", BODY, None)
    eventually(lambda: (views / "t.raw").read_bytes() == BODY)


@pytest.mark.parametrize("packed", [(), ("-c",)], ids=["plain", "packed"])
def test_a_qcow2_that_shrinks_and_grows(datastore, mount, tmp_path, packed):
    """Tables and data come and go: what cannot be read is an error, never zeros."""
    disk = tmp_path / "disk.raw"
    half_random = b"".join(pattern(n, 2048) + bytes([n]) * 2048 for n in range(1, 129))
    images.sparse_file(disk, WHOLE + 64 * KIB, (0, half_random))
    run(*("qemu-img", "convert", *packed, "-f", "raw", "-O", "qcow2", disk, datastore / "t.qcow2"))
    body = (datastore / "t.qcow2").read_bytes()
    views = mount(datastore)
    views.expect_log("t.qcow2")
    whole = disk.read_bytes()
    assert_truncation_is_safe(views, datastore / "t.qcow2", "t.raw", body, whole)
    eventually(lambda: (views / "t.raw").read_bytes() == whole, 6)


def test_a_name_that_was_never_anything_else_is_still_there(datastore, outside, mount):
    """S6: what is swapped beside an image does not reach it."""
    (datastore / "sub").mkdir()
    (datastore / "sub" / "b.raw").write_bytes(stamped(0, SMALL))
    (datastore / "other.raw").write_bytes(pattern(3, MIB))
    views = mount(datastore)
    fd = os.open(views / "other.raw", os.O_RDONLY | os.O_DIRECT)
    swapper = Swapper(datastore, outside)
    try:
        for _ in range(300):
            swapper.swap("a.raw")
            swapper.swap_directory()
            assert os.pread(fd, 64 * KIB, 512 * KIB) == pattern(3, MIB)[512 * KIB : 576 * KIB]
            assert (views / "other.raw").stat().st_size == MIB
    finally:
        os.close(fd)
    swapper.swap("a.raw", swapper.fifo)
    eventually(lambda: not (views / "a.raw").exists())
    assert refusal(os.open, views / "a.raw", os.O_RDONLY) == "ENOENT"


def test_cp_of_a_source_that_changes_midway_fails(datastore, mount, tmp_path):
    """cp(1) says so and exits with an error; nobody takes half of a copy for a whole one."""
    images.sparse_file(datastore / "big.raw", 512 * MIB, (0, pattern(5, MIB)), (511 * MIB, b"end"))
    views = mount(datastore)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = ["cp", "--sparse=never", views / "big.raw", fifo]
    copier = subprocess.Popen(command, stderr=subprocess.PIPE)
    with open(fifo, "rb", buffering=0) as file:
        file.read(64 * KIB)
        images.poke(datastore / "big.raw", 300 * MIB, b"changed")
        copied = 64 * KIB
        while more := file.read(MIB):
            copied += len(more)
    _, said = copier.communicate(timeout=60)
    assert copier.returncode != 0 and copied < 512 * MIB
    assert os.strerror(errno.ESTALE) in said.decode()
