# SPDX-License-Identifier: Apache-2.0
"""What the mount looks like from outside: read-only, the sources' owners, modes and times."""

import os
import stat

import pytest

import images
from mounting import mounted_at
from tools import MIB, pattern, refusal, run


def test_mount_flags(sample):
    info = mounted_at(sample.mount.point)
    assert {"ro", "nosuid", "nodev", "noexec"} <= info.flags
    assert info.type == "fuse.imgfs"
    assert info.source == str(sample.datastore)
    super_options = info.super_options.split(",")
    assert "ro" in super_options
    assert "default_permissions" in super_options
    assert "allow_other" in super_options  # because root mounts it


def test_options_that_would_loosen_the_mount_do_nothing(sample, mount):
    """mount.fuse3 adds dev,suid to what root mounts."""
    views = mount(sample.datastore, "dev,suid,exec")
    assert {"ro", "nosuid", "nodev", "noexec"} <= mounted_at(views.point).flags


def test_odd_datastore_names_are_told_to_the_kernel(mount, tmp_path):
    datastore = tmp_path / "data, store\\with=odd\nname"
    datastore.mkdir()
    (datastore / "a.raw").write_bytes(bytes(1024))
    views = mount(datastore)
    assert mounted_at(views.point).source == str(datastore)
    assert views.names() == ["a.qcow2", "a.raw", "a.vmdk"]


@pytest.fixture(scope="module")
def tree(module_mount, tmp_path_factory):
    datastore = tmp_path_factory.mktemp("tree")
    (datastore / "sub").mkdir()
    (datastore / "sub" / "b.raw").write_bytes(pattern(1, 8192))
    (datastore / "a.raw").write_bytes(pattern(2, 8192))
    return module_mount(datastore)


