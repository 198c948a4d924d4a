# SPDX-License-Identifier: Apache-2.0
"""Requests by io_uring: libfuse makes a ring and a thread for each processor when the kernel says
that it has them, inside of the sandbox.

Debian's libfuse has the option and is built without rings. IMGFS_RING_LIBFUSE is the directory of
one that is built with them; scripts/newer makes it."""

import os
import pwd
import random
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures import plain_only, require, require_programs
from mounting import mounted_at
from test_read import ALL, READ_WHILE_KILLED, SOME, random_reads
from test_sandbox import DAC_READ_SEARCH, capabilities, readable_everywhere, statuses
from tools import MIB, VIEWS, pattern, run, same

pytestmark = [plain_only, pytest.mark.feature("io_uring")]

USAGE = 1
SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
LIBRARY = {k: v for k, v in {"LD_LIBRARY_PATH": os.environ.get("IMGFS_RING_LIBFUSE")}.items() if v}


@pytest.fixture
def switch():
    """switch("Y"), switch("N"): whether the kernel has rings; as it was afterwards."""
    require(SWITCH.exists(), "a kernel with FUSE over io_uring")
    before = SWITCH.read_text()
    yield SWITCH.write_text
    SWITCH.write_text(before)


@pytest.fixture
def ring_mount(mount, switch):
    """mount() with io_uring, in a kernel that has it."""
    switch("Y")

    def start(source, *options, **kw):
        views = mount(source, "io_uring", *options, env=LIBRARY, **kw)
        require("built without it" not in views.log(), "a libfuse with io_uring")
        return views

    return start


def rings(views):
    """Rings of the process, and threads that serve one."""
    made = 0
    for fd in Path(f"/proc/{views.process.pid}/fd").iterdir():
        made += os.readlink(fd) == "anon_inode:[io_uring]"
    tasks = Path(f"/proc/{views.process.pid}/task").iterdir()
    served = sum((task / "comm").read_text().startswith("fuse-ring-") for task in tasks)
    return made, served


def assert_rings(views):
    count = os.sysconf("SC_NPROCESSORS_CONF")
    assert rings(views) == (count, count)
    assert views.log_lines("io_uring|io-uring") == []


def ring_seconds(views):
    """Time in clock ticks that the threads of the rings have worked."""
    ticks = 0
    for task in Path(f"/proc/{views.process.pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(") ")
        if name.startswith("fuse-ring-"):
            ticks += sum(map(int, rest.split()[11:13]))
    return ticks


# ---- rings ----


def test_eight_readers(sample, ring_mount):
    """Every view is right, and it is the rings' threads that have done it."""
    views = ring_mount(sample.datastore)
    assert_rings(views)
    known = {name: (sample.mount / name).read_bytes() for name in ALL}

    def tour(seed):
        order = random.Random(seed).sample(ALL, len(ALL))
        return [random_reads(views / name, known[name], seed, 30) for name in order]

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(tour, range(8)):
            assert result == [None] * len(ALL)
    for name in ALL:
        assert same(views / name, sample.mount / name)
    assert ring_seconds(views) > 0
    assert views.log_events() == []


WAYS = ["sandbox=off", "io_uring_q_depth=1", "io_uring_q_depth=64", "zero_copy", "clone_fd"]
WAYS += ["max_threads=1", "run_as=nobody", "cache_size=1M"]


@pytest.mark.parametrize("way", WAYS)
def test_in_every_way(datastore, disk, ring_mount, way):
    readable_everywhere(datastore / "x")
    disk.convert(datastore / "a.qcow2", "-O", "qcow2", "-c")
    (datastore / "b.raw").write_bytes(pattern(1, 4 * MIB))
    for path in datastore.iterdir():
        os.chmod(path, 0o644)
    views = ring_mount(datastore, way)
    assert_rings(views)
    assert (views / "a.raw").read_bytes() == disk.bytes
    assert (views / "b.raw").read_bytes() == pattern(1, 4 * MIB)
    command = ["cp", views / "a.vmdk", views / "b.qcow2", datastore.parent]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert views.names() == sorted(f"{stem}.{view}" for stem in "ab" for view in VIEWS)
    assert views.unmount() == 0
    assert views.log_events() == []


def test_one_thread(sample, ring_mount):
    views = ring_mount(sample.datastore, args=["-s"])
    assert_rings(views)
    for name in SOME:
        assert same(views / name, sample.mount / name)


