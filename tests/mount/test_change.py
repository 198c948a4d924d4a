# SPDX-License-Identifier: Apache-2.0
"""Sources that change while they are mounted: seen soon, and never blended."""

import errno
import os
import subprocess
import threading
import time

import pytest

import images
from tools import KIB, MIB, VIEWS, check, compare, eventually, pattern, refusal, run, same

SIZE = 16 * MIB


def views_of(*stems):
    return sorted(f"{stem}.{view}" for stem in stems for view in VIEWS)


@pytest.fixture
def store(datastore):
    (datastore / "a.raw").write_bytes(pattern(1, SIZE))
    return datastore


# ---- files that come and go ----


def test_a_file_that_comes(store, mount):
    views = mount(store)
    assert views.names() == views_of("a")
    assert refusal(os.stat, views / "b.raw") == "ENOENT"
    (store / "b.raw").write_bytes(pattern(2, 8192))
    eventually(lambda: views.names() == views_of("a", "b"))
    eventually(lambda: (views / "b.raw").exists())
    assert (views / "b.raw").read_bytes() == pattern(2, 8192)


def test_a_file_that_goes(store, mount):
    (store / "b.raw").write_bytes(pattern(2, 8192))
    views = mount(store)
    assert (views / "b.raw").exists()
    os.unlink(store / "b.raw")
    eventually(lambda: views.names() == views_of("a"))
    eventually(lambda: not (views / "b.raw").exists())
    assert refusal(os.open, views / "b.raw", os.O_RDONLY) == "ENOENT"


def test_a_file_that_is_renamed(store, mount):
    views = mount(store)
    assert (views / "a.raw").exists()
    os.rename(store / "a.raw", store / "z.raw")
    eventually(lambda: views.names() == views_of("z"))
    assert (views / "z.raw").read_bytes() == pattern(1, SIZE)


def test_a_file_that_collides_later(store, disk, mount):
    """What was a.raw's short name is not anybody's any more, and comes back."""
    views = mount(store)
    assert views.names() == views_of("a")
    disk.convert(store / "a.vmdk", "-O", "vmdk")
    whole = ["a.raw", "a.raw.qcow2", "a.raw.vmdk", "a.vmdk", "a.vmdk.qcow2", "a.vmdk.raw"]
    eventually(lambda: views.names() == whole)
    eventually(lambda: same(views / "a.vmdk", store / "a.vmdk"))
    os.unlink(store / "a.vmdk")
    eventually(lambda: views.names() == views_of("a"))


def test_directories_that_come_and_go(store, mount):
    views = mount(store)
    (store / "sub" / "deep").mkdir(parents=True)
    (store / "sub" / "deep" / "b.raw").write_bytes(pattern(3, 8192))
    eventually(lambda: (views / "sub/deep/b.raw").exists())
    assert (views / "sub/deep/b.raw").read_bytes() == pattern(3, 8192)
    os.rename(store / "sub", store / "other")
    eventually(lambda: (views / "other/deep/b.raw").exists())
    eventually(lambda: not (views / "sub").exists())
    os.unlink(store / "other/deep/b.raw")
    (store / "other/deep").rmdir()
    eventually(lambda: views.names("other") == [])


def test_a_file_that_grows_into_an_image(store, mount):
    """An upload: the file is there before its content is."""
    views = mount(store)
    whole = bytes(pattern(4, 200 * KIB))
    with open(store / "up.raw", "wb", buffering=0) as file:
        file.write(whole[:512])
        eventually(lambda: (views / "up.raw").exists())
        file.write(whole[512:])
    eventually(lambda: os.stat(views / "up.raw").st_size == len(whole))
    eventually(lambda: (views / "up.raw").read_bytes() == whole)


