# SPDX-License-Identifier: Apache-2.0
"""What the suites that mount share: the program, what the machine must have, and mounts that
end with the test that made them."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from mounting import Mount, all_mounts

# What the program is built with: "thread", "address" (and undefined), or nothing. It is slower
# then and takes more memory; what it does is the same, and a report of the sanitizer ends it.
SANITIZER = os.environ.get("IMGFS_SANITIZER", "")
SLOWER = {"": 1, "thread": 6, "address": 6}[SANITIZER]
LARGER = {"": 1, "thread": 4, "address": 8}[SANITIZER]

# For tests of what no sanitizer goes with: the sandbox, strace, a malloc in the place of its own.
plain_only = pytest.mark.plain


@functools.cache
def has_feature(name):
    """Is the program under test built with what only a newer libfuse can do?"""
    try:
        done = subprocess.run([os.environ["IMGFS"], "-V"], capture_output=True, text=True)
    except (KeyError, OSError):
        return False  # the fixture imgfs says what is wrong
    return name in done.stdout.replace("\n", ", ").split(", ")


def require(condition, what):
    """Skips the test where the machine cannot run it; in CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"this machine lacks {what}")
    pytest.skip(f"needs {what}")


def require_programs(*names):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name in names:
        require(shutil.which(name, path=path), name)


@pytest.fixture(scope="session", autouse=True)
def sbin_in_path():
    os.environ["PATH"] += ":/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def imgfs(reports):
    """The program under test; without it there is nothing to skip but everything to fail."""
    binary = os.environ.get("IMGFS")
    assert binary, "set IMGFS to the path of the imgfs that is to be tested"
    assert os.access(binary, os.X_OK), f"{binary} cannot be run"
    require(os.path.exists("/dev/fuse"), "/dev/fuse")
    require(os.geteuid() == 0, "root")
    binary = Path(binary).resolve()
    return sanitized(binary, reports) if SANITIZER else binary


def sanitized(binary, reports):
    """A script in the place of the program. A sanitizer maps more memory and calls more of the
    kernel than the sandbox lets it. Its report is the end of the process, and is a file, because
    in the background there is nowhere else to print it to."""
    suppressions = Path(__file__).with_name("tsan.supp")
    common = f"halt_on_error=1 exitcode=66 log_path={reports}/report"
    script = reports / "imgfs"
    script.write_text(
        "#!/bin/sh\n"
        f"export TSAN_OPTIONS='{common} suppressions={suppressions}'\n"
        f"export ASAN_OPTIONS='{common} detect_leaks=1'\n"
        f"export UBSAN_OPTIONS='{common} print_stacktrace=1'\n"
        f"exec '{binary}' -o sandbox=off \"$@\"\n"
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def reports():
    """Where the sanitizer writes. Whatever user the program runs as gets there."""
    with tempfile.TemporaryDirectory(prefix="imgfs-reports-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o1777)
        yield Path(directory)


def take_reports(directory):
    """The texts of the sanitizer's reports, each only once."""
    found = list(directory.glob("report.*"))
    texts = [path.read_text(errors="replace") for path in found]
    for path in found:
        path.unlink()
    return texts


@pytest.fixture(autouse=True)
def no_reports(reports):
    yield
    texts = take_reports(reports)
    assert not texts, "\n".join(texts)


def mounter(imgfs, base):
    """A function that mounts, for as long as the generator lives."""
    mounts = []

    def mount(source, *options, **kw):
        """mount(DATASTORE, OPTION…, point=MOUNTPOINT, program=imgfs, args=(), expect=())"""
        point = kw.pop("point", None)
        if point is None:
            point = base / f"mnt{len(mounts)}"
            point.mkdir()
        program = kw.pop("program", imgfs)
        mounts.append(Mount(program, source, point, options, log=base / f"log{len(mounts)}", **kw))
        mounts[-1].start()
        return mounts[-1]

    try:
        yield mount
    finally:
        problems = [p for m in reversed(mounts) for p in m.finish()]
        problems += take_reports(imgfs.parent) if SANITIZER else []
    assert not problems, "\n".join(problems)


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path):
    """Whatever a test has mounted in its directory, by a program that should have refused too."""
    yield
    left = [info.point for info in all_mounts() if Path(info.point).is_relative_to(tmp_path)]
    for point in reversed(left):
        subprocess.run(["umount", "-l", point], capture_output=True)
    assert not left


@pytest.fixture
def mount(imgfs, tmp_path):
    yield from mounter(imgfs, tmp_path)


@pytest.fixture(scope="module")
def module_mount(imgfs, tmp_path_factory):
    yield from mounter(imgfs, tmp_path_factory.mktemp("mount"))
