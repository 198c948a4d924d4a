# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots of a qcow2 as images of their own, with -o snapshots."""

import os
import shutil
import struct

import pytest

import images
from tools import KIB, MIB, VIEWS, check, compare, eventually, refusal, run, same


@pytest.fixture
def web(datastore):
    """10 MiB and then 20 MiB, with a snapshot of each time; now it holds something else again."""
    path = datastore / "web.qcow2"
    images.create(path, "10M")
    write(path, 1)
    snapshot(path, "before")
    run("qemu-img", "resize", "-q", path, "20M")
    write(path, 2)
    snapshot(path, "after")
    write(path, 3)
    return path


def write(path, byte):
    run("qemu-io", "-c", f"write -P {byte} 1M 1M", path)


def snapshot(path, name):
    run("qemu-img", "snapshot", "-c", name, path)


def views_of(*stems):
    return sorted(f"{stem}.{view}" for stem in stems for view in VIEWS)


def exists(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def reverted(path, name, tmp):
    """The disk as qemu-img shows it when a copy of the image goes back to the snapshot."""
    copy, raw = tmp / "reverted.qcow2", tmp / f"{name}.raw"
    shutil.copyfile(path, copy)
    run("qemu-img", "snapshot", "-a", name, copy)
    run("qemu-img", "convert", "-O", "raw", copy, raw)
    return raw


def test_they_are_images(mount, web, tmp_path):
    views = mount(web.parent, "snapshots")
    assert views.names() == views_of("web", "web@before", "web@after")
    for name, size in (("before", 10 * MIB), ("after", 20 * MIB)):
        raw = reverted(web, name, tmp_path)
        assert os.stat(views / f"web@{name}.raw").st_size == size == raw.stat().st_size
        assert same(views / f"web@{name}.raw", raw)
        for view in VIEWS:
            compare(views / f"web@{name}.{view}", view, raw)
            check(views / f"web@{name}.{view}", view)
    assert same(views / "web.qcow2", web)


def test_not_unless_asked_for(mount, web):
    views = mount(web.parent)
    assert views.names() == views_of("web")
    assert not exists(views / "web@before.raw")


def test_listing_and_attributes_agree(mount, web):
    views = mount(web.parent, "snapshots")
    with os.scandir(views.point) as entries:
        listed = {entry.name: entry.inode() for entry in entries}
    assert listed == {name: os.stat(views / name).st_ino for name in views.names()}
    assert len(set(listed.values())) == len(listed) == 9
    assert run("ls", "-l", views.point).out.count("web@") == 6


def test_in_a_directory_of_its_own(mount, web):
    views = mount(web.parent, "snapshots", "layout=dir")
    assert views.names() == ["web"]
    assert views.names("web") == views_of("web", "web@before", "web@after")
    assert os.stat(views / "web" / "web@before.raw").st_size == 10 * MIB


def test_the_whole_name(mount, web, datastore):
    images.create(datastore / "web.vmdk", "1M", image_format="vmdk")
    views = mount(datastore, "snapshots")
    assert not exists(views / "web@before.raw")
    assert {"web.qcow2@before.raw", "web.qcow2@before.qcow2", "web.qcow2@after.vmdk"} <= set(
        views.names()
    )
    assert os.stat(views / "web.qcow2@before.raw").st_size == 10 * MIB


def test_the_whole_name_answers_always(mount, web):
    views = mount(web.parent, "snapshots")
    assert same(views / "web.qcow2@before.raw", views / "web@before.raw")


def test_a_file_of_that_name_is_stronger(mount, web, datastore):
    (datastore / "web@before.raw").write_bytes(bytes(3 * KIB))
    views = mount(datastore, "snapshots")
    names = os.listdir(views.point)
    assert len(names) == len(set(names))
    assert os.stat(views / "web@before.raw").st_size == 3 * KIB
    assert os.stat(views / "web@after.raw").st_size == 20 * MIB


@pytest.mark.parametrize("name", ("v1.2", "a@b", "x.raw", "with space", "ä", "-"))
def test_unusual_names(mount, web, name):
    snapshot(web, name)
    views = mount(web.parent, "snapshots")
    assert f"web@{name}.raw" in views.names()
    assert os.stat(views / f"web@{name}.raw").st_size == 20 * MIB


def test_names_that_no_file_can_have(mount, web):
    """They go by their number, which qemu-img calls the id."""
    for name in ("a/b", "dup", "dup", "x" * 201):
        snapshot(web, name)
    views = mount(web.parent, "snapshots")
    assert views.names() == views_of("web", *(f"web@{n}" for n in ("before", "after", 3, 4, 5, 6)))
    assert not exists(views / "web@dup.raw")


def test_one_that_is_made_meanwhile(mount, web, tmp_path):
    views = mount(web.parent, "snapshots")
    assert not exists(views / "web@third.raw")
    snapshot(web, "third")
    eventually(lambda: "web@third.raw" in views.names())
    assert same(views / "web@third.raw", reverted(web, "third", tmp_path))
    run("qemu-img", "snapshot", "-d", "before", web)
    eventually(lambda: not exists(views / "web@before.raw"))
    assert "web@after.raw" in views.names()


def test_a_reader_while_it_changes(mount, web):
    views = mount(web.parent, "snapshots")
    with open(views / "web@before.raw", "rb", buffering=0) as file:
        assert file.read(KIB) == bytes(KIB)
        snapshot(web, "third")
        assert refusal(os.pread, file.fileno(), KIB, 5 * MIB) == "ESTALE"


def test_a_broken_one_leaves_the_others(mount, web):
    """Its table lies outside the file."""
    with open(web, "rb") as file:
        table = struct.unpack_from(">Q", file.read(72), 64)[0]
    images.poke(web, table, struct.pack(">Q", 1 << 40))
    views = mount(web.parent, "snapshots")
    assert views.names() == views_of("web", "web@after")
    assert views.log_lines("web.qcow2//before.* is not shown: .*L1 table")


def test_a_broken_table_of_them(mount, web):
    images.poke(web, 64, struct.pack(">Q", 1 << 40))
    views = mount(web.parent, "snapshots")
    assert views.names() == views_of("web")
    assert views.log_lines("table of snapshots")


def test_many(mount, web):
    """Only so many are told; the mount is as quick as ever."""
    with open(web, "r+b") as file:
        header = file.read(72)
        offset = struct.unpack_from(">Q", header, 64)[0]
        file.seek(offset)
        entry = bytearray(file.read(40))
        end = file.seek(0, os.SEEK_END)
        end += -end % 65536
        entries = bytearray()
        for number in range(5000):
            name = b"%d" % number
            entry[12:16] = struct.pack(">HH", 0, len(name))
            entry[36:40] = struct.pack(">I", 0)
            entries += entry + name
            entries += bytes(-len(entries) % 8)
        file.seek(end)
        file.write(entries)
        file.seek(60)
        file.write(struct.pack(">IQ", 5000, end))
    views = mount(web.parent, "snapshots")
    names = views.names()
    assert len(names) == 3 * 1025
    assert os.stat(views / "web@1023.raw").st_size == 20 * MIB
    assert not exists(views / "web@1024.raw")


def test_a_backing_file_of_a_snapshot(mount, datastore, tmp_path):
    """What the snapshot does not hold is its backing file's."""
    images.create(datastore / "web-base.qcow2", "4M")
    write(datastore / "web-base.qcow2", 7)
    path = datastore / "web.qcow2"
    images.create(path, "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    run("qemu-io", "-c", "write -P 8 0 64k", path)
    snapshot(path, "before")
    run("qemu-io", "-c", "write -P 9 0 4M", path)
    views = mount(datastore, "snapshots")
    disk = (views / "web@before.raw").read_bytes()
    assert disk == b"\x08" * 64 * KIB + bytes(MIB - 64 * KIB) + b"\x07" * MIB + bytes(2 * MIB)