def test_a_listing_stays_what_it_was(store, mount):
    """Names that go while a directory is read: nothing twice, and nothing lost that is there."""
    for number in range(600):
        (store / f"f{number:04}.raw").write_bytes(b"x")
    views = mount(store)
    seen = []
    with os.scandir(views.point) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count == 10:
                for number in range(0, 600, 2):
                    os.unlink(store / f"f{number:04}.raw")
    assert len(seen) == len(set(seen))
    stay = {f"f{number:04}" for number in range(1, 600, 2)} | {"a"}
    gone = {f"f{number:04}" for number in range(0, 600, 2)}
    for stem in stay:
        assert {f"{stem}.{suffix}" for suffix in ("qcow2", "raw", "vmdk")} <= set(seen)
    assert {name.split(".")[0] for name in seen} <= stay | gone
    eventually(lambda: len(views.names()) == 3 * 301)


# ---- a new state, for who opens ----


def test_replaced(store, mount):
    """rename(2) over the old file, as uploads and qemu-img do."""
    views = mount(store)
    before = os.stat(views / "a.raw")
    assert (views / "a.raw").read_bytes() == pattern(1, SIZE)
    new = store.with_name("new")
    new.write_bytes(pattern(2, SIZE))
    images.replace(store / "a.raw", new)
    eventually(lambda: os.stat(views / "a.raw").st_ino != before.st_ino)
    assert (views / "a.raw").read_bytes() == pattern(2, SIZE)
    compare(views / "a.qcow2", "qcow2", store / "a.raw")


def test_replaced_by_another_format(store, disk, mount):
    """The same name, another kind of image: sizes, times and bytes are the new one's."""
    disk.convert(store / "disk.0", "-O", "qcow2")
    views = mount(store)
    assert (views / "disk.0.raw").read_bytes() == disk.bytes
    other = store.with_name("other")
    disk.convert(other, "-O", "vmdk")
    images.replace(store / "disk.0", other)
    eventually(lambda: os.stat(views / "disk.0.vmdk").st_size == other.stat().st_size)
    eventually(lambda: same(views / "disk.0.vmdk", other))
    assert (views / "disk.0.raw").read_bytes() == disk.bytes
    check(views / "disk.0.qcow2", "qcow2")


def test_rewritten_in_place(store, mount):
    views = mount(store)
    assert (views / "a.raw").read_bytes() == pattern(1, SIZE)  # all of it is in the page cache
    images.poke(store / "a.raw", 0, pattern(5, SIZE))
    eventually(lambda: (views / "a.raw").read_bytes() == pattern(5, SIZE))


def test_rewritten_with_the_old_time(store, mount):
    """touch -d cannot hide a change: the change time tells."""
    views = mount(store)
    assert (views / "a.raw").read_bytes() == pattern(1, SIZE)
    st = os.stat(store / "a.raw")
    images.poke(store / "a.raw", 5 * MIB, b"changed")
    os.utime(store / "a.raw", ns=(st.st_atime_ns, st.st_mtime_ns))
    eventually(lambda: (views / "a.raw").read_bytes()[5 * MIB :][:7] == b"changed")
    assert os.stat(views / "a.raw").st_mtime_ns == st.st_mtime_ns


def test_a_base_that_is_rewritten(datastore, mount):
    images.create(datastore / "web-base.qcow2", "4M")
    run("qemu-io", "-c", "write -P 1 0 1M", datastore / "web-base.qcow2")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    views = mount(datastore)
    assert (views / "web.raw").read_bytes()[:4] == b"\1\1\1\1"
    run("qemu-io", "-c", "write -P 2 0 1M", "-c", "write -P 3 2M 64k", datastore / "web-base.qcow2")
    eventually(lambda: (views / "web.raw").read_bytes()[:4] == b"\2\2\2\2")
    assert (views / "web.raw").read_bytes()[2 * MIB :][:4] == b"\3\3\3\3"
    compare(views / "web.qcow2", "qcow2", views / "web.raw")


