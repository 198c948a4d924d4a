# SPDX-License-Identifier: Apache-2.0
"""Who shows an image as a raw file: imgfs, its peers, and the pass-through that is the ceiling."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import mounting
from prepare import warm
from processes import memory, servers_of
from reading import checksum
from settings import DISK_SIZE, image_format, stem
from timing import Failed

IMGFS, CEILING, NATIVE = "imgfs", "ceiling (FUSE pass-through)", "native file"
QSD = "qemu-storage-daemon"


def readahead_file(path):
    device = os.stat(path).st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")


class Place:
    """Where this run mounts things, and what it mounts with."""

    def __init__(self, directory, imgfs, passthrough, results):
        self.directory, self.imgfs, self.passthrough = Path(directory), imgfs, passthrough
        self.results, self.count = results, 0

    def new(self):
        """An empty directory with a name that no other command line has in it."""
        self.count += 1
        path = self.directory / f"mount-{self.count:04}."
        path.mkdir()
        return path


@contextlib.contextmanager
def imgfs_mount(place, part, datastore, *options):
    """A mount of imgfs; what memory it took is remembered at the end."""
    point = place.new()
    mount = mounting.Mount(
        place.imgfs, datastore, point, options, log=place.directory / f"{point.name}log"
    )
    try:
        mount.start_unseen()
        os.statvfs(point)  # it answers, and has looked at nothing
        mount.works = True
        idle, _ = memory([mount.process.pid])
        yield mount
        end, peak = memory([mount.process.pid])
        place.results.remember(part, IMGFS, Path(datastore).name, idle, end, peak)
    finally:
        if mount.process:
            for problem in mount.finish():
                place.results.fail(part, Path(datastore).name, IMGFS, problem)
        with contextlib.suppress(OSError):
            point.rmdir()


# ---- peers ----


def qemu_storage_daemon(source, directory):
    (directory / "disk").touch()
    opened = f"filename={source},read-only=on"
    disk = f"driver={image_format(source)},node-name=disk,file=file,read-only=on"
    export = f"type=fuse,id=export,node-name=disk,mountpoint={directory}/disk,writable=off"
    return [
        *("qemu-storage-daemon", "--blockdev", f"driver=file,node-name=file,{opened}"),
        *("--blockdev", disk, "--export", export),
    ]


def qemu_nbd(source, directory):
    server = ["qemu-nbd", "-r", "-e", "8", "-f", image_format(source), source]
    return ["nbdfuse", "-r", f"{directory}/disk", "--socket-activation", *server]


def nbdkit(source, directory):
    decode = ["--filter=qcow2dec"] if image_format(source) == "qcow2" else []
    return ["nbdfuse", "-r", f"{directory}/disk", "[", "nbdkit", "-r", *decode, "file", source, "]"]


def xmount(source, directory):
    return ["xmount", "--in", "raw", source, "--out", "raw", directory]


def vmdkmount(source, directory):
    return ["vmdkmount", source, directory]


def qcowmount(source, directory):
    return ["qcowmount", source, directory]


# name: the formats that it says it reads, and how it is started
PEERS = {
    QSD: (("raw", "qcow2", "vmdk"), qemu_storage_daemon),
    "qemu-nbd + nbdfuse": (("raw", "qcow2", "vmdk"), qemu_nbd),
    "nbdkit + nbdfuse": (("raw", "qcow2"), nbdkit),
    "xmount": (("raw",), xmount),
    "vmdkmount": (("vmdk",), vmdkmount),
    "qcowmount": (("qcow2",), qcowmount),
}


def pass_through(place, disk, like):
    """The ceiling's mount point is a file; stat shows of it what `like`, a view, shows."""

    def start(_source, directory):
        (directory / "disk").touch()
        block = f"PASSTHROUGH_BLOCK={os.stat(like).st_blksize}"
        return ["env", block, place.passthrough, disk, directory / "disk"]

    return start


def shown(directory, size):
    """The file of the whole disk, once it is there."""
    for path in directory.iterdir():
        status = path.stat()
        if status.st_size == size and status.st_dev != directory.parent.stat().st_dev:
            return path
    return None


@contextlib.contextmanager
def server(place, part, name, start, source, size):
    """Runs a server of one image; yields the path of the raw file."""
    directory = place.new()
    log = place.directory / f"{directory.name}log"
    process = None
    try:
        argv = [str(word) for word in start(source, directory)]
        with open(log, "wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        path = wait_for(process, directory, size, log)
        pids = servers_of(directory)
        idle, _ = memory(pids)
        yield path
        place.results.remember(part, name, Path(source).name, idle, *memory(pids))
    finally:
        stop(process, directory)


def wait_for(process, directory, size, log):
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        # Some go to the background: then their own exit status is 0, and means nothing yet.
        if process.poll() not in (None, 0):
            break
        with contextlib.suppress(OSError):
            path = shown(directory, size)
            if path:
                return path
        time.sleep(0.01)
    text = log.read_text(errors="replace").strip() or "no message"
    raise Failed(f"exit status {process.poll()}: {' / '.join(text.splitlines()[-3:])}")


def stop(process, directory):
    for point in [*directory.glob("*"), directory]:
        if mounting.mounted_at(point):
            if subprocess.run(["umount", point], capture_output=True).returncode != 0:
                subprocess.run(["umount", "-l", point], capture_output=True)
    if process:
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with contextlib.suppress(OSError):
        (directory / "disk").unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


# ---- all of them, on one source ----


class Contestants:
    """Everybody who can show the source as a raw disk, each having shown the right bytes."""

    def __init__(self, place, part, images, mount, stack):
        self.place, self.part, self.images = place, part, images
        self.mount, self.stack = mount, stack
        self.start = images.window()
        self.right = checksum(images.raw(), self.start, images.settings.window)

    def enter(self, source, only=None):
        """{name: path of the raw disk}, for the time of the stack; `only` some of the peers."""
        view = self.mount / f"{stem(source)}.raw"
        paths = {IMGFS: view}
        image = self.images.source(source)
        for name, (formats, start) in PEERS.items():
            if image_format(source) in formats and (only is None or name in only):
                self.add(paths, name, start, image)
        raw = self.images.raw()
        self.add(paths, CEILING, pass_through(self.place, raw, view), raw)
        self.level(view, paths.get(CEILING))
        paths[NATIVE] = raw
        return {name: path for name, path in paths.items() if self.is_right(source, name, path)}

    def add(self, paths, name, start, image):
        run = server(self.place, self.part, name, start, image, DISK_SIZE)
        try:
            paths[name] = self.stack.enter_context(run)
        except (Failed, OSError) as e:
            self.place.results.fail(self.part, image.name, name, str(e))

    def level(self, view, ceiling):
        """The ceiling is read ahead of as imgfs is."""
        if ceiling:
            readahead_file(ceiling).write_text(readahead_file(view).read_text())

    def is_right(self, source, name, path):
        try:
            if checksum(path, self.start, self.images.settings.window) == self.right:
                return True
            text = "other bytes than those of the disk"
        except OSError as e:
            text = str(e)
        self.place.results.fail(self.part, source, name, text)
        return False


def in_turn(place, part, images, sources):
    """Source after source of one disk, warm and mounted, each with whoever is to serve it."""
    for source in sources:
        images.source(source)
    images.settle()
    warm(images.raw())
    with imgfs_mount(place, part, images.raw().parent) as mount:
        for source in sources:
            warm(images.source(source))
            with contextlib.ExitStack() as stack:
                yield source, Contestants(place, part, images, mount, stack)
