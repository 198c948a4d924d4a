# SPDX-License-Identifier: Apache-2.0
"""The confined process: what it has given up, that it still works, and that it ends in order."""

import os
import pwd
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import plain_only, require_programs
from mounting import mounted_at
from tools import MIB, VIEWS, eventually, pattern, refusal, run

pytestmark = plain_only

OK, USAGE, SYSTEM = 0, 1, 2
DAC_READ_SEARCH = 1 << 2
SYS_ADMIN = 1 << 21
NAMES = [f"a.{view}" for view in VIEWS]


@pytest.fixture
def store(datastore):
    (datastore / "a.raw").write_bytes(pattern(1, 4 * MIB))
    return datastore


@pytest.fixture
def point(tmp_path):
    directory = tmp_path / "point"
    directory.mkdir()
    return directory


def statuses(pid):
    """/proc/PID/status of every thread, as dictionaries."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        yield {k: v.strip() for k, v in (line.split(":", 1) for line in lines)}


def capabilities(status, sets=("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
    return {name: int(status[name], 16) for name in sets}


def companion(pid):
    """The process beside the server that unmounts."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "imgfs-companion\n")
    return int(child)


def readable_everywhere(path):
    """The tests' own directory is closed to other users; what is mounted from here is not."""
    for parent in path.parents:
        if not os.stat(parent).st_mode & 0o005:
            os.chmod(parent, os.stat(parent).st_mode | 0o055)


# ---- what is given up ----


def test_selftest(imgfs, store, point):
    done = run(imgfs, "-f", "-o", "sandbox_selftest", store, point)
    lines = done.out.splitlines()
    assert len(lines) >= 16
    assert [line for line in lines if "refused: " not in line] == []
    for word in ("outside", "socket", "execute", "trace", "create a file in the datastore"):
        assert any(word in line for line in lines)
    assert not mounted_at(point)
    assert sorted(os.listdir(store)) == ["a.raw"]


def test_selftest_as_another_user(imgfs, store, point):
    done = run(imgfs, "-f", "-o", "sandbox_selftest,run_as=nobody", store, point)
    assert [line for line in done.out.splitlines() if "refused: " not in line] == []


def test_selftest_tells_when_there_is_no_sandbox(imgfs, store, point):
    """It is no list of words: without the sandbox everything in it succeeds."""
    done = run(imgfs, "-f", "-o", "sandbox_selftest,sandbox=off", store, point, check=False)
    assert done.returncode == SYSTEM
    assert "refused: " not in done.out
    assert len(done.out.splitlines()) >= 16
    assert not mounted_at(point)
    assert sorted(os.listdir(store)) == ["a.raw"]


