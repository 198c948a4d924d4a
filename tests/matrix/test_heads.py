# SPDX-License-Identifier: Apache-2.0
"""The size of a disk from the start of a file: OpenNebula asks qemu-img about the first 64 KiB, and
where that says "expecting at least N bytes", about so many, and gives up on any other answer."""

import json
import re
import subprocess

import pytest
import shapes
import sources
from layout import disk_size, stream_overhead
from shapes import GIB, MIB, SECTOR, TIB, UNIT
from tools import run
from vmdk_writer import descriptor, write_stream

HEAD = 65536
SINGLE_FILES = ("vmdk", "vmdk-stream")


def size_by_the_loop(head_of, tmp):
    """(virtual size, bytes of the head that it took); head_of(n) are the first n bytes."""
    head, want, last = tmp / "head", HEAD, None
    while want != last:
        last = want
        head.write_bytes(head_of(want))
        done = subprocess.run(["qemu-img", "info", head], capture_output=True, text=True)
        if done.returncode == 0:
            found = json.loads(run("qemu-img", "info", "--output=json", head).stdout)
            assert found["format"] == "vmdk", found
            return found["virtual-size"], want
        more = re.search(r"expecting at least (\d+) bytes", done.stderr)
        want = int(more[1]) if more else HEAD
    raise AssertionError(f"Failed to detect image format: {done.stderr}")


def size_of_view(viewcat, store, path, view, tmp):
    return size_by_the_loop(
        lambda n: viewcat.run(store, path, "read", view, 0, n, text=False).stdout, tmp
    )


@pytest.mark.parametrize("view", SINGLE_FILES)
@pytest.mark.parametrize("size", (1, MIB, 424 * GIB, 424 * GIB + 1, TIB, 5 * TIB))
def test_of_disks_of_any_size(viewcat, store, tmp, view, size):
    if view == "vmdk" and size > 424 * GIB:
        pytest.skip("there are 128 MiB of tables for each TiB")
    run("qemu-img", "create", "-qf", "qcow2", "-o", "cluster_size=2M", store / "disk.qcow2", disk_size(size))
    found, took = size_of_view(viewcat, store, "disk.qcow2", view, tmp)
    assert found == disk_size(size)
    if view == "vmdk-stream":  # the directory is all that is in front
        assert took == stream_overhead(size) * SECTOR
        assert (took == HEAD) == (size <= 424 * GIB)


@pytest.mark.parametrize("view", SINGLE_FILES)
@pytest.mark.parametrize("name", ("raw", "qcow2-zlib", "vmdk-stream-of-qemu", "vmdk-vmfs"))
def test_of_any_source(viewcat, tmp, view, name):
    stored = sources.make(tmp, name, shapes.FRAG)
    found, _ = size_of_view(viewcat, stored.root, stored.path, view, tmp)
    assert found == disk_size(stored.size)


def test_a_footer_alone_is_not_enough(tmp):
    """Why the header points at a directory of its own."""
    text = descriptor("streamOptimized", [f'RW {MIB // SECTOR} SPARSE "disk.vmdk"'])
    grains = {0: shapes.content(1, 0, UNIT), 1: shapes.content(1, UNIT, 2 * UNIT)}
    write_stream(tmp / "disk.vmdk", MIB // SECTOR, grains, text, footer=True)
    whole = (tmp / "disk.vmdk").read_bytes()
    with pytest.raises(AssertionError, match="Invalid footer"):
        size_by_the_loop(lambda n: whole[:n], tmp)
    write_stream(tmp / "disk.vmdk", MIB // SECTOR, grains, text, footer=False)
    whole = (tmp / "disk.vmdk").read_bytes()
    assert size_by_the_loop(lambda n: whole[:n], tmp) == (MIB, HEAD)
