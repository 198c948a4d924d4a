# SPDX-License-Identifier: Apache-2.0
"""Images that cannot be served faithfully are absent, and the log says once which and why."""

import os
import struct
import time

import pytest

import images
from tools import KIB, MIB, VIEWS, pattern, refusal, run


def lines_about(mount, name):
    return [line for line in mount.log().splitlines() if name in line]


def assert_absent(mount, source, reason, seen=()):
    """No view of the source is there by any name, and one line tells the reason."""
    for _ in range(2):
        assert mount.names() == sorted(seen)
    for view in VIEWS:
        for name in (f"{images.stem(source)}.{view}", f"{source}.{view}"):
            if name not in seen:
                assert refusal(os.stat, mount / name) == "ENOENT"
                assert refusal(os.open, mount / name, os.O_RDONLY) == "ENOENT"
    lines = lines_about(mount, f"'{source}'")
    assert len(lines) == 1, lines
    assert reason.lower() in lines[0].lower(), lines[0]


# qcow2: name of the case, offset and bytes to write, a word of the reason
QCOW2_DAMAGE = {
    "version": (4, struct.pack(">I", 4), "version"),
    "cluster bits": (20, struct.pack(">I", 22), "cluster"),
    "encrypted": (32, struct.pack(">I", 1), "encrypt"),
    "unknown feature": (72, struct.pack(">Q", 1 << 17), "feature"),
    "no magic": (0, b"NOPE", "qcow2"),
    "L1 table outside the file": (40, struct.pack(">Q", 1 << 40), "L1"),
    "L1 table too small": (36, struct.pack(">I", 0), "L1"),
}


@pytest.mark.parametrize("case", QCOW2_DAMAGE)
def test_damaged_qcow2(datastore, mount, case):
    offset, data, reason = QCOW2_DAMAGE[case]
    images.create(datastore / "bad.qcow2", "64M")
    run("qemu-io", "-c", "write 0 128k", datastore / "bad.qcow2")
    images.poke(datastore / "bad.qcow2", offset, data)
    assert_absent(mount(datastore), "bad.qcow2", reason)