def test_every_thread_is_confined(store, mount):
    views = mount(store)
    for name in NAMES:
        (views / name).read_bytes()
    found = list(statuses(views.process.pid))
    assert len(found) > 1
    for status in found:
        kept = capabilities(status)
        assert kept.pop("CapInh") == kept.pop("CapAmb") == 0
        assert set(kept.values()) == {DAC_READ_SEARCH}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_limits(store, mount):
    limits = Path(f"/proc/{mount(store).process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)
    assert re.search(r"Max open files +512 +512", limits)
    assert re.search(r"Max data size +\d+ +\d+", limits)


def test_lower_limits_stay(imgfs, store, mount, tmp_path):
    wrapper = tmp_path / "imgfs"
    wrapper.write_text(f'#!/bin/sh\nulimit -n 100\nexec {imgfs} "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "other").mkdir()
    process = subprocess.Popen([wrapper, "-f", store, tmp_path / "other"], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: mounted_at(tmp_path / "other"), 10)
        eventually(lambda: list(statuses(process.pid))[0]["Seccomp"] == "2")
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max open files +100 +100", limits)
    finally:
        run("umount", tmp_path / "other")
        assert process.wait(timeout=10) == OK


def test_off(store, mount):
    views = mount(store, "sandbox=off")
    assert views.names() == NAMES
    for status in statuses(views.process.pid):
        assert status["Seccomp"] == "0" and status["NoNewPrivs"] == "0"
        assert capabilities(status)["CapEff"] & SYS_ADMIN
    assert views.log() == ""
    assert Path(f"/proc/{views.process.pid}/task/{views.process.pid}/children").read_text() == ""


@pytest.mark.parametrize("option", ["sandbox=maybe", "sandbox=", "run_as=", "run_as=no-such-user"])
def test_bad_values(imgfs, store, point, option):
    done = run(imgfs, "-o", option, store, point, check=False)
    assert done.returncode == USAGE and option.split("=")[0] in done.err
    assert not mounted_at(point)


# ---- another user ----


def test_run_as(store, mount):
    nobody = pwd.getpwnam("nobody")
    readable_everywhere(store / "x")
    (store / "secret.raw").write_bytes(pattern(2, MIB))
    os.chmod(store / "secret.raw", 0o600)
    os.chmod(store / "a.raw", 0o644)
    views = mount(store, "run_as=nobody")
    for status in statuses(views.process.pid):
        assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert set(capabilities(status).values()) == {0}
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert status["Groups"].split() in ([], [str(nobody.pw_gid)])
    assert views.names() == NAMES  # what that user cannot read is not shown
    assert (views / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    (line,) = views.log_lines("secret.raw")
    assert "Permission denied" in line
    os.chown(store / "secret.raw", nobody.pw_uid, -1)
    eventually(lambda: "secret.raw" in views.names(), 5)
    assert (views / "secret.raw").read_bytes() == pattern(2, MIB)
    assert views.unmount() == OK


def test_run_as_without_the_sandbox(store, mount):
    """Two options: one says who, the other how."""
    readable_everywhere(store / "x")
    os.chmod(store / "a.raw", 0o644)
    views = mount(store, "run_as=nobody,sandbox=off")
    assert views.names() == NAMES
    for status in statuses(views.process.pid):
        assert int(status["Uid"].split()[0]) == pwd.getpwnam("nobody").pw_uid
        assert status["Seccomp"] == "0"
    views.signal(signal.SIGTERM)
    assert views.wait() == OK
    assert not mounted_at(views.point)


def test_run_as_is_for_root(imgfs, store, point):
    require_programs("setpriv")
    readable_everywhere(store / "x")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = run(*user, imgfs, "-o", "run_as=root", store, point, check=False)
    assert done.returncode == USAGE and "run_as" in done.err


def test_a_step_that_fails_is_told_and_ends_it(imgfs, store, point):
    """In the background too: the caller gets the status and the reason, nothing stays."""
    require_programs("setpriv")
    lame = ("setpriv", "--inh-caps=-setuid", "--bounding-set=-setuid")
    for switches in ([], ["-f"]):
        done = run(*lame, imgfs, *switches, "-o", "run_as=nobody", store, point, check=False)
        assert done.returncode == SYSTEM
        assert "confining" in done.err and "cannot become user" in done.err
        assert not mounted_at(point)


# ---- it still works ----

WAYS = ["", "clone_fd", "zero_copy", "max_threads=1", "max_threads=40", "cache_size=1M"]


@pytest.mark.parametrize("way", WAYS)
def test_works_every_way(store, disk, mount, way):
    disk.convert(store / "b.qcow2", "-O", "qcow2", "-c")
    disk.convert(store / "c.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized")
    views = mount(store, *([way] if way else []))
    for name in ("b.raw", "c.raw"):
        assert (views / name).read_bytes() == disk.bytes
    copies = [subprocess.Popen(["cp", views / n, f"{store}-{n}"]) for n in ("a.vmdk", "b.vmdk", "c.qcow2")]
    assert [copy.wait(timeout=60) for copy in copies] == [0, 0, 0]
    assert views.unmount() == OK
    assert views.log_events() == []


def test_single_thread(store, mount):
    views = mount(store, args=["-s"])
    assert (views / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    views.signal(signal.SIGTERM)
    assert views.wait() == OK
    assert not mounted_at(views.point)


# ---- the end ----


def test_the_companion_can_unmount_and_no_more(store, mount):
    pid = companion(mount(store).process.pid)
    (status,) = statuses(pid)
    assert capabilities(status)["CapEff"] == SYS_ADMIN | DAC_READ_SEARCH
    assert status["NoNewPrivs"] == "1"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert int(status["SigIgn"], 16) >> (number - 1) & 1
    links = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert {link.split(":")[0] for link in links} == {"/dev/null", "socket"}


def test_signals_to_all_of_a_service(store, mount):
    """systemd and a terminal signal every process of a group."""
    views = mount(store)
    for pid in (companion(views.process.pid), views.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert views.wait() == OK
    assert not mounted_at(views.point)


def test_a_killed_server_takes_its_companion_along(store, mount):
    views = mount(store)
    pid = companion(views.process.pid)
    views.works = False
    views.signal(signal.SIGKILL)
    views.wait()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert refusal(os.listdir, views.point) == "ENOTCONN"
    run("umount", views.point)


def test_without_the_companion_it_still_ends(store, mount):
    """And says that the mount is still there."""
    views = mount(store)
    os.kill(companion(views.process.pid), signal.SIGKILL)
    time.sleep(0.1)
    assert (views / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    views.expect_log("cannot unmount")
    views.signal(signal.SIGTERM)
    assert views.wait() == OK
    assert views.log_lines("cannot unmount")
    run("umount", views.point)


def test_another_mount_in_its_place_is_left_alone(store, mount, tmp_path):
    """Unmounted by somebody, and something else mounted there before the process has ended."""
    views = mount(store)
    run("umount", "-l", views.point)
    run("mount", "-t", "tmpfs", "none", views.point)
    try:
        views.signal(signal.SIGTERM)
        assert views.wait() == OK
        assert mounted_at(views.point).type == "tmpfs"
    finally:
        run("umount", views.point)
