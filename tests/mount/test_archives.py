# SPDX-License-Identifier: Apache-2.0
"""An OVA is a directory of the views of its disks, read where they are in the archive."""

import io
import os
import shutil
import stat
import tarfile

import pytest

import images
from tools import KIB, MIB, VIEWS, compare, eventually, pattern, refusal, run, same

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References>{files}</References>
  <DiskSection><Info>disks</Info>{disks}</DiskSection>
</Envelope>
"""


def ovf(*names):
    files = "".join(f'<File ovf:id="f{i}" ovf:href="{n}"/>' for i, n in enumerate(names))
    disks = "".join(
        f'<Disk ovf:diskId="d{i}" ovf:fileRef="f{i}" ovf:capacity="1"/>' for i, _ in enumerate(names)
    )
    return OVF.format(files=files, disks=disks).encode()


def add_bytes(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def make_ova(disk, tmp_path):
    """make_ova(PATH, NAME=qemu-img's options …): an OVA with the sample disk in each format."""

    def make(path, **disks):
        names = {name.replace("__", "-").replace("_", "."): opts for name, opts in disks.items()}
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            add_bytes(archive, f"{path.stem}.ovf", ovf(*names))
            for name, options in names.items():
                disk.convert(tmp_path / "member", *options)
                archive.add(tmp_path / "member", arcname=name)
        return path

    return make


STREAM = ["-O", "vmdk", "-o", "subformat=streamOptimized"]


def exists(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def views_of(*stems):
    return sorted(f"{stem}.{view}" for stem in stems for view in VIEWS)


def test_its_disks(datastore, mount, disk, make_ova):
    make_ova(datastore / "app.ova", app__disk1_vmdk=STREAM, data_qcow2=["-O", "qcow2"])
    disk.save(datastore / "app.img")
    views = mount(datastore)
    assert views.names() == sorted(["app.ova"] + views_of("app"))
    assert views.names("app.ova") == views_of("app-disk1", "data")
    for name in ("app-disk1", "data"):
        assert (views / "app.ova" / f"{name}.raw").read_bytes() == disk.bytes
        for view in ("qcow2", "vmdk"):
            compare(views / "app.ova" / f"{name}.{view}", view, disk.path)


def test_a_member_is_served_as_it_is(datastore, mount, make_ova, tmp_path):
    path = make_ova(datastore / "app.ova", disk1_vmdk=STREAM)
    with tarfile.open(path) as archive:
        archive.extract("disk1.vmdk", tmp_path)
    views = mount(datastore)
    assert same(views / "app.ova" / "disk1.vmdk", tmp_path / "disk1.vmdk")
    run("cp", views / "app.ova" / "disk1.vmdk", tmp_path / "copy.vmdk")
    assert same(tmp_path / "copy.vmdk", tmp_path / "disk1.vmdk")


def test_its_attributes(datastore, mount, make_ova):
    path = make_ova(datastore / "app.ova", disk1_vmdk=STREAM)
    os.chmod(path, 0o640)
    views = mount(datastore)
    st = os.stat(views / "app.ova")
    assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o550
    assert stat.S_IMODE(os.stat(views / "app.ova" / "disk1.raw").st_mode) == 0o440
    assert os.stat(views / "app.ova" / "disk1.raw").st_mtime_ns == os.stat(path).st_mtime_ns
    assert refusal(os.mkdir, views / "app.ova" / "x") == "EROFS"
    assert not exists(views / "app.ova" / "app.ovf") and not exists(views / "app.ova" / "x.raw")


def test_with_a_directory_for_each_image(datastore, mount, disk, make_ova):
    make_ova(datastore / "app.ova", disk1_vmdk=STREAM, data_vmdk=STREAM)
    views = mount(datastore, "layout=dir", "views=raw")
    assert views.names("app.ova") == ["data", "disk1"]
    assert views.names("app.ova/disk1") == ["disk1.raw"]
    assert (views / "app.ova" / "disk1" / "disk1.raw").read_bytes() == disk.bytes


def test_snapshots_in_it(datastore, mount, disk, tmp_path):
    disk.convert(tmp_path / "disk1.qcow2", "-O", "qcow2")
    run("qemu-img", "snapshot", "-c", "before", tmp_path / "disk1.qcow2")
    run("qemu-io", "-c", "write -P 1 0 1M", tmp_path / "disk1.qcow2")
    with tarfile.open(datastore / "app.ova", "w") as archive:
        add_bytes(archive, "app.ovf", ovf("disk1.qcow2"))
        archive.add(tmp_path / "disk1.qcow2", arcname="disk1.qcow2")
    views = mount(datastore, "snapshots")
    assert views.names("app.ova") == views_of("disk1", "disk1@before")
    assert (views / "app.ova" / "disk1@before.raw").read_bytes() == disk.bytes


def test_a_name_of_two_formats(datastore, mount, make_ova):
    make_ova(datastore / "app.ova", d_vmdk=STREAM, d_qcow2=["-O", "qcow2"])
    views = mount(datastore)
    assert "d.qcow2.raw" in views.names("app.ova") and "d.vmdk.raw" in views.names("app.ova")


def test_what_is_no_ova(datastore, mount):
    (datastore / "empty.ova").write_bytes(b"")
    (datastore / "text.ova").write_bytes(b"not a tar\n" * 400)
    with tarfile.open(datastore / "noovf.ova", "w") as archive:
        add_bytes(archive, "disk.vmdk", bytes(512))
    views = mount(datastore)
    assert views.names() == []
    for name in ("empty", "text", "noovf"):
        assert views.log_lines(rf"{name}\.ova' is not shown"), views.log()
        assert not exists(views / f"{name}.ova")
        assert not exists(views / f"{name}.ova" / "disk.raw")


def test_a_bad_disk_leaves_the_others(datastore, mount, disk, tmp_path):
    disk.convert(tmp_path / "good.vmdk", *STREAM)
    with tarfile.open(datastore / "app.ova", "w") as archive:
        add_bytes(archive, "app.ovf", ovf("bad.vmdk", "good.vmdk", "packed.vmdk", "missing.vmdk"))
        add_bytes(archive, "bad.vmdk", b"KDMV" + bytes(2000))
        archive.add(tmp_path / "good.vmdk", arcname="good.vmdk")
        add_bytes(archive, "packed.vmdk", b"\x1f\x8b\x08" + bytes(2000))
    views = mount(datastore)
    assert views.names("app.ova") == views_of("good")
    assert (views / "app.ova" / "good.raw").read_bytes() == disk.bytes
    assert views.log_lines("app.ova/bad.vmdk' is not shown")
    assert views.log_lines("app.ova/packed.vmdk' is not shown: .*gzip")


def test_nothing_outside_is_reached(datastore, mount, tmp_path):
    """A disk of the OVA names a file beside it, in the archive; not one of the datastore."""
    (datastore / "secret.raw").write_bytes(pattern(1, 4096))
    (datastore / "d-flat.vmdk").write_bytes(pattern(2, 4096))
    text = (
        '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 8 FLAT "{}" 0\n'
    )
    with tarfile.open(datastore / "app.ova", "w") as archive:
        names = ("d.vmdk", "e.vmdk", "f.vmdk", "f-flat.vmdk")
        add_bytes(archive, "app.ovf", ovf(*names[:3]))
        add_bytes(archive, "d.vmdk", text.format("d-flat.vmdk").encode())
        add_bytes(archive, "e.vmdk", text.format("../secret.raw").encode())
        add_bytes(archive, "f.vmdk", text.format(f"{datastore}/secret.raw").encode())
    views = mount(datastore, "references=datastore")
    for name in "de":
        assert not exists(views / "app.ova" / f"{name}.raw"), views.log()


def test_it_changes(datastore, mount, make_ova, disk):
    path = make_ova(datastore / "app.ova", one_vmdk=STREAM)
    views = mount(datastore)
    assert (views / "app.ova" / "one.raw").read_bytes() == disk.bytes
    other = make_ova(datastore.with_name("other.ova"), two_vmdk=STREAM)
    images.replace(path, other)
    eventually(lambda: views.names("app.ova") == views_of("two"))
    with open(path, "r+b") as file:
        file.truncate(64 * KIB)
    eventually(lambda: views.names() == [] or views.names("app.ova") == [])
    shutil.copyfile(other, path)
    eventually(lambda: exists(views / "app.ova" / "two.raw"))
    os.unlink(path)
    eventually(lambda: views.names() == [])


def test_a_reader_of_one_that_is_written_over(datastore, mount, make_ova):
    path = make_ova(datastore / "app.ova", one_vmdk=STREAM)
    views = mount(datastore)
    with open(views / "app.ova" / "one.raw", "rb", buffering=0) as file:
        assert file.read(KIB)
        images.poke(path, 5 * MIB, b"x")
        assert refusal(os.pread, file.fileno(), KIB, 4 * MIB) == "ESTALE"


def test_zero_copy(datastore, mount, make_ova, disk):
    """The place in the archive, not that in the member, is what the kernel is told."""
    make_ova(datastore / "app.ova", one_raw=["-O", "raw"], two_qcow2=["-O", "qcow2"])
    views = mount(datastore, "zero_copy")
    assert (views / "app.ova" / "one.raw").read_bytes() == disk.bytes
    assert (views / "app.ova" / "two.raw").read_bytes() == disk.bytes
    compare(views / "app.ova" / "one.qcow2", "qcow2", disk.path)
