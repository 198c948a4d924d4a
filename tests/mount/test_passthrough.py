# SPDX-License-Identifier: Apache-2.0
"""zero_copy of a view that is its source: the kernel reads it from there, and imgfs sees no read.

/proc/PID/io counts how often imgfs has called read(2) and its like, which it does for each request:
reads in pieces of 16 KiB, without readahead, make hundreds of them, or none."""

import mmap
import os
import random
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import images
from fixtures import plain_only, require_programs
from mounting import mounted_at
from test_read import ALL, drop_pages
from test_sandbox import companion, readable_everywhere
from tools import KIB, MIB, data_ranges, eventually, pattern, refusal, run

pytestmark = [plain_only, pytest.mark.feature("passthrough")]

SIZE = 4 * MIB
PIECE = 16 * KIB
FEW = 100  # calls of read(2): to look a name up, recognise its image, open and close it


@pytest.fixture
def store(datastore):
    (datastore / "a.raw").write_bytes(pattern(1, SIZE))
    os.chmod(datastore / "a.raw", 0o644)
    return datastore


def calls(views):
    return int(re.search(r"syscr: (\d+)", Path(f"/proc/{views.process.pid}/io").read_text())[1])


def pieces(fd):
    drop_pages(fd)
    size = os.fstat(fd).st_size
    return b"".join(os.pread(fd, PIECE, offset) for offset in range(0, size, PIECE))


def read_counted(views, name):
    """The bytes of the view, and how often imgfs has read for them."""
    before = calls(views)
    with open(views / name, "rb", buffering=0) as file:
        return pieces(file.fileno()), calls(views) - before


# ---- who reads ----


def test_the_kernel_reads_what_is_its_source(sample, mount):
    views = mount(sample.datastore, "zero_copy")
    for name in ALL:
        data, count = read_counted(views, name)
        assert data == (sample.mount / name).read_bytes(), name
        if name in images.IDENTITY:
            assert data == (sample.datastore / name).read_bytes()
            assert count < FEW, name
        else:
            assert count >= len(data) // PIECE, name
    assert views.log_events() == []


def test_imgfs_reads_without_zero_copy(store, mount):
    data, count = read_counted(mount(store), "a.raw")
    assert data == pattern(1, SIZE)
    assert count >= SIZE // PIECE > FEW


WAYS = ["sandbox=off", "run_as=nobody", "run_as=nobody,sandbox=off", "clone_fd", "max_threads=1"]


@pytest.mark.parametrize("way", WAYS)
def test_in_every_way(store, mount, way):
    readable_everywhere(store / "x")
    views = mount(store, "zero_copy", way)
    data, count = read_counted(views, "a.raw")
    assert data == pattern(1, SIZE)
    if way == "run_as=nobody,sandbox=off":
        # There is a companion then too, so there is somebody with the right.
        assert views.log_events() == []
    assert count < FEW
    assert (views / "a.qcow2").stat().st_size > SIZE
    views.signal(signal.SIGTERM)
    assert views.wait() == 0
    assert not mounted_at(views.point)


def test_one_thread(store, mount):
    data, count = read_counted(mount(store, "zero_copy", args=["-s"]), "a.raw")
    assert data == pattern(1, SIZE) and count < FEW


def test_direct_io(store, mount):
    """As the source has it, down to what it wants aligned."""
    views = mount(store, "zero_copy")
    before = calls(views)
    fd = os.open(views / "a.raw", os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(-1, PIECE)
    for offset in range(0, SIZE, PIECE):
        assert os.preadv(fd, [memory], offset) == PIECE
        assert memory[:] == pattern(1, SIZE)[offset : offset + PIECE]
    os.close(fd)
    assert calls(views) - before < FEW


def test_a_mapping_outlives_its_descriptor(store, mount):
    views = mount(store, "zero_copy")
    before = calls(views)
    fd = os.open(views / "a.raw", os.O_RDONLY)
    memory = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
    os.close(fd)
    memory.madvise(mmap.MADV_RANDOM)
    assert memory[:] == pattern(1, SIZE)
    memory.close()
    assert calls(views) - before < FEW


def test_holes_and_sizes(sample, mount):
    """imgfs is still asked for all but the bytes."""
    views = mount(sample.datastore, "zero_copy")
    for name in sorted(images.IDENTITY):
        assert data_ranges(views / name) == data_ranges(sample.mount / name)
        with open(views / name, "rb") as file:
            one, other = os.fstat(file.fileno()), os.stat(sample.mount / name)
            assert (one.st_ino, one.st_size, one.st_mtime_ns, one.st_blocks) == (
                (other.st_ino, other.st_size, other.st_mtime_ns, other.st_blocks)
            )


def test_it_stays_read_only(store, mount):
    views = mount(store, "zero_copy")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert refusal(os.open, views / "a.raw", flags) == "EROFS"
    run("mount", "-o", "remount,rw", views.point, check=False)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert refusal(os.open, views / "a.raw", flags) == "EROFS"
    assert (store / "a.raw").read_bytes() == pattern(1, SIZE)


# ---- many opens of one view ----


@pytest.fixture
def orders(tmp_path):
    """orders(VIEWS): a list of what the companion is told, by strace; stop() ends it."""
    require_programs("strace")
    tracers = []

    def trace(views):
        pid = companion(views.process.pid)
        path = tmp_path / f"orders{len(tracers)}"
        command = ["strace", "-qq", "-e", "trace=ioctl", "-o", path, "-p", str(pid)]
        tracers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        eventually(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), 10)
        return lambda: re.findall(r"BACKING_(OPEN|CLOSE), \S+\) = (-?\d+)", path.read_text())

    yield trace
    for tracer in tracers:
        tracer.terminate()
        tracer.wait()


