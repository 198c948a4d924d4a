# SPDX-License-Identifier: Apache-2.0
"""A disk of more than 1 GiB, in every format that qemu-img writes, copied out as every other."""

import shutil

import pytest

import disk
from fixtures import require, require_programs
from tools import GIB, MIB, VIEWS, check, compare, run, same

# name of the source, and how qemu-img makes it
SOURCES = {
    "raw.raw": ["-O", "raw"],
    "plain.qcow2": ["-O", "qcow2"],
    "zlib.qcow2": ["-O", "qcow2", "-c"],
    "zstd.qcow2": ["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
    "small.qcow2": ["-O", "qcow2", "-o", "cluster_size=4k,extended_l2=off"],
    "extended.qcow2": ["-O", "qcow2", "-o", "cluster_size=128k,extended_l2=on"],
    "sparse.vmdk": ["-O", "vmdk"],
    "stream.vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
    "flat.vmdk": ["-O", "vmdk", "-o", "subformat=monolithicFlat"],
    "split.vmdk": ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
    "splitflat.vmdk": ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"],
}
CHAIN = "chain.qcow2"

# Sources that are a standalone file of the view's format: the view is the file itself
IDENTITY = {
    ("raw.raw", "raw"),
    ("sparse.vmdk", "vmdk"),
    ("stream.vmdk", "vmdk"),
} | {(name, "qcow2") for name in SOURCES if name.endswith(".qcow2")}


class RealDisk:
    def __init__(self, directory):
        self.datastore, self.scratch = directory / "datastore", directory / "scratch"
        self.datastore.mkdir()
        self.scratch.mkdir()
        self.raw = directory / "disk.raw"
        disk.make(self.raw, self.scratch)
        for name, options in SOURCES.items():
            self.convert(self.raw, self.datastore / name, options)
        self.make_chain()

    def convert(self, source, target, options):
        run("qemu-img", "convert", "-W", "-f", "raw", *options, source, target, timeout=300)

    def make_chain(self):
        """A base that lacks the middle of the disk, and an overlay that has it."""
        start, end = 100 * MIB, 2300 * MIB
        gap = self.scratch / "gap.raw"
        run("cp", "--sparse=always", self.raw, gap)
        run("fallocate", "-p", "-o", start, "-l", end - start, gap)
        base, overlay = self.datastore / "chain-base.qcow2", self.datastore / CHAIN
        self.convert(gap, base, ["-O", "qcow2"])
        run("qemu-img", "create", "-qf", "qcow2", "-b", self.raw, "-F", "raw", overlay)
        backing = ["-b", base.name, "-F", "qcow2"]
        run("qemu-img", "rebase", "-qf", "qcow2", *backing, overlay, timeout=300)
        gap.unlink()


@pytest.fixture(scope="module")
def real_disk(imgfs, tmp_path_factory):
    require_programs("qemu-img", "mke2fs", "e2fsck", "sfdisk", "dpkg")
    directory = tmp_path_factory.mktemp("realdisk")
    free = shutil.disk_usage(directory).free
    require(free > 10 * GIB, f"10 GiB free in {directory} ({free // MIB} MiB are)")
    yield RealDisk(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def views(module_mount, real_disk):
    return module_mount(real_disk.datastore)


@pytest.fixture
def copy(views, real_disk):
    """copy(NAME): the path of a copy of the view, made as a user would."""
    made = []

    def copy_view(name):
        target = real_disk.scratch / name
        run("cp", views / name, target, timeout=300)
        made.append(target)
        return target

    yield copy_view
    for path in made:
        path.unlink()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("source", [*SOURCES, CHAIN])
def test_every_pair(copy, views, real_disk, source, view):
    name = f"{source.rpartition('.')[0]}.{view}"
    copied = copy(name)
    assert copied.stat().st_size == (views / name).stat().st_size
    check(copied, view)
    if view == "raw":
        assert same(copied, real_disk.raw)
    elif (source, view) in IDENTITY:
        assert same(copied, real_disk.datastore / source)
    else:
        compare(copied, view, real_disk.raw)
        assert copied.stat().st_size < disk.SIZE


@pytest.mark.parametrize("source", ["zlib", "stream", "chain"])
def test_the_file_systems_are_whole(copy, source):
    copied = copy(f"{source}.raw")
    for start, _ in (disk.SYSTEM, disk.DATA):
        run("e2fsck", "-fn", f"{copied}?offset={start * MIB}", timeout=300)
    assert "gpt" in run("blkid", "-p", "-s", "PTTYPE", copied).out
