# SPDX-License-Identifier: Apache-2.0
"""Copying a view out is the conversion, whatever copies it."""

import os

import pytest

import images
from fixtures import require_programs
from tools import VIEWS, check, compare, run, same

ALL = [f"{images.stem(source)}.{view}" for source in images.SOURCES for view in VIEWS]


def view_of(name):
    return name.rpartition(".")[2]


def judge(path, sample, name):
    """The copy at path is what a stranger's tools expect of the view."""
    assert path.stat().st_size == os.stat(sample.mount / name).st_size
    assert same(path, sample.mount / name)
    check(path, view_of(name))
    compare(path, view_of(name), sample.disk.path)
    if view_of(name) == "raw":
        assert path.read_bytes() == sample.disk.bytes
    if name in images.IDENTITY:
        assert same(path, sample.datastore / name)


@pytest.mark.parametrize("name", ALL)
def test_size_is_what_reading_gives(sample, name):
    with open(sample.mount / name, "rb", buffering=0) as file:
        total = 0
        while chunk := file.read(1 << 20):
            total += len(chunk)
    assert total == os.stat(sample.mount / name).st_size > 0


@pytest.mark.parametrize("name", ALL)
def test_cp(sample, tmp_path, name):
    run("cp", sample.mount / name, tmp_path / name)
    judge(tmp_path / name, sample, name)


@pytest.mark.parametrize("name", ALL)
def test_cat(sample, tmp_path, name):
    run("sh", "-c", 'cat <"$0" >"$1"', sample.mount / name, tmp_path / name)
    judge(tmp_path / name, sample, name)


@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("name", ["plain.qcow2", "chain.raw", "stream.raw", "packed.vmdk"])
def test_cp_sparse(sample, tmp_path, name, mode):
    run("cp", f"--sparse={mode}", sample.mount / name, tmp_path / name)
    judge(tmp_path / name, sample, name)


@pytest.mark.parametrize("name", ALL)
def test_tar_sparse(sample, tmp_path, name):
    """tar -S archives no data at all of a file that claims to have no blocks."""
    archive = tmp_path / "archive.tar"
    run("tar", "-C", sample.mount.point, "-S", "-cf", archive, name)
    run("tar", "-C", tmp_path, "-xf", archive)
    judge(tmp_path / name, sample, name)


def test_tar_sparse_saves_the_holes(sample, tmp_path):
    archive = tmp_path / "archive.tar"
    run("tar", "-C", sample.mount.point, "-S", "-cf", archive, "chain.raw")
    assert archive.stat().st_size < images.SIZE / 2


@pytest.mark.parametrize("block", ["4k", "64k", "1000003"])
@pytest.mark.parametrize("name", ["plain.qcow2", "packed.raw", "flat.vmdk", "chain.vmdk"])
def test_dd_sparse(sample, tmp_path, name, block):
    source, target = sample.mount / name, tmp_path / name
    run("dd", f"if={source}", f"of={target}", f"bs={block}", "conv=sparse", "status=none")
    judge(target, sample, name)


def test_rsync_twice(sample, tmp_path):
    """The second run finds nothing to do: sizes and times are exact and stay so."""
    require_programs("rsync")
    command = ["rsync", "-a", "--itemize-changes", f"{sample.mount.point}/", f"{tmp_path}/out/"]
    first = run(*command, timeout=300).out
    assert all(name in first for name in ALL)
    assert run(*command).out == ""
    for name in ALL:
        judge(tmp_path / "out" / name, sample, name)


def test_rsync_checksums_agree(sample, tmp_path):
    require_programs("rsync")
    command = ["rsync", "-a", "--itemize-changes", f"{sample.mount.point}/", f"{tmp_path}/out/"]
    run(*command, timeout=300)
    assert run(*command, "--checksum", timeout=300).out == ""


@pytest.mark.parametrize("view", VIEWS)
def test_qemu_reads_the_view_in_place(sample, view):
    """No copy at all: qemu-img opens the view where it is, with its locks."""
    for source in images.SOURCES:
        path = sample.mount / f"{images.stem(source)}.{view}"
        check(path, view)
        compare(path, view, sample.disk.path)


def test_views_of_views_are_the_source(sample, mount, tmp_path):
    """The views of one mount, copied, are the datastore of the next one."""
    second = tmp_path / "second"
    second.mkdir()
    for view in VIEWS:
        run("cp", sample.mount / f"chain.{view}", second / f"by-{view}.{view}")
    again = mount(second)
    for source in VIEWS:
        for view in VIEWS:
            compare(again / f"by-{source}.{view}", view, sample.disk.path)