def test_opens_share_a_registration(store, mount, orders):
    views = mount(store, "zero_copy")
    told = orders(views)
    first, second = (os.open(views / "a.raw", os.O_RDONLY) for _ in range(2))
    third = os.open(views / "a.raw", os.O_RDONLY | os.O_DIRECT)
    assert [kind for kind, _ in told()] == ["OPEN"]
    before = calls(views)
    for fd, later in ((first, second), (third, second)):
        os.close(fd)
        assert pieces(later) == pattern(1, SIZE)
    assert calls(views) - before < FEW
    os.close(second)
    eventually(lambda: [kind for kind, _ in told()] == ["OPEN", "CLOSE"])
    with open(views / "a.raw", "rb"):
        assert [kind for kind, _ in told()] == ["OPEN", "CLOSE", "OPEN"]
    eventually(lambda: len(told()) == 4)
    assert all(int(result) >= 0 for _, result in told())


def test_many_open_and_close_it(sample, mount, orders):
    """Opens that come while the last handle goes: none fails, none is left registered."""
    views = mount(sample.datastore, "zero_copy")
    told = orders(views)
    names = ["plain.raw", "normal.qcow2", "normal.raw"]
    known = {name: (sample.mount / name).read_bytes() for name in names}

    def visit(seed):
        rng = random.Random(seed)
        for _ in range(150):
            name = rng.choice(names)
            offset = rng.randrange(len(known[name]))
            with open(views / name, "rb", buffering=0) as file:
                if os.pread(file.fileno(), 9000, offset) != known[name][offset : offset + 9000]:
                    return name, offset
        return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(8))) == [None] * 8
    eventually(lambda: len(told()) % 2 == 0 and len(told()) > 100)
    kinds = [kind for kind, _ in told()]
    eventually(lambda: kinds.count("OPEN") == kinds.count("CLOSE"))
    assert all(int(result) >= 0 for _, result in told())


# ---- when the source changes: not promised with zero_copy ----


def test_what_is_written_to_the_source_shows(store, mount):
    """At once and without an error through what is open; a new open has the new state."""
    views = mount(store, "zero_copy")
    with open(views / "a.raw", "rb", buffering=0) as file:
        images.poke(store / "a.raw", MIB, b"new" * 1000)
        assert os.pread(file.fileno(), 3000, MIB) == b"new" * 1000
        assert os.pread(file.fileno(), MIB, 0) == pattern(1, SIZE)[:MIB]
        images.poke(store / "a.raw", SIZE, b"more")
        new = (store / "a.raw").read_bytes()
        eventually(lambda: (views / "a.raw").read_bytes() == new)


def test_a_source_that_is_replaced_or_removed_stays_as_it_was(store, mount, tmp_path):
    views = mount(store, "zero_copy")
    with open(views / "a.raw", "rb", buffering=0) as file:
        (tmp_path / "new").write_bytes(pattern(2, MIB))
        images.replace(store / "a.raw", tmp_path / "new")
        assert os.pread(file.fileno(), SIZE, 0) == pattern(1, SIZE)
        eventually(lambda: (views / "a.raw").read_bytes() == pattern(2, MIB))
        (store / "a.raw").unlink()
        eventually(lambda: "a.raw" not in views.names())
        assert os.pread(file.fileno(), SIZE, 0) == pattern(1, SIZE)


def test_a_source_that_is_cut_reads_short(store, mount):
    views = mount(store, "zero_copy")
    with open(views / "a.raw", "rb", buffering=0) as file:
        os.truncate(store / "a.raw", MIB)
        assert os.pread(file.fileno(), SIZE, 0) == pattern(1, SIZE)[:MIB]


# ---- where it cannot be: ordinary replies, and one line ----


def assert_falls_back(views, reason):
    for _ in range(3):
        with open(views / "a.raw", "rb", buffering=0) as first:
            drop_pages(first.fileno())
            assert (views / "a.raw").read_bytes() == pattern(1, SIZE)
            assert os.pread(first.fileno(), SIZE, 0) == pattern(1, SIZE)
    (line,) = views.log_events()
    assert line == f"imgfs: zero_copy without passthrough: {reason}"


