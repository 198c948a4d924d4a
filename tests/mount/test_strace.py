# SPDX-License-Identifier: Apache-2.0
"""What the program asks of the kernel while it serves a datastore full of traps: after the mount
nothing is opened but by the gate, nothing is connected to, and nothing is run."""

import os
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import images
from fixtures import plain_only, require_programs
from test_races import MARKER, read_whole
from tools import KIB, MIB, run

pytestmark = plain_only  # who is traced cannot look for its leaks

# Whatever takes a path, whatever makes a socket or a process, and what could open in other ways
TRACED = "%file,%network,%process,open_by_handle_at,memfd_create,ptrace,io_uring_setup"

LINE = re.compile(
    r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<more>.*)"
)


def parse(path):
    """The calls of the trace in order; those that strace had to split are joined."""
    started = {}
    for line in path.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            started[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = re.match(r" *<\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            line = f"{pid} {started.pop(pid)}{resumed[1]}"
        found = LINE.fullmatch(line)
        assert found or "+++" in line or "---" in line, line
        if found:
            yield found


@pytest.fixture
def traced(mount, imgfs, tmp_path):
    """traced(STORE, OPTION…): a mount whose program runs under strace, and the trace's path."""
    require_programs("strace")
    program = tmp_path / "traced"
    trace = tmp_path / "trace"
    options = f"-f -qq -y -s 200 -e signal=none -e trace={TRACED} -o '{trace}'"
    program.write_text(f"#!/bin/sh\nexec strace {options} '{imgfs}' \"$@\"\n")
    program.chmod(0o755)

    def start(store, *mount_options):
        return mount(store, *mount_options, program=program), trace

    return start


# ---- the traps ----


LONGEST = 100  # bytes of a name


class Namer:
    """Writes images that name a file, by names that qemu-img would not always write."""

    def __init__(self, scratch):
        images.create(scratch / "b.qcow2", "1M", "-u", "-b", "x" * LONGEST, "-F", "raw")
        self.backed = (scratch / "b.qcow2").read_bytes()
        data = scratch / ("y" * (LONGEST - len(str(scratch)) - 1))
        images.create(scratch / "d.qcow2", "1M", "-o", f"data_file={data},data_file_raw=on")
        self.apart, self.data = (scratch / "d.qcow2").read_bytes(), os.fsencode(data)

    def backing(self, path, name):
        new = os.fsencode(name)
        body = bytearray(self.backed)
        at = body.index(b"x" * LONGEST)
        struct.pack_into(">I", body, 16, len(new))
        body[at : at + LONGEST] = new.ljust(LONGEST, b"\0")
        path.write_bytes(body)

    def data_file(self, path, name):
        new = os.fsencode(name)
        body = bytearray(self.apart)
        at = body.index(self.data)
        struct.pack_into(">I", body, at - 4, len(new))
        body[at : at + len(self.data)] = new.ljust(len(self.data), b"\0")
        path.write_bytes(body)


def descriptor(path, *extents, parent=None):
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678"]
    lines.append(f"parentCID={'11111111' if parent else 'ffffffff'}")
    lines.append('createType="monolithicFlat"')
    if parent:
        lines.append(f'parentFileNameHint="{parent}"')
    path.write_text("\n".join([*lines, *extents, ""]))


def names_to_try(secret):
    """Names that an image may hold; none of them is a file of its family."""
    return [
        str(secret),
        "../outside/secret.raw",
        "./../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "/dev/sda",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/proc/self/root/etc/passwd",
        "nbd://127.0.0.1:10809/x",
        "nbd:unix:/run/nbd.sock",
        "http://127.0.0.1/x",
        "ssh://root@127.0.0.1/x",
        "file:///etc/passwd",
        "fat:/etc",
        "host_device:/dev/sda",
        "vvfat:rw:/tmp",
        'json:{"driver":"file","filename":"/etc/passwd"}',
        "t-link.raw",
        "t-relative.raw",
        "t-magic.raw",
        "t-fifo.raw",
        "t-socket.raw",
        "t-device.raw",
        "t-directory.raw",
        "t-other/x.raw",
        "-o allow_other",
        "|id",
        "$(id)",
    ]


def set_traps(store, secret, namer):
    os.symlink(secret, store / "t-link.raw")
    os.symlink("../outside/secret.raw", store / "t-relative.raw")
    os.symlink("/proc/self/fd/0", store / "t-magic.raw")
    os.symlink("/etc", store / "t-etc")
    os.mkfifo(store / "t-fifo.raw")
    os.mknod(store / "t-device.raw", 0o20666, os.makedev(1, 5))
    os.mknod(store / "t-block.raw", 0o60666, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(store / "t-socket.raw"))
    (store / "t-directory.raw").mkdir()
    (store / "t-other").mkdir()
    for number, name in enumerate(names_to_try(secret)):
        assert len(os.fsencode(name)) <= LONGEST, name
        namer.backing(store / f"b{number}.qcow2", name)
        namer.data_file(store / f"d{number}.qcow2", name)
        descriptor(store / f"e{number}.vmdk", f'RW 2048 FLAT "{name}" 0')
        descriptor(store / f"p{number}.vmdk", f'RW 2048 FLAT "p{number}-flat.vmdk" 0', parent=name)
        (store / f"p{number}-flat.vmdk").write_bytes(bytes(MIB))
    for kind in ("VMFSRDM", "VMFSRAW", "FLAT"):
        descriptor(store / f"r{kind}.vmdk", f'RW 2048 {kind} "/dev/zero" 0')
    for number, name in enumerate(n for n in names_to_try(secret) if n.startswith("t-")):
        (store / f"k{number}").mkdir()  # where they would be of its own family
        namer.backing(store / f"k{number}" / "t.qcow2", name)
        os.symlink(secret, store / f"k{number}" / name.partition("/")[0])


def good_images(store, disk):
    """Beside the traps: images that are read, with references that are allowed."""
    disk.convert(store / "good.qcow2", "-O", "qcow2", "-c")
    disk.convert(store / "flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
    (store / "web-base.raw").write_bytes(b"b" * MIB)
    images.create(store / "web.qcow2", "1M", "-b", "web-base.raw", "-F", "raw")


# ---- what is right ----

OPEN_FLAGS = {"O_RDONLY", "O_NOFOLLOW", "O_CLOEXEC", "O_PATH", "O_DIRECTORY", "O_NONBLOCK"}
OPEN_FLAGS |= {"O_NOCTTY"}


def assert_of_the_gate(call, store, follow):
    """openat2 of a relative name at the root's descriptor, for reading, never leaving it."""
    found = re.fullmatch(
        r'\d+<(?P<root>[^>]*)>, "(?P<name>.*)", '
        r"\{flags=(?P<flags>[A-Z_|]+), resolve=(?P<resolve>[A-Z_|]+)\}, 24",
        call["arguments"],
    )
    assert found, call[0]
    resolve = set(found["resolve"].split("|"))
    flags = set(found["flags"].split("|"))
    assert found["root"] == str(store), call[0]
    assert not found["name"].startswith("/"), call[0]
    assert {"RESOLVE_BENEATH", "RESOLVE_NO_MAGICLINKS", "RESOLVE_NO_XDEV"} <= resolve, call[0]
    assert flags <= OPEN_FLAGS, call[0]
    if not follow:
        assert "RESOLVE_NO_SYMLINKS" in resolve and "O_NOFOLLOW" in flags, call[0]
    if int(call["result"]) < 0:
        return
    opened = re.match(r"<(.*?)(<.*>)?>", call["more"])[1]
    assert Path(opened).is_relative_to(store), call[0]
    if "O_PATH" not in flags:
        assert os.path.isfile(opened) or os.path.isdir(opened), call[0]


# The C library's malloc, when it gives memory back
MALLOC = re.compile(
    r'openat\(AT_FDCWD<[^>]*>, "/proc/sys/vm/overcommit_memory", O_RDONLY\|O_CLOEXEC'
)

# fstat as the C library does it, a look at a name of an open directory, threads, and their ends
SERVING = re.compile(
    r'newfstatat\(\d+<[^>]*>, "",|fstat\(\d+'
    r'|newfstatat\(\d+<[^>]*>, "[^"/]+",.*AT_SYMLINK_NOFOLLOW'
    r'|exit(_group)?\(|clone3?\(.*CLONE_THREAD|tgkill\('
)

# From the mount to the first request: what there is of images has not been looked at yet
START = re.compile(
    r'readlink\("|newfstatat\([^"]*"/etc/mtab"|chdir\("/"|socketpair\(AF_UNIX|clone\('
    r'|access\("(/etc/mtab|/run/mount/utab)"|wait4\('
    r'|openat\(AT_FDCWD<[^>]*>, "(/etc/ld\.so\.cache|(/usr)?/lib/[^"]*/libgcc_s\.so\.1|/etc/localtime'
    r'|/proc/\d+/status)", O_RDONLY\|O_CLOEXEC'
    r'|statx\(AT_FDCWD<[^>]*>, "[^"]*", AT_STATX_DONT_SYNC, 0,'
    r'|openat\(AT_FDCWD<[^>]*>, "/sys/class/bdi/[\d:]+/read_ahead_kb", O_WRONLY\|O_CLOEXEC'
)

# The process beside it, which unmounts, and sees nothing but an order to do so
COMPANION = re.compile(
    r'openat\(AT_FDCWD<[^>]*>, "(/dev/null", O_RDWR|/proc/\d+/status", O_RDONLY\|O_CLOEXEC)'
    r'|recvmsg\(3<|umount2\(|exit_group\(|newfstatat\(\d+<[^>]*>, "",|fstat\('
)


def after_the_mount(calls):
    """The calls that follow mount(2), with their text."""
    for call in calls:
        if call["call"] == "mount" and call["result"] == "0":
            return [(f"{c['call']}({c['arguments']}", c) for c in calls]
    raise AssertionError("the trace has no mount")


def helpers(calls):
    """Processes, not threads, that were made before the first image was looked at."""
    return {
        call["result"]
        for text, call in calls
        if call["call"].startswith("clone") and "CLONE_THREAD" not in text
    }


def bookkeepers(calls):
    """mount(8), by which libfuse writes the mount down where there is a /run/mount/utab."""
    return {call["pid"] for text, call in calls if text.startswith('execve("/bin/mount"')}


def assert_nothing_else(calls, store, follow):
    """Every call after the mount is of the gate, or is listed here. The opens of the gate."""
    done = bookkeepers(calls)
    apart = helpers(calls) - done
    assert len(apart) <= 1
    opens = []
    for text, call in calls:
        if call["pid"] in done:
            continue
        if call["pid"] in apart:
            assert COMPANION.match(text), call[0]
        elif call["call"] == "openat2":
            assert_of_the_gate(call, store, follow)
            opens.append(call)
        elif not SERVING.match(text) and not MALLOC.match(text):
            assert not opens and START.match(text), call[0]
    return opens


def read_everything(views):
    """As a curious user does it: lists, looks, reads the ends of every file."""
    count = 0
    run("ls", "-lR", views.point)
    for directory, _, files in os.walk(views.point):
        for name in files:
            path = Path(directory) / name
            assert MARKER not in read_whole(path)
            count += 1
    return count


@pytest.mark.parametrize("policy", ["family", "datastore", "follow_symlinks"])
def test_nothing_is_opened_but_by_the_gate(datastore, disk, traced, tmp_path, policy):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.raw").write_bytes(MARKER * (64 * KIB // len(MARKER)))
    set_traps(datastore, outside / "secret.raw", Namer(tmp_path))
    good_images(datastore, disk)
    options = ["references=datastore"] if policy != "family" else []
    options += ["follow_symlinks"] if policy == "follow_symlinks" else []
    views, trace = traced(datastore, *options)
    assert read_everything(views) >= 12
    for name in names_to_try(outside / "secret.raw"):  # as a name of a view, too
        subprocess.run(["cat", f"{views.point}/{name}"], capture_output=True)
    assert views.unmount() == 0
    assert MARKER.decode() not in views.log()
    calls = after_the_mount(parse(trace))
    opens = assert_nothing_else(calls, datastore, policy == "follow_symlinks")
    assert len(opens) > 500
    tried = {call["arguments"].split('"')[1] for call in opens}
    assert "web-base.raw" in tried and "k0/t-link.raw" in tried
    assert ("t-link.raw" in tried) == (policy != "family")
