# SPDX-License-Identifier: Apache-2.0
"""Starting, failing to start, going to the background, and ending."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import images
from fixtures import SANITIZER, plain_only, require_programs
from mounting import MountInfo, mounted_at
from tools import KIB, MIB, eventually, pattern, run, same

OK, USAGE, SYSTEM, MOUNT = 0, 1, 2, 32


@pytest.fixture
def store(datastore):
    (datastore / "a.raw").write_bytes(pattern(1, 4 * MIB))
    return datastore


@pytest.fixture
def point(tmp_path):
    directory = tmp_path / "point"
    directory.mkdir()
    yield directory
    while mounted_at(directory):
        subprocess.run(["umount", "-l", directory], check=True)


def processes(point):
    """Processes of imgfs that serve the mount point; not the one beside it that unmounts."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            arguments = (directory / "cmdline").read_bytes().split(b"\0")
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
            name = (directory / "comm").read_text().strip()
        except OSError:
            continue
        if b"imgfs" in arguments[0] and os.fsencode(point) in arguments and name != "imgfs-companion" and state != "Z":
            found.append(int(directory.name))
    return found


def assert_fails(done, status, *words):
    """The program ended with this status and said one line that has the words."""
    assert done.returncode == status, (done.returncode, done.err)
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("imgfs: ")
    for word in words:
        assert word in lines[0], lines[0]


# ---- help, version, usage ----


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(imgfs, option):
    done = run(imgfs, option)
    assert done.out.startswith("usage: imgfs")
    assert done.err == ""
    for word in ("references=", "format=", "raw=", "cache_size=", "uid=", "fmask=", "dmask="):
        assert word in done.out
    for word in ("views=", "layout=", "vmdk=", "vhd=", "adapter=", "snapshots", "scan_gzip"):
        assert f"-o {word}" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(imgfs, option):
    assert re.match(r"imgfs \d+\.\d+", run(imgfs, option).out)


@pytest.mark.lacks("io_uring")
@pytest.mark.parametrize("option", ["io_uring", "io_uring_q_depth=4"])
def test_no_io_uring(imgfs, store, point, option):
    done = run(imgfs, "-o", option, store, point, check=False)
    assert_fails(done, USAGE, option, "this libfuse has no io_uring")
    assert not mounted_at(point)


def test_no_arguments(imgfs):
    assert_fails(run(imgfs, check=False), USAGE, "DATASTORE MOUNTPOINT")


def test_one_argument(imgfs, store):
    assert_fails(run(imgfs, store, check=False), USAGE, "DATASTORE MOUNTPOINT")


def test_three_arguments(imgfs, store, point):
    assert run(imgfs, store, point, point, check=False).returncode == USAGE
    assert not mounted_at(point)