def test_on_a_stacked_file_system(datastore, mount, tmp_path):
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "a.raw").write_bytes(pattern(1, SIZE))
    layers = ",".join(f"{n}dir={tmp_path}/{n}" for n in ("lower", "upper", "work"))
    run("mount", "-t", "overlay", "-o", layers, "none", datastore)
    try:
        views = mount(datastore, "zero_copy")
        assert_falls_back(views, "the datastore's file system stands on another one")
        assert views.unmount() == 0
    finally:
        run("umount", datastore)


def test_without_direct_io(datastore, mount):
    """ramfs has none; whoever asks a view for it gets it from imgfs."""
    run("mount", "-t", "ramfs", "none", datastore)
    try:
        (datastore / "a.raw").write_bytes(pattern(1, SIZE))
        views = mount(datastore, "zero_copy")
        assert_falls_back(views, "Invalid argument")
        fd = os.open(views / "a.raw", os.O_RDONLY | os.O_DIRECT)
        memory = mmap.mmap(-1, MIB)
        assert os.preadv(fd, [memory], 0) == MIB
        assert memory[:] == pattern(1, SIZE)[:MIB]
        os.close(fd)
        assert views.unmount() == 0
    finally:
        run("umount", datastore)


def test_an_overlay_can_be_put_on_the_mount(store, mount, tmp_path):
    views = mount(store, "zero_copy")
    for name in ("upper", "work", "over"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={views.point},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    run("mount", "-t", "overlay", "-o", layers, "none", tmp_path / "over")
    try:
        assert (tmp_path / "over" / "a.raw").read_bytes() == pattern(1, SIZE)
        (tmp_path / "over" / "a.raw").write_bytes(b"written")
        assert (tmp_path / "over" / "a.raw").read_bytes() == b"written"
    finally:
        run("umount", tmp_path / "over")
    assert (store / "a.raw").read_bytes() == pattern(1, SIZE)


def test_without_the_companion(store, mount):
    """What it has registered stays so; what is opened afterwards is read by imgfs."""
    views = mount(store, "zero_copy")
    (store / "b.raw").write_bytes(pattern(2, MIB))
    views.expect_log("zero_copy without passthrough: Input/output error|cannot unmount")
    with open(views / "a.raw", "rb", buffering=0) as file:
        os.kill(companion(views.process.pid), signal.SIGKILL)
        assert (views / "b.raw").read_bytes() == pattern(2, MIB)
        before = calls(views)
        with open(views / "a.raw", "rb", buffering=0) as other:
            for fd in (file.fileno(), other.fileno()):
                assert pieces(fd) == pattern(1, SIZE)
        assert calls(views) - before < FEW
    # Once imgfs has heard that both are closed.
    eventually(lambda: read_counted(views, "a.raw")[1] >= SIZE // PIECE)
    assert len(views.log_lines("without passthrough")) == 1


def test_a_containers_root(imgfs, store, tmp_path):
    """Root of a user namespace may mount, and may not register files."""
    (tmp_path / "point").mkdir()
    script = """
        "$IMGFS_BINARY" -o zero_copy "$STORE" "$POINT" -f 2>"$LOG" &
        for i in $(seq 100); do test -e "$POINT/a.raw" && break; sleep 0.05; done
        cmp "$POINT/a.raw" "$STORE/a.raw"
        umount "$POINT"
        wait
    """
    variables = {"IMGFS_BINARY": imgfs, "STORE": store, "POINT": tmp_path / "point"}
    variables["LOG"] = tmp_path / "log"
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    run("unshare", "-Urm", "sh", "-euc", script, env=environment)
    lines = re.findall(r".*passthrough.*", (tmp_path / "log").read_text())
    assert lines == ["imgfs: zero_copy without passthrough: the kernel lets only its own root have it"]


# ---- the companion ----


def test_the_companion_has_the_connection(store, mount):
    pid = companion(mount(store, "zero_copy").process.pid)
    eventually(lambda: "Seccomp" in Path(f"/proc/{pid}/status").read_text())
    links = sorted(os.readlink(fd).split(":")[0] for fd in Path(f"/proc/{pid}/fd").iterdir())
    assert links == ["/dev/fuse", "/dev/null", "/dev/null", "/dev/null", "socket"]


def test_a_killed_server_leaves_no_connection(store, mount):
    """The companion has it open too, and must not keep a mount alive that nobody serves."""
    views = mount(store, "zero_copy")
    pid = companion(views.process.pid)
    fd = os.open(views / "a.raw", os.O_RDONLY)
    views.works = False
    views.signal(signal.SIGKILL)
    views.wait()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert refusal(os.listdir, views.point) == "ENOTCONN"
    # The kernel needs nobody for this one; but to hear that it is closed there is nobody.
    assert os.pread(fd, SIZE, 0) == pattern(1, SIZE)
    assert refusal(os.close, fd) == "ENOTCONN"
    run("umount", views.point)
