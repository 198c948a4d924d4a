# SPDX-License-Identifier: Apache-2.0
"""Images in compressed files: shown as what is in them, and read where they are asked for."""

import os
import random

import pytest

import images
from fixtures import require_programs
from tools import KIB, MIB, VIEWS, compare, eventually, refusal, run, same

# suffix: how a file is packed so that it can be read from anywhere
PACKERS = {
    "xz": ["xz", "-T2", "--block-size=1MiB"],
    "zst": ["pzstd", "-q", "-p", "2", "--rm"],
    "gz": ["gzip"],
}

# Those of pzstd do not say how much is in their frames; gzip never does
SCAN = "scan_gzip"


@pytest.fixture
def pack(datastore, disk):
    """pack(NAME, SUFFIX, OPTIONS of qemu-img …): the sample disk in a compressed file."""
    require_programs("xz", "pzstd", "zstd", "gzip", "qemu-img")

    def make(name, suffix, *options, packer=None):
        path = datastore / name
        if options:
            disk.convert(path, *options)
        else:
            disk.save(path)
        run(*(packer or PACKERS[suffix]), path)
        path.unlink(missing_ok=True)
        return path.with_name(f"{name}.{suffix}")

    return make


def views_of(*stems):
    return sorted(f"{stem}.{view}" for stem in stems for view in VIEWS)


@pytest.mark.parametrize("suffix", PACKERS)
def test_raw(datastore, mount, disk, pack, suffix):
    pack("disk.raw", suffix)
    views = mount(datastore, SCAN)
    assert views.names() == views_of("disk")
    assert os.stat(views / "disk.raw").st_size == len(disk.bytes)
    assert (views / "disk.raw").read_bytes() == disk.bytes
    for view in ("qcow2", "vmdk"):
        compare(views / f"disk.{view}", view, disk.path)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("name", ("web.qcow2", "web.vmdk", "web.vdi", "web.img"))
def test_images(datastore, mount, disk, pack, suffix, name):
    image_format = {"img": "qcow2"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    pack(name, suffix, "-O", image_format)
    views = mount(datastore, SCAN)
    assert views.names() == views_of("web")
    assert (views / "web.raw").read_bytes() == disk.bytes


def test_what_is_in_it_is_served_as_it_is(datastore, mount, disk, pack, tmp_path):
    disk.convert(tmp_path / "plain.qcow2", "-O", "qcow2")
    pack("web.qcow2", "xz", "-O", "qcow2")
    views = mount(datastore)
    run("sh", "-c", f"xz -dc {datastore}/web.qcow2.xz >{tmp_path}/out")
    assert same(views / "web.qcow2", tmp_path / "out")
    # the kernel would read the compressed file instead
    views.unmount()
    views = mount(datastore, "zero_copy")
    assert same(views / "web.qcow2", tmp_path / "out")


@pytest.mark.parametrize("suffix", PACKERS)
def test_reads_anywhere(datastore, mount, disk, pack, suffix):
    pack("disk.raw", suffix)
    views = mount(datastore, SCAN)
    rng = random.Random(suffix)
    with open(views / "disk.raw", "rb", buffering=0) as file:
        for _ in range(60):
            offset = rng.randrange(len(disk.bytes))
            length = rng.choice((1, 512, 70 * KIB, 2 * MIB))
            expected = bytes(disk.bytes[offset : offset + length])
            assert os.pread(file.fileno(), length, offset)[: len(expected)] == expected


def test_gzip_only_when_it_may_be_read(datastore, mount, pack):
    pack("disk.raw", "gz")
    views = mount(datastore)
    assert views.names() == []
    assert views.log_lines(r"disk.raw.gz' is not shown: .*scan_gzip")


@pytest.mark.parametrize("suffix,packer", (("xz", ["xz", "-0"]), ("zst", ["zstd", "-q", "--rm"])))
def test_one_huge_block(datastore, mount, tmp_path, suffix, packer):
    """There is no way into it but from its start."""
    require_programs("xz", "zstd")
    path = datastore / "disk.raw"
    images.sparse_file(path, 80 * MIB, (70 * MIB, b"x" * MIB))
    run(*packer, path)
    path.unlink(missing_ok=True)
    views = mount(datastore)
    assert views.names() == []
    assert views.log_lines(rf"disk.raw.{suffix}' is not shown: ")


def test_a_small_one(datastore, mount, disk, pack):
    """What the tools make of a small file is one block or frame, and small enough."""
    pack("a.raw", "xz", packer=["xz", "-0"])
    pack("b.raw", "zst", packer=["zstd", "-q", "--rm"])
    views = mount(datastore)
    for name in "ab":
        assert (views / f"{name}.raw").read_bytes() == disk.bytes


def test_names(datastore, mount, disk, pack):
    """One stem, two files: each keeps its whole name."""
    pack("web.qcow2", "xz", "-O", "qcow2")
    disk.convert(datastore / "web.vmdk", "-O", "vmdk")
    views = mount(datastore)
    assert "web.qcow2.xz.raw" in views.names() and "web.vmdk.raw" in views.names()
    assert (views / "web.qcow2.xz.raw").read_bytes() == disk.bytes


@pytest.mark.parametrize("suffix", PACKERS)
def test_damage(datastore, mount, pack, suffix):
    """Bytes that fail their check are an error, never data."""
    path = pack("disk.raw", suffix)
    size = path.stat().st_size
    views = mount(datastore, SCAN)
    assert views.names() == views_of("disk")
    views.unmount()
    with open(path, "r+b") as file:
        file.seek(size // 2)
        piece = file.read(512)
        file.seek(size // 2)
        file.write(bytes(byte ^ 0x55 for byte in piece))
    views = mount(datastore, SCAN, expect=["cannot be read", "is not shown"])
    if suffix != "xz":  # the look that finds the size has met it
        assert views.names() == []
        return
    with open(views / "disk.raw", "rb", buffering=0) as file:
        failed = 0
        for offset in range(0, 20 * MIB, MIB):
            try:
                os.pread(file.fileno(), MIB, offset)
            except OSError:
                failed += 1
        assert 0 < failed < 10


def test_it_changes(datastore, mount, disk, pack, tmp_path):
    path = pack("disk.raw", "xz")
    views = mount(datastore)
    with open(views / "disk.raw", "rb", buffering=0) as file:
        assert file.read(KIB) == disk.bytes[:KIB]
        images.poke(path, path.stat().st_size - 1, b"Z")
        assert refusal(os.pread, file.fileno(), KIB, 5 * MIB) == "ESTALE"
    images.sparse_file(tmp_path / "other.raw", MIB, (0, b"other"))
    run("xz", tmp_path / "other.raw")
    images.replace(path, tmp_path / "other.raw.xz")
    eventually(lambda: os.stat(views / "disk.raw").st_size == MIB)


def test_what_is_no_image(datastore, mount):
    (datastore / "notes.txt").write_bytes(b"remember the milk\n" * 40)
    run("xz", datastore / "notes.txt")
    (datastore / "broken.qcow2.xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
    (datastore / "fake.qcow2.zst").write_bytes(b"not zstd" * 100)
    views = mount(datastore)
    assert views.names() == []
    for name in ("broken.qcow2.xz", "fake.qcow2.zst"):
        assert views.log_lines(f"{name}' is not shown")
