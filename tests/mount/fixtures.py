# SPDX-License-Identifier: Apache-2.0
"""What the suites that mount share: the program, what the machine must have, and mounts that
end with the test that made them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mounting import Mount, all_mounts


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
def imgfs():
    """The program under test; without it there is nothing to skip but everything to fail."""
    binary = os.environ.get("IMGFS")
    assert binary, "set IMGFS to the path of the imgfs that is to be tested"
    assert os.access(binary, os.X_OK), f"{binary} cannot be run"
    require(os.path.exists("/dev/fuse"), "/dev/fuse")
    require(os.geteuid() == 0, "root")
    return Path(binary).resolve()


def mounter(imgfs, base):
    """A function that mounts, for as long as the generator lives."""
    mounts = []

    def mount(source, *options, **kw):
        """mount(DATASTORE, OPTION…, point=MOUNTPOINT, wait=True, args=(), expect=())"""
        point = kw.pop("point", None)
        if point is None:
            point = base / f"mnt{len(mounts)}"
            point.mkdir()
        mounts.append(Mount(imgfs, source, point, options, log=base / f"log{len(mounts)}", **kw))
        mounts[-1].start()
        return mounts[-1]

    try:
        yield mount
    finally:
        problems = [p for m in reversed(mounts) for p in m.finish()]
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