def create_luks(path):
    """qemu-img measures the processor first, and on a busy machine gives up at times."""
    for left in reversed(range(10)):
        try:
            return run(
                *("qemu-img", "create", "-qf", "qcow2", "--object", "secret,id=s,data=abc"),
                *("-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
                *(path, "1M"),
            )
        except AssertionError as failure:
            if left == 0 or "CPU usage" not in str(failure):
                raise


def test_luks_in_qcow2(datastore, mount):
    create_luks(datastore / "secret.qcow2")
    assert_absent(mount(datastore), "secret.qcow2", "encrypt")


VMDK_DAMAGE = {
    "version": (4, struct.pack("<I", 4), "version"),
    "grain of three sectors": (20, struct.pack("<Q", 3), "grain"),
    "directory outside the file": (56, struct.pack("<Q", 1 << 40), "directory"),
    "no magic": (0, b"NOPE", "vmdk"),
}


@pytest.mark.parametrize("case", VMDK_DAMAGE)
def test_damaged_vmdk(datastore, disk, mount, case):
    offset, data, reason = VMDK_DAMAGE[case]
    disk.convert(datastore / "bad.vmdk", "-O", "vmdk")
    images.poke(datastore / "bad.vmdk", offset, data)
    if case.startswith("directory"):
        images.poke(datastore / "bad.vmdk", 48, data)  # and its copy
    assert_absent(mount(datastore), "bad.vmdk", reason)


def test_a_file_cut_short(datastore, disk, mount):
    disk.convert(datastore / "cut.qcow2", "-O", "qcow2")
    os.truncate(datastore / "cut.qcow2", 100)
    assert_absent(mount(datastore), "cut.qcow2", "")


def test_a_missing_extent(datastore, disk, mount):
    disk.convert(datastore / "flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
    os.rename(datastore / "flat-flat.vmdk", datastore / ".gone")
    views = mount(datastore)
    assert_absent(views, "flat.vmdk", "flat-flat.vmdk")


def test_an_extent_that_comes_back(datastore, disk, mount):
    disk.convert(datastore / "flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
    os.rename(datastore / "flat-flat.vmdk", datastore / ".gone")
    views = mount(datastore)
    assert views.names() == []
    os.rename(datastore / ".gone", datastore / "flat-flat.vmdk")
    limit = time.monotonic() + 8
    while views.names() != ["flat.qcow2", "flat.raw", "flat.vmdk"]:
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert (views / "flat.raw").read_bytes() == disk.bytes


def test_a_missing_base(datastore, mount):
    images.create(datastore / "web-base.qcow2", "4M")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    os.unlink(datastore / "web-base.qcow2")
    assert_absent(mount(datastore), "web.qcow2", "web-base.qcow2")


def test_a_chain_that_names_itself(datastore, mount):
    images.create(datastore / "loop.qcow2", "4M")
    run(
        *("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2"),
        *("-b", "loop.qcow2", datastore / "loop.qcow2"),
    )
    views = mount(datastore, "references=datastore")
    assert_absent(views, "loop.qcow2", "")


# ---- the references policy ----


@pytest.fixture
def chains(datastore):
    """An image with a base of its own family, and one with a base of another's."""
    for name, base in (("web.qcow2", "web-base.qcow2"), ("mail.qcow2", "golden.qcow2")):
        images.create(datastore / base, "4M")
        run("qemu-io", "-c", f"write -P {len(base)} 0 64k", datastore / base)
        images.create(datastore / name, "4M", "-b", base, "-F", "qcow2")
    return datastore


BASES = [f"{stem}.{view}" for stem in ("golden", "web-base") for view in VIEWS]
WEB = [f"web.{view}" for view in VIEWS]
MAIL = [f"mail.{view}" for view in VIEWS]


def test_an_image_names_its_own_family_only(chains, mount):
    views = mount(chains)
    assert_absent(views, "mail.qcow2", "references=datastore", seen=BASES + WEB)
    assert (views / "web.raw").read_bytes()[0] == len("web-base.qcow2")
    assert "golden.qcow2" in lines_about(views, "'mail.qcow2'")[0]


def test_references_datastore(chains, mount):
    views = mount(chains, "references=datastore")
    assert views.names() == sorted(BASES + WEB + MAIL)
    assert (views / "mail.raw").read_bytes()[0] == len("golden.qcow2")


def test_references_none(chains, mount):
    views = mount(chains, "references=none")
    assert views.names() == sorted(BASES)
    assert len(lines_about(views, "'web.qcow2'")) == 1
    assert len(lines_about(views, "'mail.qcow2'")) == 1


@pytest.mark.parametrize("policy", ["family", "datastore"])
@pytest.mark.parametrize("place", ["absolute", "dots", "symlink"])
def test_nothing_outside_the_datastore(datastore, mount, tmp_path, policy, place):
    """Whatever the policy, a name cannot lead out of the root."""
    secret = tmp_path / "x-secret.raw"
    secret.write_bytes(b"secret" + bytes(1 * MIB - 6))
    name = {"absolute": secret, "dots": "../x-secret.raw", "symlink": "x-link.raw"}[place]
    os.symlink(secret, datastore / "x-link.raw")
    images.create(datastore / "x.qcow2", "1M", "-u", "-b", str(name), "-F", "raw")
    views = mount(datastore, f"references={policy}", "follow_symlinks")
    assert_absent(views, "x.qcow2", "")


def test_an_absolute_name_beneath_the_root(datastore, mount):
    (datastore / "x-base.raw").write_bytes(pattern(1, MIB))
    images.create(datastore / "x.qcow2", "1M", "-b", str(datastore / "x-base.raw"), "-F", "raw")
    views = mount(datastore)
    assert (views / "x.raw").read_bytes() == pattern(1, MIB)


@pytest.mark.parametrize("name", ["a_guests_disk", "a_guests_disk.img", "0123456789abcdef"])
def test_what_nobody_declared_names_nothing(datastore, mount, name):
    """Magic alone makes an image, but one that may not name a base, not even of its family."""
    (datastore / f"{name.partition('.')[0]}-base.raw").write_bytes(pattern(1, MIB))
    base = f"{name.partition('.')[0]}-base.raw"
    images.create(datastore / name, "1M", "-b", base, "-F", "raw")
    views = mount(datastore)
    stem = name.partition(".")[0]
    assert_absent(views, name, "", seen=[f"{stem}-base.{view}" for view in VIEWS])


def test_refusals_leave_the_others_alone(datastore, disk, mount):
    for number in range(40):
        images.create(datastore / f"bad{number}.qcow2", "1M")
        images.poke(datastore / f"bad{number}.qcow2", 72, b"\xff")
    disk.save(datastore / "good.raw")
    views = mount(datastore)
    assert views.names() == [f"good.{view}" for view in VIEWS]
    assert len(views.log_lines("is not shown")) == 40
    assert (views / "good.raw").read_bytes() == disk.bytes


def test_names_in_the_log_are_quoted(datastore, mount):
    """A file's name cannot write a line of its own, nor a terminal's control sequence."""
    name = b"evil\nimgfs: all is well\x1b[31m'.qcow2"
    with open(os.path.join(os.fsencode(datastore), name), "wb") as file:
        file.write(b"QFI\xfb" + bytes(500))
    views = mount(datastore)
    assert views.names() == []
    lines = views.log_events()
    assert len(lines) == 1
    assert "evil\\x0a" in lines[0] and "\\x1b" in lines[0] and "\x1b" not in lines[0]


def test_another_file_system_is_not_entered(datastore, disk, mount):
    """What is mounted inside the datastore belongs to somebody else's policy."""
    (datastore / "sub").mkdir()
    run("mount", "-t", "tmpfs", "none", datastore / "sub")
    try:
        disk.save(datastore / "sub" / "inside.raw")
        disk.save(datastore / "good.raw")
        run(
            *("qemu-img", "create", "-f", "qcow2", "-F", "raw"),
            *("-b", "sub/inside.raw", datastore / "over.qcow2"),
        )
        views = mount(datastore, "references=datastore")
        assert not [name for name in views.names() if name.startswith("over")]
        assert refusal(os.listdir, views / "sub") == "ENOENT"
        assert refusal(os.stat, views / "sub/inside.raw") == "ENOENT"
        assert (views / "good.raw").read_bytes() == disk.bytes
        (line,) = views.log_lines("over.qcow2")
        assert "another file system" in line
    finally:
        run("umount", datastore / "sub")


# ---- damage that is met when reading ----


def test_damage_in_one_place_is_an_error_there_alone(datastore, disk, mount):
    """The table entry of one cluster points outside the file."""
    disk.convert(datastore / "hurt.qcow2", "-O", "qcow2")
    with open(datastore / "hurt.qcow2", "rb") as file:
        head = file.read(512 * KIB)
    l1 = int.from_bytes(head[40:48], "big")
    l2 = int.from_bytes(head[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00
    at = 3 * MIB // (64 * KIB) + 1  # the second cluster of a stretch of data
    images.poke(datastore / "hurt.qcow2", l2 + 8 * at, struct.pack(">Q", 1 << 63 | 1 << 45))
    views = mount(datastore)
    views.expect_log("hurt")
    assert views.names() == [f"hurt.{view}" for view in VIEWS]
    fd = os.open(views / "hurt.raw", os.O_RDONLY | os.O_DIRECT)
    try:
        lost = at * 64 * KIB
        assert refusal(os.pread, fd, 4096, lost) == "EIO"
        assert refusal(os.pread, fd, 4096, lost + 60 * KIB) == "EIO"
    finally:
        os.close(fd)
    fd = os.open(views / "hurt.raw", os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(fd, 64 * KIB, lost - 64 * KIB) == disk.bytes[lost - 64 * KIB : lost]
        after = lost + 64 * KIB
        assert os.pread(fd, 64 * KIB, after) == disk.bytes[after : after + 64 * KIB]
        assert os.pread(fd, MIB, 12 * MIB) == disk.bytes[12 * MIB : 13 * MIB]
    finally:
        os.close(fd)
    for view in ("raw", "vmdk"):
        copy = run("cp", views / f"hurt.{view}", datastore.with_name("copy"), check=False)
        assert copy.returncode != 0 and "Input/output error" in copy.err
    assert len(views.log_lines("hurt")) >= 1


def test_a_packed_unit_that_does_not_unpack(datastore, disk, mount):
    disk.convert(datastore / "hurt.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized")
    size = (datastore / "hurt.vmdk").stat().st_size
    images.poke(datastore / "hurt.vmdk", size // 2 // 512 * 512 + 20, pattern(1, 128 * KIB))
    views = mount(datastore)
    views.expect_log("hurt")
    for view in ("raw", "qcow2"):
        copy = run("cp", views / f"hurt.{view}", datastore.with_name("copy"), check=False)
        assert copy.returncode != 0 and "Input/output error" in copy.err
    with open(views / "hurt.raw", "rb") as file:
        assert file.read(64 * KIB) == disk.bytes[: 64 * KIB]