WRITES = {
    "open for writing": lambda m: os.open(m / "a.qcow2", os.O_WRONLY),
    "open for both": lambda m: os.open(m / "a.qcow2", os.O_RDWR),
    "open to append": lambda m: os.open(m / "a.raw", os.O_WRONLY | os.O_APPEND),
    "open and truncate": lambda m: os.open(m / "a.raw", os.O_RDONLY | os.O_TRUNC),
    "create": lambda m: os.open(m / "new.raw", os.O_RDWR | os.O_CREAT, 0o600),
    "create below": lambda m: os.open(m / "sub/new", os.O_WRONLY | os.O_CREAT, 0o600),
    "truncate": lambda m: os.truncate(m / "a.vmdk", 0),
    "unlink": lambda m: os.unlink(m / "a.raw"),
    "mkdir": lambda m: os.mkdir(m / "new"),
    "rmdir": lambda m: os.rmdir(m / "sub"),
    "rename": lambda m: os.rename(m / "a.raw", m / "c.raw"),
    "rename over": lambda m: os.rename(m / "a.raw", m / "sub/b.raw"),
    "link": lambda m: os.link(m / "a.raw", m / "c.raw"),
    "symlink": lambda m: os.symlink("a.raw", m / "link"),
    "mkfifo": lambda m: os.mkfifo(m / "fifo"),
    "mknod": lambda m: os.mknod(m / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "chmod": lambda m: os.chmod(m / "a.raw", 0o600),
    "chmod of a directory": lambda m: os.chmod(m / "sub", 0o700),
    "chmod of the root": lambda m: os.chmod(m.point, 0o700),
    "chown": lambda m: os.chown(m / "a.raw", 1, 1),
    "utimens": lambda m: os.utime(m / "a.raw", (1, 1)),
    "setxattr": lambda m: os.setxattr(m / "a.raw", "user.test", b"x"),
    "removexattr": lambda m: os.removexattr(m / "a.raw", "user.test"),
    "tmpfile": lambda m: os.open(m.point, os.O_TMPFILE | os.O_RDWR, 0o600),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_writes_are_refused(tree, write):
    names = tree.names()
    assert refusal(write, tree) == "EROFS"
    assert tree.names() == names


def test_writes_are_refused_after_a_remount(datastore, mount):
    """An admin's remount,rw makes the kernel let requests through; imgfs refuses them itself."""
    (datastore / "a.raw").write_bytes(pattern(2, 8192))
    (datastore / "sub").mkdir()
    views = mount(datastore)
    # By mount(2): through fsconfig(2), as newer mount(8) would, FUSE allows no changes.
    environment = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
    run("mount", "-i", "-o", "remount,rw", views.point, env=environment)
    assert "ro" not in mounted_at(views.point).flags
    outcome = {}
    for name, write in WRITES.items():
        outcome[name] = refusal(write, views)
    assert outcome.pop("tmpfile") in ("EROFS", "ENOTSUP")  # the kernel asks nobody
    assert set(outcome.values()) == {"EROFS"}, outcome
    assert (datastore / "a.raw").read_bytes() == pattern(2, 8192)
    assert sorted(os.listdir(datastore)) == ["a.raw", "sub"]


# ---- modes and owners ----


@pytest.fixture
def owned(datastore):
    """A tree with modes and owners of its own; views share the rights of all their sources."""
    images.create(datastore / "web-base.qcow2", "4M")
    images.create(datastore / "web.qcow2", "4M", "-b", "web-base.qcow2", "-F", "qcow2")
    (datastore / "a.raw").write_bytes(pattern(1, 4096))
    (datastore / "private.raw").write_bytes(pattern(1, 4096))
    (datastore / "sub").mkdir()
    os.chmod(datastore, 0o755)
    os.chmod(datastore / "sub", 0o2770)
    os.chmod(datastore / "a.raw", 0o6755)
    os.chmod(datastore / "private.raw", 0o600)
    os.chmod(datastore / "web.qcow2", 0o664)
    os.chmod(datastore / "web-base.qcow2", 0o640)
    os.chown(datastore / "a.raw", 1234, 5678)
    os.chown(datastore / "sub", 4321, 8765)
    return datastore


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_modes_and_owners_are_the_sources(owned, mount):
    views = mount(owned)
    for view in ("raw", "qcow2", "vmdk"):
        st = os.stat(views / f"a.{view}")
        assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o444, 1234, 5678)
        assert mode(views / f"private.{view}") == 0o400
        assert mode(views / f"web.{view}") == 0o440  # as unreadable as its base
    sub = os.stat(views / "sub")
    assert (stat.S_IMODE(sub.st_mode), sub.st_uid, sub.st_gid) == (0o550, 4321, 8765)
    assert mode(views.point) == 0o555


def test_owner_options(owned, mount):
    views = mount(owned, "uid=1000,gid=1001")
    for name in ("a.raw", "private.vmdk", "sub", "."):
        st = os.stat(views / name)
        assert (st.st_uid, st.st_gid) == (1000, 1001)
    assert mode(views / "private.raw") == 0o400


def test_mask_options(owned, mount):
    views = mount(owned, "fmask=0137,dmask=0027")
    assert mode(views / "a.raw") == 0o440
    assert mode(views / "private.raw") & 0o007 == 0
    assert mode(views / "sub") == 0o550
    assert mode(views.point) == 0o550


def as_user(uid, *command):
    rights = [f"--reuid={uid}", "--regid=65534", "--clear-groups"]
    return run("setpriv", *rights, *command, check=False)


@pytest.fixture
def public_path(tmp_path):
    """Other users can get to the mount: no directory above it stops them."""
    changed = []
    for directory in tmp_path.parents:
        old = stat.S_IMODE(directory.stat().st_mode)
        if old & 0o001 == 0:
            changed.append((directory, old))
            os.chmod(directory, old | 0o001)
    os.chmod(tmp_path, 0o755)
    yield tmp_path
    for directory, old in changed:
        os.chmod(directory, old)


def test_other_users_have_the_rights_that_the_modes_say(owned, mount, public_path):
    views = mount(owned)
    assert as_user(65534, "cat", views / "a.raw").stdout == pattern(1, 4096)
    assert "Permission denied" in as_user(65534, "cat", views / "private.raw").err
    assert "Permission denied" in as_user(65534, "ls", views / "sub").err
    assert as_user(4321, "ls", views / "sub").returncode == 0


def test_noallow_other(owned, mount, public_path):
    views = mount(owned, "noallow_other")
    assert "Permission denied" in as_user(65534, "cat", views / "a.raw").err
    assert "allow_other" not in mounted_at(views.point).super_options


# ---- times ----


@pytest.mark.parametrize("newest", ["chain.qcow2", "chain-base.qcow2"])
def test_mtime_is_the_newest_of_the_chain(datastore, mount, newest):
    images.create(datastore / "chain-base.qcow2", "4M")
    images.create(datastore / "chain.qcow2", "4M", "-b", "chain-base.qcow2", "-F", "qcow2")
    for name in ("chain.qcow2", "chain-base.qcow2"):
        stamp = 1_600_000_000_123_456_789 if name == newest else 1_500_000_000_000_000_001
        os.utime(datastore / name, ns=(stamp, stamp))
    views = mount(datastore)
    for view in ("qcow2", "raw", "vmdk"):
        assert os.stat(views / f"chain.{view}").st_mtime_ns == 1_600_000_000_123_456_789


def test_mtime_of_a_descriptor_is_the_newest_extent(datastore, disk, mount):
    disk.convert(datastore / "flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
    os.utime(datastore / "flat.vmdk", ns=(10**18, 10**18))
    os.utime(datastore / "flat-flat.vmdk", ns=(11 * 10**17, 11 * 10**17))
    views = mount(datastore)
    assert os.stat(views / "flat.raw").st_mtime_ns == 11 * 10**17


def test_directory_times_are_the_sources(owned, mount):
    os.utime(owned / "sub", ns=(10**18 + 7, 10**18 + 7))
    views = mount(owned)
    assert os.stat(views / "sub").st_mtime_ns == 10**18 + 7


# ---- the file system as a whole ----


def test_statfs(sample):
    here, there = os.statvfs(sample.mount.point), os.statvfs(sample.datastore)
    assert (here.f_bsize, here.f_frsize, here.f_blocks) == (
        there.f_bsize,
        there.f_frsize,
        there.f_blocks,
    )
    assert here.f_blocks > 0
    assert here.f_namemax == there.f_namemax
    assert here.f_flag & os.ST_RDONLY and here.f_flag & os.ST_NOSUID
    assert abs(here.f_bfree - there.f_bfree) * here.f_frsize < 2048 * MIB
    assert run("df", "-P", sample.mount.point).out.splitlines()[1].startswith(str(sample.datastore))


def test_nlink_and_kind(sample):
    st = os.stat(sample.mount / "plain.raw")
    assert stat.S_ISREG(st.st_mode) and st.st_nlink == 1
    st = os.stat(sample.mount.point)
    assert stat.S_ISDIR(st.st_mode) and st.st_nlink >= 1


def test_nothing_of_the_source_is_touched(sample):
    """Reading views changes nothing of the sources."""

    def state():
        found = {path.name: path.stat() for path in sample.datastore.iterdir()}
        return {n: (st.st_mtime_ns, st.st_ctime_ns, st.st_size) for n, st in found.items()}

    before = state()
    for name in sample.mount.names():
        (sample.mount / name).read_bytes()
    assert state() == before
