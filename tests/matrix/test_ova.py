# SPDX-License-Identifier: Apache-2.0
"""OVA: against QEMU, which is told where in the archive a disk is, and archives that are no good."""

import json
import os
import tarfile

import pytest
import shapes
import sources
from ova_writer import BLOCK, END, header, ovf, pad, pax, windows, write_tar
from shapes import MIB
from stores import raw, raw_bytes
from test_references import refused, served
from tools import assert_same, qemu_img, run

NAME = "vm.ova"


def window_of(source):
    """What QEMU has to be told."""
    archive, _, name = source.path.partition("/")
    found = [w for n, w in windows(source.root / archive).items() if n.rpartition("/")[2] == name]
    assert len(found) == 1
    place = {"driver": "raw", "offset": found[0][0], "size": found[0][1]}
    place["file"] = {"driver": "file", "filename": os.fspath(source.root / archive)}
    return "json:" + json.dumps({"driver": source.driver, "file": place})


@pytest.mark.parametrize(
    "name",
    ("ova-stream", "ova-by-gnu-tar", "ova-gnu", "ova-pax", "ova-ustar-prefix", "ova-ovirt", "ova-by-hand"),
)
def test_qemu_sees_the_same(viewcat, tmp, name):
    source = sources.make(tmp, name, shapes.FRAG)
    viewcat.of(source, "copy", "raw", tmp / "raw")
    qemu_img("convert", "-O", "raw", window_of(source), tmp / "by-qemu")
    assert_same(tmp / "by-qemu", tmp / "raw", pad=True)
    qemu_img("compare", window_of(source), "json:" + json.dumps({"driver": "raw", "file": {
        "driver": "file", "filename": os.fspath(tmp / "raw")}}))  # fmt: skip


@pytest.mark.parametrize("name", ("ova-stream", "ova-gnu", "ova-pax", "ova-ovirt"))
def test_7z_unpacks_the_same(viewcat, tmp, name):
    source = sources.make(tmp, name, shapes.TAIL if name in ("ova-stream", "ova-ovirt") else shapes.FRAG)
    member = next(n for n in windows(source.root / NAME) if n.endswith(source.path.partition("/")[2]))
    viewcat.of(source, "copy", source.format, tmp / "copy")
    run("7z", "x", "-ttar", f"-o{tmp / 'out'}", source.root / NAME, member)
    assert_same(tmp / "out" / member, tmp / "copy")


def disk(store, members=(), **kwargs):
    """An archive of disk.raw, 1 MiB, and what else is said."""
    raw(store / "disk.raw")
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.raw", kwargs)])), *members, ("disk.raw", store / "disk.raw")])
    (store / "disk.raw").unlink()


def test_only_what_the_descriptor_lists(viewcat, store):
    disk(store, [("secret.raw", raw_bytes(1))])
    served(viewcat, store, f"{NAME}/disk.raw", raw_bytes())
    refused(viewcat, store, f"{NAME}/secret.raw", "ENOENT")
    refused(viewcat, store, f"{NAME}/vm.ovf", "ENOENT")


def test_an_archive_is_no_image(viewcat, store):
    disk(store)
    refused(viewcat, store, NAME, "ENOTSUP")


def test_compressed_disk(viewcat, store):
    disk(store, compression="gzip")
    assert "compressed" in refused(viewcat, store, f"{NAME}/disk.raw", "ENOTSUP")


def test_compressed_disk_that_is_not_called_so(viewcat, store):
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.vmdk", {})])), ("disk.vmdk", b"\x1f\x8b" + bytes(5000))])
    assert "gzip" in refused(viewcat, store, f"{NAME}/disk.vmdk", "EINVAL")


@pytest.mark.parametrize("policy", ("family", "datastore"))
def test_references_stay_in_the_archive(viewcat, store, policy):
    """Beside the archive there is a file of the name that an image in it asks for."""
    overlay = store / "disk.qcow2"
    raw(store / "disk-base.raw")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "disk-base.raw", "-F", "raw", overlay)
    inside = [("disk.qcow2", overlay)]
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.qcow2", {})])), *inside])
    refused(viewcat, store, f"{NAME}/disk.qcow2", "ENOENT", options=("-r", policy))
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.qcow2", {})])), *inside, ("disk-base.raw", raw_bytes())])
    refused(viewcat, store, f"{NAME}/disk.qcow2", "ENOENT", options=("-r", policy))
    files = [("disk.qcow2", {}), ("disk-base.raw", {})]
    write_tar(store / NAME, [("vm.ovf", ovf(files, [0])), *inside, ("disk-base.raw", raw_bytes(4))])
    served(viewcat, store, f"{NAME}/disk.qcow2", raw_bytes(4), options=("-r", policy))
    refused(viewcat, store, f"{NAME}/disk.qcow2", "EPERM", options=("-r", "none"))


def test_references_do_not_go_into_an_archive(viewcat, store):
    """Except where an image may name any file."""
    disk(store)
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", f"{NAME}/disk.raw", "-F", "raw", store / "vm.qcow2", "1M")
    refused(viewcat, store, "vm.qcow2", "EPERM")
    served(viewcat, store, "vm.qcow2", raw_bytes(), options=("-r", "datastore"))


