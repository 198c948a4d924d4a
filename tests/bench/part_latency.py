# SPDX-License-Identifier: Apache-2.0
"""4. How long until something is there: first bytes, listings, mounts, copies of nothing."""

import subprocess
import time

from mounting import mounted_at
from prepare import warm
from reading import drop_pages, first_byte
from servers import IMGFS, imgfs_mount
from settings import VIEWS
from timing import Failed, command, contest

PART = "latency"
QEMU = "qemu-img convert"
PATIENCE = 2.0  # s: of an empty VMDK qemu-img reads every grain table, through ten seconds
AGAIN = 1.3  # s: longer than the kernel answers by itself


def run_part(place, images, settings):
    full, crowd, empty = images.full(), images.crowd(settings.crowd), images.empty()
    images.settle()
    for path in full.iterdir():
        warm(path)
    first_bytes(place, settings, full)
    listings(place, settings, crowd)
    mounts(place, settings, {f"of {settings.crowd:,} images": crowd, "of 3 images": empty})
    copies(place, settings, empty)


def add(place, row, values):
    place.results.add(PART, row, IMGFS, "ms", [value * 1000 for value in values])


def first_bytes(place, settings, full):
    """A fresh mount for each: nothing is known of the image. The overlay adds nothing to the full
    image, and is not a file that could be served as it is: each of its views takes the tables."""
    for image, what in (("over-full", "fully mapped"), ("over", "overlay on it")):
        for view in VIEWS:
            first, second = [], []
            for _ in range(settings.runs):
                with imgfs_mount(place, PART, full) as mount:
                    first.append(first_byte(mount / f"{image}.{view}"))
                    second.append(first_byte(mount / f"{image}.{view}"))
            row = f"1 TiB qcow2, {what}: .{view}"
            add(place, f"first byte, {row}", first)
            add(place, f"second open, {row}", second)


def listings(place, settings, crowd):
    cold, at_once, warm_times = [], [], []
    for _ in range(settings.runs):
        with imgfs_mount(place, PART, crowd) as mount:
            cold.append(command("ls", "-l", mount.point))
            at_once.append(command("ls", "-l", mount.point))
            time.sleep(AGAIN)
            warm_times.append(command("ls", "-l", mount.point))
    row = f"ls -l, {settings.crowd:,} images"
    add(place, f"{row}: cold", cold)
    add(place, f"{row}: again at once", at_once)
    add(place, f"{row}: again after {AGAIN} s", warm_times)


def mount_once(place, datastore):
    """Seconds until the command is back, which is when the mount can be used."""
    point = place.new()
    try:
        taken = command(place.imgfs, datastore, point)
        if not mounted_at(point):
            raise Failed("not mounted")
    finally:
        subprocess.run(["umount", point], capture_output=True)
    point.rmdir()
    return taken


def mounts(place, settings, datastores):
    contestants = {
        name: lambda datastore=datastore: mount_once(place, datastore)
        for name, datastore in datastores.items()
    }
    times = {name: [] for name in contestants}
    for _ in range(settings.runs):
        for name, mount in contestants.items():
            times[name].append(mount())
    for name, values in times.items():
        add(place, f"mount, a datastore {name}", values)


def copies(place, settings, empty):
    """cp of every view of an empty image of 1 TiB."""
    out = place.directory / "empty"

    def clean(taken):
        out.unlink(missing_ok=True)
        return taken

    with imgfs_mount(place, PART, empty) as mount:
        for image in sorted(path.name for path in empty.iterdir()):
            for view in VIEWS:
                path = mount / f"{image.rpartition('.')[0]}.{view}"

                def copy(path=path):
                    drop_pages(path)
                    return clean(command("cp", path, out)) * 1000

                def convert(image=image, view=view):
                    flags = ["-f", image.rpartition(".")[2], "-O", view]
                    return clean(command("qemu-img", "convert", *flags, empty / image, out)) * 1000

                row = f"copy, 1 TiB empty {image.rpartition('.')[2]}: .{view}"
                contestants = {IMGFS: copy, QEMU: convert}
                if settings.name == "quick" and image.endswith(".vmdk"):
                    del contestants[QEMU]
                contest(place.results, PART, row, "ms", contestants, settings.runs, PATIENCE)