def test_a_process_that_is_kept_to_one_processor(imgfs, sample, ring_mount, tmp_path):
    """The kernel waits for the rings of all processors, so libfuse must learn how many there are
    in the sandbox, too; what it may run on says something else."""
    require_programs("taskset")
    program = tmp_path / "imgfs"
    program.write_text(f'#!/bin/sh\nexec taskset -c 0 {imgfs} "$@"\n')
    program.chmod(0o755)
    views = ring_mount(sample.datastore, program=program)
    assert_rings(views)
    assert same(views / "packed.raw", sample.mount / "packed.raw")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it(sample, ring_mount, number):
    views = ring_mount(sample.datastore)
    assert_rings(views)
    views.signal(number)
    assert views.wait() == 0
    assert not mounted_at(views.point)


def test_readers_that_are_killed(sample, ring_mount):
    views = ring_mount(sample.datastore)
    whole = (sample.mount / "packed.raw").read_bytes()
    command = [sys.executable, "-c", READ_WHILE_KILLED, views / "packed.raw"]
    for _ in range(5):
        readers = [subprocess.Popen(command) for _ in range(4)]
        assert random_reads(views / "packed.raw", whole, 7, 60) is None
        for reader in readers:
            reader.kill()
            reader.wait()
    assert same(views / "packed.raw", sample.mount / "packed.raw")


# ---- the sandbox ----


@pytest.mark.parametrize("user", [None, "nobody"])
def test_every_thread_is_confined(datastore, ring_mount, user):
    readable_everywhere(datastore / "x")
    (datastore / "a.raw").write_bytes(pattern(1, MIB))
    os.chmod(datastore / "a.raw", 0o644)
    views = ring_mount(datastore, *([f"run_as={user}"] if user else []))
    assert (views / "a.raw").read_bytes() == pattern(1, MIB)
    assert_rings(views)
    for status in statuses(views.process.pid):
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        kept = capabilities(status, ("CapPrm", "CapEff", "CapBnd"))
        assert set(kept.values()) == {0 if user else DAC_READ_SEARCH}
        assert int(status["Uid"].split()[0]) == (pwd.getpwnam(user).pw_uid if user else 0)


def test_limits(datastore, ring_mount):
    count = os.sysconf("SC_NPROCESSORS_CONF")
    plain, deep = ring_mount(datastore), ring_mount(datastore, "io_uring_q_depth=200")
    sizes = []
    for views in (plain, deep):
        limits = Path(f"/proc/{views.process.pid}/limits").read_text()
        assert re.search(rf"Max open files +{512 + 2 * count} ", limits)
        sizes.append(int(re.search(r"Max data size +(\d+)", limits)[1]))
    assert sizes[1] - sizes[0] == count * (200 - 8) * 2 * MIB
    assert_rings(deep)


# ---- where there are none ----


def assert_says(views, sample, reason):
    """Ordinary requests, and one line."""
    assert rings(views) == (0, 0)
    for name in SOME:
        assert same(views / name, sample.mount / name)
    (line,) = views.log_lines("io_uring")
    assert line.startswith(f"imgfs: io_uring is not used: {reason}")


@pytest.mark.parametrize("library", [{}, LIBRARY], ids=["debian", "rings"])
def test_a_kernel_that_has_it_off(sample, mount, switch, library):
    switch("N")
    views = mount(sample.datastore, "io_uring", env=library)
    assert_says(views, sample, "this kernel does not have it")


def test_a_libfuse_that_is_built_without(sample, mount, switch):
    """Debian's, for now. Once it has rings, they are used."""
    switch("Y")
    views = mount(sample.datastore, "io_uring")
    if rings(views) == (0, 0):
        views.expect_log("failed to start io-uring")
        assert_says(views, sample, "this libfuse was built without it")
    else:
        assert_rings(views)


def test_rings_that_cannot_be_made(imgfs, sample, ring_mount, tmp_path):
    program = tmp_path / "imgfs"
    program.write_text(f'#!/bin/sh\nulimit -v $((900 * 1024))\nexec {imgfs} "$@"\n')
    program.chmod(0o755)
    views = ring_mount(sample.datastore, "io_uring_q_depth=1000", program=program)
    views.expect_log("qid=|io-uring|ring|eventfd|memory")
    assert_says(views, sample, "libfuse could not start it")


def test_not_asked_for(sample, mount, switch):
    switch("Y")
    views = mount(sample.datastore, env=LIBRARY)
    assert rings(views) == (0, 0)
    assert views.log_events() == []


@pytest.mark.parametrize("value", ["0", "x", "-1", "1025", ""])
def test_bad_depths(imgfs, datastore, tmp_path, value):
    (tmp_path / "point").mkdir()
    options = f"io_uring,io_uring_q_depth={value}"
    done = run(imgfs, "-o", options, datastore, tmp_path / "point", check=False)
    assert done.returncode == USAGE and "io_uring_q_depth" in done.err
    assert not mounted_at(tmp_path / "point")
