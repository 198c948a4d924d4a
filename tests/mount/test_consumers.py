# SPDX-License-Identifier: Apache-2.0
"""What those who take images do with a file before they copy it, step by step."""

import json
import os
import re
import subprocess

import pytest

from tools import KIB, run

# Views of one file whose beginning says how large the disk is. A raw disk has no beginning of its
# own, a fixed VHD says it at its end, the first structure of a VHDX that does is at 192 KiB, and
# qemu-img refuses any dynamic VHD that is cut, its own too (the next test).
SELF_DESCRIBED = ("qcow2", "vmdk", "stream.vmdk", "vdi")


def size_from_the_head(path, tmp):
    """OpenNebula asks qemu-img about the first 64 KiB of a file, and about more of it for as long as
    qemu-img says how much more it needs."""
    head, length = tmp / "head", 64 * KIB
    for _ in range(4):
        with open(path, "rb") as file:
            head.write_bytes(file.read(length))
        done = subprocess.run(["qemu-img", "info", head], capture_output=True, text=True)
        found = re.search(r"^virtual size:.*\((\d+) bytes\)", done.stdout, re.MULTILINE)
        if found:
            return int(found[1])
        more = re.search(r"expecting at least (\d+) bytes", done.stderr)
        if not more:
            raise AssertionError(done.stderr)
        length = int(more[1])
    raise AssertionError("it never has enough")


@pytest.mark.parametrize("view", SELF_DESCRIBED)
@pytest.mark.parametrize("source", ("plain", "packed", "stream"))
def test_the_size_is_in_the_head(mount, sample, tmp_path, source, view):
    views = mount(sample.datastore, f"views={view}")
    assert size_from_the_head(views / f"{source}.{view}", tmp_path) == os.stat(
        sample.disk.path
    ).st_size


@pytest.mark.parametrize("image_format", ("vpc", "vhdx"))
def test_what_no_beginning_tells(disk, tmp_path, image_format):
    """Whoever has made it."""
    disk.convert(tmp_path / "whole", "-O", image_format)
    with pytest.raises(AssertionError, match="Could not open|it never has enough|truncated"):
        size_from_the_head(tmp_path / "whole", tmp_path)


@pytest.mark.parametrize("view", SELF_DESCRIBED + ("vhd", "fixed.vhd", "vhdx", "raw"))
def test_the_size_of_the_whole_view(mount, sample, view):
    views = mount(sample.datastore, f"views={view}")
    formats = {"vhd": "vpc", "stream.vmdk": "vmdk", "fixed.vhd": "vpc"}
    said = run(
        "qemu-img", "info", "-f", formats.get(view, view), "--output=json", views / f"packed.{view}"
    )
    assert json.loads(said.out)["virtual-size"] == os.stat(sample.disk.path).st_size


def test_a_large_disk_too(datastore, mount, tmp_path):
    """The tables in front of the data grow with the disk."""
    run("qemu-img", "create", "-qf", "qcow2", datastore / "large.qcow2", "600G")
    run("qemu-io", "-c", "write 300G 1M", datastore / "large.qcow2")
    views = mount(datastore, "views=" + ":".join(SELF_DESCRIBED))
    for view in SELF_DESCRIBED:
        assert size_from_the_head(views / f"large.{view}", tmp_path) == 600 << 30, view


def test_a_pair_in_its_directory(mount, sample):
    """The size of a directory, as OpenNebula takes it: nothing but the two files of the disk."""
    views = mount(sample.datastore, "views=vmdk", "vmdk=flat", "layout=dir")
    size = int(run("du", "-sb", views / "packed").out.split()[0])
    disk = os.stat(sample.disk.path).st_size
    assert disk < size < disk + 2 * KIB
    assert -(-size >> 20) == -(-(disk + 1024) >> 20)


def test_what_file_says(mount, sample):
    """vCenter's driver of OpenNebula tells a descriptor from a disk by its type."""
    views = mount(sample.datastore, "views=vmdk:flat.vmdk")
    kind = ["file", "-b", "--mime-type", "-P", "bytes=256"]
    assert run(*kind, views / "plain.flat.vmdk").out.strip() == "text/plain"
    assert run(*kind, views / "plain.vmdk").out.strip() == "application/octet-stream"