def test_a_disk_in_an_archive_twice(viewcat, store):
    """Its own backing file."""
    overlay = store / "disk.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", overlay, "1M")
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.qcow2", {})])), ("disk.qcow2", overlay)])
    refused(viewcat, store, f"{NAME}/disk.qcow2", "ELOOP", options=("-r", "datastore"))


@pytest.mark.parametrize(
    "head",
    (
        '<!DOCTYPE Envelope SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE Envelope [<!ENTITY x "y">]>',
        '<!DOCTYPE e [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE Envelope [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]>',
    ),
)
def test_entities(viewcat, store, head):
    write_tar(store / NAME, [("vm.ovf", ovf([("disk.raw", {})], head=head)), ("disk.raw", bytes(MIB))])
    assert "document type" in refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL")


def test_deep_descriptor(viewcat, store):
    text = b"<Envelope>" + b"<a>" * 1000000 + b"</a>" * 1000000 + b"</Envelope>"
    write_tar(store / NAME, [("vm.ovf", text), ("disk.raw", bytes(MIB))])
    refused(viewcat, store, f"{NAME}/disk.raw", "ENOENT")


def test_cut_archive(viewcat, store):
    """A member of which a part is missing is refused, and the others are there."""
    first, second = raw_bytes(1), raw_bytes(2)
    files = [("a.raw", {}), ("b.raw", {})]
    write_tar(store / NAME, [("vm.ovf", ovf(files)), ("a.raw", first), ("b.raw", second)])
    offset, size = windows(store / NAME)["b.raw"]
    os.truncate(store / NAME, offset + size)
    served(viewcat, store, f"{NAME}/b.raw", second)
    os.truncate(store / NAME, offset + size - 1)
    served(viewcat, store, f"{NAME}/a.raw", first)
    assert "ends before" in refused(viewcat, store, f"{NAME}/b.raw", "EINVAL")


@pytest.mark.parametrize(
    "member",
    (
        header(b"disk.raw", 0, kind=b"2", link=b"/etc/passwd"),
        header(b"disk.raw", 0, kind=b"1", link=b"vm.ovf"),
        header(b"disk.raw", 0, kind=b"5"),
        header(b"disk.raw", 0, kind=b"3"),
        header(b"disk.raw", 0, kind=b"6"),
        pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"disk.raw"),
             (b"GNU.sparse.realsize", b"4096")]) + header(b"disk.raw", 1024) + pad(b"1\n0\n512\n") + bytes(512),
    ),
    ids=("symlink", "hardlink", "directory", "device", "fifo", "sparse"),
)  # fmt: skip
def test_members_that_are_no_plain_files(viewcat, store, member):
    descriptor = ovf([("disk.raw", {})])
    (store / NAME).write_bytes(header(b"vm.ovf", len(descriptor)) + pad(descriptor) + member + END)
    refused(viewcat, store, f"{NAME}/disk.raw", "ENOTSUP")


@pytest.mark.parametrize("size", (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
@pytest.mark.parametrize("how", ("base256", "pax"))
def test_sizes_that_cannot_be(viewcat, store, size, how):
    descriptor = ovf([("disk.raw", {})])
    member = header(b"disk.raw", size, base256=True)
    if how == "pax":
        member = pax([(b"size", b"%d" % size)]) + header(b"disk.raw", 0)
    (store / NAME).write_bytes(header(b"vm.ovf", len(descriptor)) + pad(descriptor) + member + bytes(MIB) + END)
    refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL", "ENOENT")


def test_long_headers(viewcat, store):
    """A pax header of 64 MiB, and headers without end."""
    descriptor = ovf([("disk.raw", {})])
    begin = header(b"vm.ovf", len(descriptor)) + pad(descriptor)
    with open(store / NAME, "wb") as file:
        file.write(begin + header(b"pax", 64 * MIB, kind=b"x"))
        file.truncate(80 * MIB)
    refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL", "ENOENT")
    with open(store / NAME, "wb") as file:
        file.write(begin)
        for _ in range(80):
            file.write(pax([(b"comment", b"x" * 1000000)]) + header(b"none", 0))
    assert "MiB" in refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL")
    (store / NAME).write_bytes(begin + pax([(b"comment", b"")]) * 5000)
    refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL", "ENOENT")


def test_no_tar(viewcat, store):
    for content in (b"", b"x", bytes(BLOCK), bytes(MIB), b"\xff" * 4096, b"PK\x03\x04" + bytes(5000)):
        (store / NAME).write_bytes(content)
        refused(viewcat, store, f"{NAME}/disk.raw", "EINVAL")


def test_names_that_are_not_ascii(viewcat, store):
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "Größe €.raw"
        write_tar(store / NAME, [("vm.ovf", ovf([(name, {})])), (name, raw_bytes())], tar_format)
        served(viewcat, store, f"{NAME}/{name}", raw_bytes())


def test_a_directory_may_be_called_so(viewcat, store):
    (store / "dir.ova").mkdir()
    raw(store / "dir.ova/disk.raw")
    served(viewcat, store, "dir.ova/disk.raw", raw_bytes())
    refused(viewcat, store, "dir.ova/none.raw", "ENOENT")
