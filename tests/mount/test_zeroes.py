# SPDX-License-Identifier: Apache-2.0
"""-o detect_zeroes: compact views without what is allocated but zero, as qemu-img convert has it."""

import os
import signal
import subprocess
import time

import pytest

import images
from faults import READ, Faults
from fixtures import SLOWER, plain_only, require, require_programs
from mounting import ordinary_signals
from tools import KIB, MIB, TIB, check, compare, data_ranges, eventually, merged, qemu_map
from tools import refusal, run, same

UNIT = 64 * KIB

# Every sector is allocated; most of them hold nothing
SOURCES = {
    "whole.raw": lambda disk, path: path.write_bytes(disk.bytes),
    "full.qcow2": lambda disk, path: disk.convert(path, "-O", "qcow2", "-S", "0"),
    "packed.qcow2": lambda disk, path: disk.convert(path, "-O", "qcow2", "-S", "0", "-c"),
    "small.qcow2": lambda disk, path: disk.convert(
        path, "-O", "qcow2", "-S", "0", "-o", "cluster_size=4k"
    ),
    "zstd.qcow2": lambda disk, path: disk.convert(
        path, "-O", "qcow2", "-S", "0", "-c", "-o", "compression_type=zstd,cluster_size=2M"
    ),
    "sparse.vmdk": lambda disk, path: disk.convert(path, "-O", "vmdk", "-S", "0"),
    "flat.vmdk": lambda disk, path: disk.convert(
        path, "-O", "vmdk", "-S", "0", "-o", "subformat=monolithicFlat"
    ),
    "over-base.raw": lambda disk, path: path.write_bytes(disk.bytes),
}
COMPACT = [
    f"{images.stem(source)}.{view}"
    for source in SOURCES
    for view in ("qcow2", "vmdk")
    if not source.endswith("." + view) or source == "flat.vmdk"
]


@pytest.fixture(scope="module")
def store(disk, tmp_path_factory):
    directory = tmp_path_factory.mktemp("zeroes") / "datastore"
    directory.mkdir()
    for name, make in SOURCES.items():
        make(disk, directory / name)
    images.create(directory / "over.qcow2", images.SIZE, "-b", "over-base.raw", "-F", "raw")
    run("qemu-io", "-c", "write -P 0 3M 2M", directory / "over.qcow2")
    return directory


@pytest.fixture(scope="module")
def seen(store, module_mount):
    """The store as it is with the option, and without."""
    return module_mount(store, "detect_zeroes"), module_mount(store)


def units_of(data):
    """Ranges of units that hold anything."""
    starts = range(0, len(data), UNIT)
    return merged((at, min(at + UNIT, len(data))) for at in starts if any(data[at : at + UNIT]))


@pytest.mark.parametrize("name", COMPACT)
def test_what_is_zero_is_not_there(disk, seen, name, tmp_path):
    """Just the units that hold something, and QEMU finds the same disk in them."""
    on, off = seen
    view = name.rpartition(".")[2]
    entries = qemu_map(on / name, view)
    data = merged((e["start"], e["start"] + e["length"]) for e in entries if e["data"])
    assert data == units_of(disk.bytes)
    whole = qemu_map(off / name, view)
    assert sum(e["length"] for e in whole if e["data"]) == images.SIZE
    assert os.stat(on / name).st_size < os.stat(off / name).st_size * 0.7
    for views in seen:
        run("cp", views / name, tmp_path / "copy")
        check(tmp_path / "copy", view)
        compare(tmp_path / "copy", view, disk.path)


@pytest.mark.parametrize("name", ["whole.qcow2", "packed.vmdk", "sparse.qcow2", "flat.vmdk"])
def test_as_large_as_what_qemu_writes(seen, store, name, tmp_path):
    view = name.rpartition(".")[2]
    run("qemu-img", "convert", "-S", "64k", "-O", view, store / "whole.raw", tmp_path / "qemu")
    assert os.stat(seen[0] / name).st_size == os.stat(tmp_path / "qemu").st_size


@pytest.mark.parametrize("name", ["over.qcow2", "over.vmdk"])
def test_zeros_over_a_parent(disk, seen, name):
    """What an overlay has written with zeros hides what its parent has, and is not there."""
    expected = bytearray(disk.bytes)
    expected[3 * MIB : 5 * MIB] = bytes(2 * MIB)
    entries = qemu_map(seen[0] / name, name.rpartition(".")[2])
    data = merged((e["start"], e["start"] + e["length"]) for e in entries if e["data"])
    assert data == units_of(expected)
    assert (seen[0] / "over.raw").read_bytes() == expected


