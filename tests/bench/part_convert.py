# SPDX-License-Identifier: Apache-2.0
"""1. A copy of a view against the converter, onto the same disk.

What a run writes is removed before it is on the disk, and then sync is waited for, so that no
writing of one run falls into the next. Both sides alike; nothing else is dropped. Some are measured
again with the source on its disk alone, as it is after a night.

The floor is cp of a ready-made file of that format, from the same disk and without FUSE, measured
where that is the source: a copy of a view cannot be quicker than that.
"""

import subprocess

from reading import drop_pages
from prepare import warm
from servers import imgfs_mount
from settings import DISK_SIZE, SOURCES, image_format, stem
from timing import Failed, command, contest

CP, DEFAULT, BEST = "cp view", "qemu-img convert", "qemu-img convert -m 8 -W"
FLOOR = "cp of a ready-made file"
CAT, NULL = "cat view >/dev/null", "qemu-img convert to null-co"


def run_part(place, images, settings):
    sources = [s for s in SOURCES if any(s == pair[0] for pair in settings.pairs)]
    for source in sources:
        images.source(source)
    images.settle()
    with imgfs_mount(place, "convert", images.raw().parent) as mount:
        for source in sources:
            warm(images.source(source))
            for pair in settings.pairs:
                if pair[0] == source:
                    one_pair(place, images, settings, mount, *pair)
            for pair in settings.cold_pairs:
                if pair[0] == source:
                    one_pair(place, images, settings, mount, *pair, cold=True)


# A file of each format whose data is not packed
READY_MADE = {"raw": "raw.raw", "qcow2": "plain.qcow2", "vmdk": "sparse.vmdk"}


def one_pair(place, images, settings, mount, source, view, cold=False):
    image, out = images.source(source), place.directory / f"out.{view}"
    path = mount / f"{stem(source)}.{view}"
    formats = ["-f", image_format(source), "-O", view]
    verified = []

    def clean(taken):
        out.unlink(missing_ok=True)
        subprocess.run(["sync", "-f", place.directory], check=True)
        return taken

    def prepare():
        if cold:
            drop_pages(image)

    def copy():
        drop_pages(path)
        prepare()
        taken = command("cp", path, out)
        if not verified:
            verify(out, view, images.raw())
            verified.append(True)
        return clean(taken)

    def copy_ready():
        return clean(command("cp", image, out))

    def convert(*flags):
        prepare()
        return clean(command("qemu-img", "convert", *flags, *formats, image, out))

    def cat():
        drop_pages(path)
        return command("cat", path)

    def convert_to_nothing():
        null = ["--target-image-opts", f"driver=null-co,size={DISK_SIZE}"]
        return command("qemu-img", "convert", "-n", "-m", "8", "-W", *formats[:2], image, *null)

    contestants = {CP: copy, DEFAULT: convert, BEST: lambda: convert("-m", "8", "-W")}
    if source == READY_MADE[view] and not cold:
        contestants[FLOOR] = copy_ready
    row = f"{source} → {view}"
    part = "convert, from the disk" if cold else "convert"
    contest(place.results, part, row, "s", contestants, settings.runs)
    if not cold and (source, view) in settings.cat_pairs:
        contestants = {CAT: cat, NULL: convert_to_nothing}
        contest(place.results, "convert, not the disk", row, "s", contestants, settings.runs)


def verify(out, view, raw):
    compare = ["qemu-img", "compare", "-q", "-f", view, "-F", "raw", out, raw]
    done = subprocess.run(compare, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"the copy is not the disk: {done.stdout}{done.stderr}".strip())