BAD_OPTIONS = {
    "frobnicate": "frobnicate",
    "rw": "rw",
    "references=all": "references",
    "references=": "references",
    "format=x": "format",
    "format=*.bin:floppy": "floppy",
    "format=:raw": "format",
    "raw=": "raw",
    "cache_size=lots": "cache_size",
    "cache_size=-1": "cache_size",
    "cache_size=1X": "cache_size",
    "cache_size=99999999999G": "cache_size",
    "uid=nobody": "uid",
    "uid=-1": "uid",
    "gid=99999999999": "gid",
    "fmask=9": "fmask",
    "dmask=01000": "dmask",
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_bad_options(imgfs, store, point, option):
    done = run(imgfs, "-o", option, store, point, check=False)
    assert_fails(done, USAGE, BAD_OPTIONS[option])
    assert not mounted_at(point)


def test_unknown_switch(imgfs, store, point):
    assert_fails(run(imgfs, "--frobnicate", store, point, check=False), USAGE, "frobnicate")


def test_words_of_fstab_are_accepted(store, mount):
    """With x-… words, which mount.fuse3 takes out and a direct call does not."""
    words = "defaults,ro,nofail,auto,noauto,user,nouser,users,_netdev,x-systemd.automount"
    assert mount(store, words).names() == ["a.qcow2", "a.raw", "a.vmdk"]


def test_options_before_and_after(imgfs, store, point):
    """sshfs, mount.fuse3 and people put them on either side."""
    for arguments in (["-o", "uid=7", store, point], [store, point, "-o", "uid=7"]):
        run(imgfs, *arguments)
        assert os.stat(point / "a.raw").st_uid == 7
        run("umount", point)


@pytest.mark.parametrize("size", ["1M", "64m", "1G", "100000", "512K", "0"])
def test_cache_sizes(store, mount, size):
    assert (mount(store, f"cache_size={size}") / "a.raw").read_bytes() == pattern(1, 4 * MIB)


# ---- what cannot be mounted ----


def test_missing_source(imgfs, tmp_path, point):
    done = run(imgfs, tmp_path / "nowhere", point, check=False)
    assert_fails(done, SYSTEM, "nowhere", "No such file")


def test_source_is_a_file(imgfs, store, point):
    assert_fails(run(imgfs, store / "a.raw", point, check=False), SYSTEM, "Not a directory")


def test_missing_mount_point(imgfs, store, tmp_path):
    done = run(imgfs, store, tmp_path / "nowhere", check=False)
    assert_fails(done, MOUNT, "nowhere", "No such file")


def test_mount_point_is_a_file(imgfs, store, point):
    """The kernel would mount there, and show a file that is none."""
    point.rmdir()
    point.write_text("")
    assert_fails(run(imgfs, store, point, check=False), MOUNT, "ot a directory")
    assert not mounted_at(point)


def test_mount_point_in_the_datastore(imgfs, store):
    (store / "views").mkdir()
    for point in (store / "views", store):
        assert_fails(run(imgfs, store, point, check=False), MOUNT, "inside the datastore")
        assert not mounted_at(point)


def test_datastore_in_the_mount_point(imgfs, store):
    for option in ([], ["-f"]):
        done = run(imgfs, *option, store, store.parent, check=False, timeout=20)
        assert_fails(done, MOUNT, "inside the mount point")
    assert not mounted_at(store.parent)


def test_detours_do_not_hide_that(imgfs, store, tmp_path):
    (store / "views").mkdir()
    os.symlink(store / "views", tmp_path / "link")
    os.symlink(store, tmp_path / "store")
    detour = store / ".." / "datastore" / "views"
    for source, point in ((store, tmp_path / "link"), (tmp_path / "store", detour)):
        done = run(imgfs, source, point, check=False)
        assert_fails(done, MOUNT, "inside the datastore")


def test_no_rights_to_fuse(imgfs, store, point):
    """A user without /dev/fuse gets a message, not a half mount."""
    require_programs("unshare")
    script = 'mount --bind /dev/null /dev/fuse && exec "$0" "$1" "$2"'
    done = run("unshare", "-m", "sh", "-c", script, imgfs, store, point, check=False)
    assert done.returncode == MOUNT
    assert done.err and not mounted_at(point)


# ---- background ----


def test_background(imgfs, store, point):
    """When the command returns the mount works, and nothing of the caller is held open."""
    done = run(imgfs, store, point, timeout=20)
    assert done.out == done.err == ""
    assert sorted(os.listdir(point)) == ["a.qcow2", "a.raw", "a.vmdk"]
    (daemon,) = processes(point)
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{daemon}/fd/{fd}") == "/dev/null"
    assert os.getsid(daemon) == daemon
    run("umount", point)
    eventually(lambda: not processes(point), 10)


def test_background_a_hundred_times(imgfs, store, point):
    """The parent never returns too early, and what it started always ends."""
    for _ in range(100):
        run(imgfs, store, point)
        assert mounted_at(point)
        assert os.stat(point / "a.raw").st_size == 4 * MIB
        run("umount", point)
    eventually(lambda: not processes(point), 10)


def test_background_with_relative_paths(imgfs, store, point):
    """The process leaves the directory it was started in."""
    run(imgfs, store.name, f"../{point.name}", cwd=store.parent, check=False)
    run("umount", point, check=False)
    run(imgfs, store.name, point.name, cwd=store.parent)
    assert (point / "a.raw").read_bytes() == pattern(1, 4 * MIB)
    (store / "b.raw").write_bytes(pattern(2, 8192))
    eventually(lambda: (point / "b.raw").exists())
    run("umount", point)


def test_foreground_stays(store, mount):
    views = mount(store)
    time.sleep(0.3)
    assert views.process.poll() is None


def test_debug_output(store, mount):
    views = mount(store, args=["-d"], expect=[".*"])
    views.names()
    assert "LOOKUP" in views.log() or "READDIR" in views.log()


# ---- the end ----


def test_a_clean_mount_says_one_thing(store, mount):
    """How the process is confined."""
    views = mount(store)
    for name in views.names():
        (views / name).read_bytes()
    assert views.unmount() == OK
    assert views.log_events() == []
    if not SANITIZER:
        (line,) = views.log().splitlines()
        assert re.match(r"imgfs: confined: user 0, .* seccomp, Landlock \d+$", line)


def test_unmount_when_idle(store, mount):
    assert mount(store).unmount() == OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(store, mount, number):
    views = mount(store)
    views.names()
    views.signal(number)
    assert views.wait() == OK
    assert not mounted_at(views.point)


def test_unmount_while_open(store, mount):
    """The kernel says busy, the mount stays and works; closed, it goes."""
    views = mount(store)
    with open(views / "a.raw", "rb") as file:
        done = run("umount", views.point, check=False)
        assert done.returncode == 32 and "busy" in done.err
        assert file.read() == pattern(1, 4 * MIB)
    assert views.unmount() == OK


def test_lazy_unmount_while_open(store, mount):
    """What is open stays readable to its end, then the process goes."""
    views = mount(store)
    with open(views / "a.raw", "rb", buffering=0) as file:
        assert len(file.read(4096)) == 4096
        run("umount", "-l", views.point)
        time.sleep(0.3)
        assert views.process.poll() is None
        assert os.pread(file.fileno(), 4096, 3 * MIB) == pattern(1, 4 * MIB)[3 * MIB :][:4096]
    assert views.wait() == OK


READER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print("reading", flush=True)
try:
    while True:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(fd, 1 << 20, 0)
except OSError:
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_being_read(store, mount, number):
    """The process ends though readers are at it, and leaves no mount behind."""
    views = mount(store)
    command = ["/usr/bin/python3", "-c", READER, views / "a.qcow2"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        for reader in readers:
            assert reader.stdout.readline() == b"reading\n"
        time.sleep(0.2)
        views.signal(number)
        assert views.wait() == OK
        assert not mounted_at(views.point)
        for reader in readers:
            assert reader.wait(timeout=10) == 0
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_a_killed_process_leaves_what_umount_clears(store, mount):
    views = mount(store)
    views.works = False  # its exit status is not its own
    views.signal(signal.SIGKILL)
    views.wait()
    assert mounted_at(views.point)
    run("umount", views.point)
    assert mount(store, point=views.point).names() == ["a.qcow2", "a.raw", "a.vmdk"]


def test_the_next_start_takes_over(imgfs, store, mount):
    """A service that is restarted after a crash finds its own dead mount in its way."""
    views = mount(store)
    views.works = False
    views.signal(signal.SIGKILL)
    views.wait()
    done = run(imgfs, store, views.point)
    assert "cleared the mount" in done.err
    assert views.names() == ["a.qcow2", "a.raw", "a.vmdk"]
    run("umount", views.point)
    assert not mounted_at(views.point)  # the dead one is not beneath it
    eventually(lambda: not processes(views.point), 10)


# ---- the same thing again ----


def everything(views):
    """Number, size, time and bytes of all that a mount shows."""
    found = {}
    for directory, _, files in os.walk(views.point):
        for path in [directory] + [os.path.join(directory, f) for f in files]:
            st = os.stat(path)
            body = None if os.path.isdir(path) else Path(path).read_bytes()
            name = os.path.relpath(path, views.point)
            found[name] = (st.st_ino, st.st_mode, st.st_mtime_ns, st.st_blocks, st.st_size, body)
    return found


def test_stable_across_remounts_and_mounts(store, disk, mount):
    """Same datastore, same numbers and bytes: for NFS, for rsync, for a second gateway."""
    disk.convert(store / "b.qcow2", "-O", "qcow2", "-c")
    (store / "sub").mkdir()
    disk.convert(store / "sub" / "c.vmdk", "-O", "vmdk")
    first = mount(store)
    second = mount(store)
    seen = everything(first)
    assert len(seen) == 11
    assert everything(second) == seen
    assert first.unmount() == OK
    assert everything(mount(store, point=first.point)) == seen
    numbers = [entry[0] for entry in seen.values()]
    assert len(numbers) == len(set(numbers))


def test_listed_numbers_are_the_files(store, mount):
    views = mount(store)
    for entry in os.scandir(views.point):
        assert entry.inode() == os.stat(entry.path).st_ino


# ---- through mount(8), and as a user ----


@pytest.fixture
def namespace(imgfs, tmp_path, point):
    """namespace(SCRIPT, VARIABLE=…) runs a shell script in a mount namespace of its own, where
    imgfs is in /usr/local/bin, everybody may open /dev/fuse, and nothing stays mounted."""
    require_programs("unshare", "mount.fuse3", "fusermount3", "setpriv")
    (tmp_path / "bin").mkdir(mode=0o755)
    shutil.copy(imgfs, tmp_path / "bin" / "imgfs")
    os.mknod(tmp_path / "fuse", 0o20666, os.makedev(10, 229))
    os.chmod(tmp_path / "fuse", 0o666)
    before = f"""
        mount --bind {tmp_path}/bin /usr/local/bin
        mount --bind {tmp_path}/fuse /dev/fuse
        trap 'umount -l {point} 2>/dev/null || :' EXIT
    """

    def run_script(script, check=True, **variables):
        environment = {**os.environ, **{k: str(v) for k, v in variables.items()}}
        command = ["unshare", "-m", "sh", "-euc", before + script]
        done = run(*command, check=check, env={**environment, "POINT": str(point)}, timeout=60)
        eventually(lambda: not processes(point), 10)
        return done

    return run_script


@pytest.fixture
def public(point):
    """A datastore and a mount point that any user gets to, wherever the tests keep theirs."""
    with tempfile.TemporaryDirectory(prefix="imgfs-public-", dir="/var/tmp") as directory:
        store = Path(directory) / "datastore"
        store.mkdir()
        (store / "a.raw").write_bytes(pattern(1, 128 * KIB))
        images.create(store / "b.qcow2", "4M")
        os.chmod(directory, 0o755)
        os.chmod(store, 0o755)
        os.chmod(store / "b.qcow2", 0o644)
        (Path(directory) / "point").mkdir()
        os.chown(Path(directory) / "point", 65534, 65534)
        yield store


SHOW = """
    grep -F " $POINT " /proc/self/mountinfo
    ls "$POINT"
    stat -c 'owner %u' "$POINT/a.raw"
    cmp "$POINT/a.raw" "$STORE/a.raw" && echo same
"""


def mount_line(text):
    return MountInfo(text.splitlines()[0])


def test_mount_command(namespace, store):
    script = 'mount -t fuse.imgfs -o "$OPTIONS" "$STORE" "$POINT"' + SHOW + 'umount "$POINT"'
    options = "ro,nofail,x-systemd.automount,_netdev,uid=77"
    out = namespace(script, STORE=store, OPTIONS=options).out
    assert out.splitlines()[1:] == ["a.qcow2", "a.raw", "a.vmdk", "owner 77", "same"]
    info = mount_line(out)
    assert (info.type, info.source) == ("fuse.imgfs", str(store))
    assert {"ro", "nosuid", "nodev", "noexec"} <= info.flags


def test_mount_command_passes_failures_on(namespace, store, tmp_path):
    script = 'mount -t fuse.imgfs -o "$OPTIONS" "$STORE" "$POINT"'
    done = namespace(script, check=False, STORE=tmp_path / "nowhere", OPTIONS="ro")
    assert done.returncode == SYSTEM and "nowhere" in done.err
    done = namespace(script, check=False, STORE=store, OPTIONS="ro,frobnicate")
    assert done.returncode == USAGE and "frobnicate" in done.err


def test_mount_command_with_dropped_privileges(namespace, public):
    """mount.fuse3 opens /dev/fuse, mounts, and starts imgfs as nobody without any right."""
    script = (
        'mount -t fuse.imgfs -o "$OPTIONS" "$STORE" "$POINT"'
        + SHOW
        + """
            for comm in $(grep -lsx imgfs /proc/[0-9]*/comm); do
                tr '\\0' '\\n' <"${comm%comm}cmdline" | grep -qxF "$STORE" || continue
                awk '/^(Uid|CapEff|NoNewPrivs|Seccomp):/ { print $1 $2 }' "${comm%comm}status"
            done
            umount "$POINT"
        """
    )
    options = "ro,nosuid,nodev,noexec,allow_other,setuid=nobody,drop_privileges"
    out = namespace(script, STORE=public, OPTIONS=options).out.splitlines()
    names = sorted(f"{stem}.{view}" for stem in "ab" for view in ("qcow2", "raw", "vmdk"))
    assert out[1:7] == names
    assert out[7:9] == ["owner 0", "same"]
    state = ["CapEff:0000000000000000", "NoNewPrivs:1", "Uid:65534"]
    assert sorted(out[9:]) == sorted([*state, "Seccomp:0" if SANITIZER else "Seccomp:2"])
    assert {"ro", "nosuid", "nodev", "noexec"} <= MountInfo(out[0]).flags


def test_a_user_mounts(namespace, public):
    """Through fusermount3. Others are let in only where fuse.conf says so."""
    user = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    script = f"""
        {user} imgfs "$STORE" "$USERS_POINT"
        {user} sh -euc "$SHOW"
        ls "$USERS_POINT" || echo refused
        {user} fusermount3 -u "$USERS_POINT"
    """
    show = SHOW.replace("$POINT", "$USERS_POINT")
    users_point = public.with_name("point")
    out = namespace(script, STORE=public, USERS_POINT=users_point, SHOW=show).out.splitlines()
    eventually(lambda: not processes(users_point), 10)
    assert "same" in out and out[-1] == "refused"
    info = MountInfo(out[0])
    assert "allow_other" not in info.super_options
    assert {"ro", "nosuid", "nodev", "noexec"} <= info.flags


@plain_only  # a sanitized program keeps its rights, and unmounts by itself
def test_a_users_mount_ends_with_a_signal(namespace, public):
    """The server may not execute fusermount3 any more; its companion does."""
    user = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    script = f"""
        {user} imgfs "$STORE" "$USERS_POINT"
        {user} cmp "$USERS_POINT/a.raw" "$STORE/a.raw"
        {user} pkill -TERM -f "^imgfs $STORE"
        for i in $(seq 100); do
            grep -qF " $USERS_POINT " /proc/self/mountinfo || break
            sleep 0.1
        done
        grep -F " $USERS_POINT " /proc/self/mountinfo || echo gone
    """
    users_point = public.with_name("point")
    out = namespace(script, STORE=public, USERS_POINT=users_point).out
    assert out == "gone\n"
    eventually(lambda: not processes(users_point), 10)


def test_copies_of_two_mounts_are_the_same(store, disk, mount, tmp_path):
    disk.convert(store / "b.qcow2", "-O", "qcow2", "-c")
    one, two = mount(store), mount(store)
    for view in ("qcow2", "raw", "vmdk"):
        run("cp", one / f"b.{view}", tmp_path / "one")
        run("cp", two / f"b.{view}", tmp_path / "two")
        assert same(tmp_path / "one", tmp_path / "two")