def test_raw_views_are_what_they_were(seen, store):
    """Their holes and blocks go by what is allocated, and agree; so does what is served as it is."""
    on, off = seen
    for name in [f"{images.stem(source)}.raw" for source in SOURCES]:
        assert same(on / name, off / name)
        assert data_ranges(on / name) == data_ranges(off / name)
        assert os.stat(on / name).st_blocks == os.stat(off / name).st_blocks
    for name in ("full.qcow2", "sparse.vmdk"):
        assert same(on / name, store / name)


def test_two_mounts_show_the_same(seen, store, mount):
    again = mount(store, "detect_zeroes")
    for name in COMPACT:
        assert same(seen[0] / name, again / name), name


def test_what_is_preallocated_costs_nothing(datastore, mount):
    """1 TiB that is mapped, and a hole of its file: there is nothing to read."""
    try:
        images.write_full_qcow2(datastore / "full.qcow2", TIB)
    except OSError as e:
        require(False, f"a file system with files of 1 TiB ({e})")
    views = mount(datastore, "detect_zeroes")
    start = time.monotonic()
    st = os.stat(views / "full.vmdk")
    taken = time.monotonic() - start
    assert st.st_size < 200 * MIB and st.st_blocks * 512 < MIB
    assert taken < 10 * SLOWER, f"{taken:.1f} s"
    assert os.stat(views / "full.raw").st_blocks == TIB // 512


# ---- while it is looked for ----


@pytest.fixture
def slow(mount, imgfs, tmp_path, datastore):
    """A mount with an image whose zeros take long to look at: each read of it takes its time."""
    require_programs("strace")
    images.sparse_file(datastore / "x.raw", 512 * MIB)
    with open(datastore / "x.raw", "r+b") as file:
        for at in range(0, 512 * MIB, MIB):
            os.pwrite(file.fileno(), bytes(MIB), at)
    (datastore / "more").mkdir()
    images.sparse_file(datastore / "more" / "y.raw", MIB)
    program = tmp_path / "slow"
    delay = "-e trace=pread64 -e inject=pread64:delay_enter=2000"
    program.write_text(f"#!/bin/sh\nexec strace -f -qq -o /dev/null {delay} '{imgfs}' \"$@\"\n")
    program.chmod(0o755)
    return mount(datastore, "detect_zeroes", program=program)


def look(views):
    os.listdir(views / "more")  # so that nobody needs to look it up
    looker = subprocess.Popen(
        ["stat", views / "x.qcow2"], stderr=subprocess.DEVNULL, preexec_fn=ordinary_signals
    )
    time.sleep(1)
    assert looker.poll() is None, "it is not slow enough"
    return looker


@plain_only
def test_others_need_not_wait(slow):
    """Who reads another view, or looks into another directory, while somebody waits for this one.
    (The same directory is the kernel's business: it waits where libfuse is older than 3.17.)"""
    with open(slow / "x.raw", "rb") as file:
        looker = look(slow)
        start = time.monotonic()
        assert file.read(MIB) == bytes(MIB)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 512 * MIB
        assert os.listdir(slow / "more")
        assert os.stat(slow / "more" / "y.raw").st_size == MIB
        assert time.monotonic() - start < 3
    assert looker.poll() is None
    looker.kill()
    looker.wait(timeout=5)


@plain_only
def test_who_gives_up_need_not_wait(slow):
    """A signal ends it for who asked, and the server has nothing more to do with it."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        looker = look(slow)
        looker.send_signal(sent)
        assert looker.wait(timeout=5) == -sent
    assert slow.unmount() == 0


@plain_only
def test_a_change_meanwhile(slow, datastore):
    """The next look is at the new state; there is no view of a mixture."""
    looker = look(slow)
    with open(datastore / "x.raw", "r+b") as file:
        file.truncate(3 * MIB)
        file.write(b"new")
    looker.wait(timeout=20)
    entries = qemu_map(slow / "x.qcow2", "qcow2")
    assert [(e["start"], e["length"]) for e in entries if e["data"]] == [(0, UNIT)]


@plain_only
def test_a_file_that_cannot_be_read(store, mount, imgfs, tmp_path):
    """It does not count as zeros, nor as data: there is no view until it can be read again."""
    faults = Faults(imgfs, tmp_path / "rules")
    views = mount(store, "detect_zeroes", env=faults.env, expect=["cannot be laid out"])
    assert os.stat(views / "whole.raw").st_size == images.SIZE
    faults.set(READ, 1, inode=(store / "whole.raw").stat().st_ino)
    assert refusal(os.stat, views / "whole.qcow2") == "EIO"
    assert os.stat(views / "packed.vmdk").st_size > 0
    faults.end()
    eventually(lambda: (views / "whole.qcow2").exists())
    assert os.stat(views / "whole.qcow2").st_size < images.SIZE * 0.7
