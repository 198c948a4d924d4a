# SPDX-License-Identifier: Apache-2.0
"""Images that a QEMU holds: refused while it may write to them, and never kept from it."""

import fcntl
import os
import struct
import subprocess
import time
from contextlib import contextmanager

import pytest

import images
from fixtures import require_programs
from tools import KIB, MIB, VIEWS, eventually, pattern, refusal, run

F_OFD_SETLK = 37


@pytest.fixture
def store(datastore):
    require_programs("qemu-io", "qemu-nbd", "qemu-system-x86_64")
    (datastore / "a.raw").write_bytes(pattern(1, 4 * MIB))
    images.create(datastore / "b.qcow2", "4M")
    run("qemu-io", "-c", "write -P 7 0 1M", datastore / "b.qcow2")
    return datastore


@contextmanager
def running(*command):
    """A program that runs until the end of the block."""
    process = subprocess.Popen(
        [os.fspath(c) for c in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def with_qemu_io(path, image_format):
    return running("qemu-io", "-f", image_format, path)


def with_qemu_nbd(path, image_format):
    socket = path.parent.with_name("nbd.socket")
    return running("qemu-nbd", "-t", "-k", socket, "-f", image_format, path)


def with_qemu_system(path, image_format):
    return running(
        *("qemu-system-x86_64", "-S", "-accel", "tcg", "-display", "none", "-nodefaults"),
        *("-drive", f"file={path},format={image_format},if=virtio"),
    )


HOLDERS = {"qemu-io": with_qemu_io, "qemu-nbd": with_qemu_nbd, "qemu-system": with_qemu_system}


def try_open(path):
    os.close(os.open(path, os.O_RDONLY))


def is_busy(path):
    try:
        try_open(path)
    except OSError as e:
        return e.errno == 16
    return False


@pytest.mark.parametrize("holder", HOLDERS)
def test_held_by(store, mount, holder):
    """EBUSY at open, in every view; the names stay, and so does the other image."""
    views = mount(store)
    views.expect_log("is not opened")
    before = {name: os.stat(views / name) for name in views.names()}
    assert len(before) == 6
    with HOLDERS[holder](store / "b.qcow2", "qcow2"):
        eventually(lambda: is_busy(views / "b.raw"), 20)
        for view in VIEWS:
            assert refusal(os.open, views / f"b.{view}", os.O_RDONLY) == "EBUSY"
            assert os.stat(views / f"b.{view}").st_size > 0
        assert views.names() == sorted(before)
        assert (views / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    eventually(lambda: not is_busy(views / "b.raw"))
    assert (views / "b.raw").read_bytes() == b"\7" * MIB + bytes(3 * MIB)
    (line, *_) = views.log_lines("is not opened")
    assert "'b.qcow2'" in line and "in_use=allow" in line


def test_raw_images_too(store, mount):
    views = mount(store)
    views.expect_log("is not opened")
    with with_qemu_io(store / "a.raw", "raw"):
        eventually(lambda: is_busy(views / "a.raw"), 20)
        assert is_busy(views / "a.vmdk") and is_busy(views / "a.qcow2")


def test_allowed(store, mount):
    views = mount(store, "in_use=allow")
    watch = mount(store)
    watch.expect_log("is not opened")
    with with_qemu_io(store / "a.raw", "raw"):
        eventually(lambda: is_busy(watch / "a.raw"), 20)
        assert (views / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    assert views.log_events() == []


def test_who_only_reads_holds_nothing(store, mount):
    views = mount(store)
    with running("qemu-nbd", "-r", "-t", "-k", store.with_name("s"), "-f", "qcow2", store / "b.qcow2"):
        eventually(lambda: store.with_name("s").exists(), 20)
        time.sleep(0.2)
        assert len((views / "b.raw").read_bytes()) == 4 * MIB


@pytest.mark.parametrize("view", VIEWS)
def test_an_open_view_keeps_nobody_out(store, mount, view):
    """A machine starts and writes while its image is being read; then the reader hears of it."""
    views = mount(store)
    fd = os.open(views / f"b.{view}", os.O_RDONLY | os.O_DIRECT)
    try:
        assert len(os.pread(fd, 4096, 0)) == 4096
        run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", store / "b.qcow2")
        assert refusal(os.pread, fd, 4096, 0) == "ESTALE"
    finally:
        os.close(fd)
    eventually(lambda: (views / "b.raw").read_bytes()[: 64 * KIB] == b"\x09" * 64 * KIB)


def test_a_template_under_running_machines(datastore, mount):
    """The overlay is in use, what it stands on is not: nobody writes there."""
    require_programs("qemu-io")
    images.create(datastore / "web-base.qcow2", "4M")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    views = mount(datastore)
    views.expect_log("is not opened")
    with with_qemu_io(datastore / "web.qcow2", "qcow2"):
        eventually(lambda: is_busy(views / "web.raw"), 20)
        assert len((views / "web-base.raw").read_bytes()) == 4 * MIB


def test_a_base_that_is_written_holds_what_stands_on_it(datastore, mount):
    require_programs("qemu-io")
    images.create(datastore / "web-base.qcow2", "4M")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    views = mount(datastore)
    views.expect_log("is not opened")
    with with_qemu_io(datastore / "web-base.qcow2", "qcow2"):
        eventually(lambda: is_busy(views / "web-base.raw"), 20)
        assert is_busy(views / "web.vmdk")
    (line, *_) = views.log_lines("'web.qcow2' is not opened")
    assert "'web-base.qcow2'" in line


@pytest.mark.parametrize("byte", [100, 101, 102, 103, 104, 201, 203])
@pytest.mark.parametrize("kind", [fcntl.F_RDLCK, fcntl.F_WRLCK])
def test_bytes_of_the_lock(store, mount, byte, kind):
    """101 is the right to write, 103 to resize; the others are no reason."""
    views = mount(store)
    views.expect_log("is not opened")
    assert not is_busy(views / "a.raw")
    with open(store / "a.raw", "rb+", buffering=0) as file:
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(file, F_OFD_SETLK, lock)
        assert is_busy(views / "a.raw") == (byte in (101, 103))
    assert not is_busy(views / "a.raw")


def test_bad_value(imgfs, store, tmp_path):
    (tmp_path / "point").mkdir()
    done = run(imgfs, "-o", "in_use=maybe", store, tmp_path / "point", check=False)
    assert done.returncode == 1 and "in_use" in done.err