def test_an_extent_that_is_rewritten(datastore, disk, mount):
    disk.convert(datastore / "d.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
    views = mount(datastore)
    assert (views / "d.raw").read_bytes() == disk.bytes
    images.poke(datastore / "d-flat.vmdk", 0, b"changed")
    eventually(lambda: (views / "d.raw").read_bytes()[:7] == b"changed")


def test_one_that_breaks_and_is_mended(datastore, disk, mount):
    disk.convert(datastore / "a.qcow2", "-O", "qcow2")
    views = mount(datastore)
    assert views.names() == views_of("a")
    images.poke(datastore / "a.qcow2", 72, b"\xff")
    eventually(lambda: views.names() == [])
    eventually(lambda: not (views / "a.raw").exists())
    images.poke(datastore / "a.qcow2", 72, b"\0")
    eventually(lambda: views.names() == views_of("a"), 6)
    assert (views / "a.raw").read_bytes() == disk.bytes


# ---- the old state, for who has it open ----

# How a source changes under an open handle
CHANGES = {
    "rewritten": lambda path: images.poke(path, 9 * MIB, pattern(7, 4096)),
    "truncated": lambda path: os.truncate(path, 5 * MIB),
    "extended": lambda path: os.truncate(path, SIZE + 4096),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced": lambda path: replace_by(path, pattern(8, SIZE)),
    "unlinked": os.unlink,
    "touched": os.utime,
}


def replace_by(path, data):
    new = path.with_name(".new")
    new.write_bytes(data)
    os.rename(new, path)


def changed(path, how):
    """Changes the file so that its time stamps cannot be the old ones."""
    time.sleep(0.03)
    CHANGES[how](path)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("how", CHANGES)
def test_an_open_handle_is_stale(store, mount, view, how):
    """Never the old and the new in one file: what was not read before the change fails."""
    views = mount(store)
    path = views / f"a.{view}"
    fd = os.open(path, os.O_RDONLY)
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        first = os.pread(fd, 4096, 1 * MIB)
        assert len(first) == 4096
        changed(store / "a.raw", how)
        assert refusal(os.pread, fd, 4096, 12 * MIB) == "ESTALE"
        assert refusal(os.pread, direct, 4096, 0) == "ESTALE"
        assert refusal(os.pread, direct, 4096, 1 * MIB) == "ESTALE"
        assert refusal(os.lseek, fd, 0, os.SEEK_DATA) == "ESTALE"
    finally:
        os.close(fd)
        os.close(direct)
    if how == "unlinked" or (how, view) == ("emptied", "vmdk"):  # no VMDK is empty
        eventually(lambda: not path.exists())
    else:
        eventually(lambda: (views / "a.raw").read_bytes() == (store / "a.raw").read_bytes())
        compare(path, view, store / "a.raw")


@pytest.mark.parametrize("how", ["rewritten", "truncated"])
def test_a_packed_source_is_stale_too(datastore, disk, mount, how):
    """What was unpacked before the change is not served from the cache after it."""
    disk.convert(datastore / "a.qcow2", "-O", "qcow2", "-c")
    views = mount(datastore)
    fd = os.open(views / "a.raw", os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(fd, 4096, 12 * MIB) == disk.bytes[12 * MIB :][:4096]
        time.sleep(0.03)
        if how == "truncated":
            os.truncate(datastore / "a.qcow2", 512)
        else:
            size = (datastore / "a.qcow2").stat().st_size
            images.poke(datastore / "a.qcow2", size - 100, b"x" * 50)
        assert refusal(os.pread, fd, 4096, 12 * MIB) == "ESTALE"
        assert refusal(os.pread, fd, 4096, 12 * MIB + 4096) == "ESTALE"
    finally:
        os.close(fd)


def test_a_chain_is_stale_when_its_base_changes(datastore, mount):
    images.create(datastore / "web-base.qcow2", "4M")
    run("qemu-io", "-c", "write -P 1 0 1M", datastore / "web-base.qcow2")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    run("qemu-io", "-c", "write -P 2 2M 1M", datastore / "web.qcow2")
    views = mount(datastore)
    fd = os.open(views / "web.raw", os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(fd, 4096, 2 * MIB) == b"\2" * 4096
        time.sleep(0.03)
        os.utime(datastore / "web-base.qcow2")
        assert refusal(os.pread, fd, 4096, 2 * MIB) == "ESTALE"
    finally:
        os.close(fd)


@pytest.mark.parametrize("view", VIEWS)
def test_cached_pages_are_stale_too(store, mount, view):
    """What the kernel has read already it asks about again, before it hands that out."""
    time.sleep(3.1)  # what has changed just now is not kept at all
    views = mount(store)
    fd = os.open(views / f"a.{view}", os.O_RDONLY)
    try:
        body = os.pread(fd, 64 * KIB, 0)
        assert os.pread(fd, 64 * KIB, 0) == body
        os.utime(store / "a.raw")
        eventually(lambda: is_stale(fd))
        assert refusal(os.pread, fd, 64 * KIB, 0) == "ESTALE"
        assert refusal(os.pread, fd, 1, 17) == "ESTALE"
    finally:
        os.close(fd)


def is_stale(fd):
    try:
        os.pread(fd, 4096, 0)
    except OSError as e:
        return e.errno == errno.ESTALE
    return False


def test_mapped_pages_end_in_a_signal_not_in_a_mixture(store, mount):
    """A mapping that meets a page of the new state gets SIGBUS, which is what mmap(2) has."""
    views = mount(store)
    script = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
m[0]
os.utime(sys.argv[2])
m[12 << 20]
"""
    done = run("/usr/bin/python3", "-c", script, views / "a.qcow2", store / "a.raw", check=False)
    assert done.returncode == -7
    assert views.process.poll() is None
    assert (views / "a.raw").exists()


def test_a_copy_that_meets_a_change_fails(store, mount, tmp_path):
    """The tool exits with an error; nobody takes half a copy for a whole one."""
    os.truncate(store / "a.raw", 3000 * MIB)
    images.poke(store / "a.raw", 2990 * MIB, b"end")
    views = mount(store)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = ["dd", f"if={views / 'a.raw'}", f"of={fifo}", "bs=64k", "status=none"]
    copier = subprocess.Popen(command, stderr=subprocess.PIPE)
    with open(fifo, "rb", buffering=0) as file:
        file.read(64 * KIB)
        os.utime(store / "a.raw")
        while file.read(1 << 20):
            pass
    _, said = copier.communicate(timeout=60)
    assert copier.returncode != 0
    assert os.strerror(errno.ESTALE) in said.decode()


def test_every_read_has_one_state(store, mount):
    """The file is rewritten with a new stamp over and over; no read shows two of them."""
    blocks = 64
    path = store / "stamp.raw"
    path.write_bytes(bytes(blocks * 4096))
    views = mount(store)
    stop = threading.Event()

    def write():
        stamp = 0
        while not stop.is_set():
            if stamp % 16 == 0:
                time.sleep(0.05)  # an open waits until the last change is 20 ms old
            stamp = stamp % 255 + 1
            path_new = store / ".stamp"
            path_new.write_bytes(bytes([stamp]) * (blocks * 4096))
            os.rename(path_new, path)
            time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    outcome = {"one": 0, "stale": 0}
    try:
        limit = time.monotonic() + 4
        while time.monotonic() < limit:
            try:
                with open(views / "stamp.raw", "rb", buffering=0) as file:
                    body = file.read(blocks * 4096) + file.read(blocks * 4096)
            except OSError as e:
                assert e.errno in (errno.ESTALE, errno.ENOENT), e
                outcome["stale"] += 1
                continue
            assert len(body) == blocks * 4096
            assert len(set(body)) == 1, set(body)
            outcome["one"] += 1
    finally:
        stop.set()
        writer.join()
    assert outcome["one"] > 20, outcome
