# SPDX-License-Identifier: Apache-2.0
"""6. The other formats: each as a source, and each as a view of a qcow2, against the converter.

As part 1 does it, the source in memory and onto the same disk. What qemu-img cannot write is not
here; a streamOptimized file of qemu-img's is compressed, and the view's is not.
"""

import subprocess

from part_convert import BEST, CP, DEFAULT, verify
from prepare import warm
from reading import drop_pages
from servers import imgfs_mount
from settings import MORE_SOURCES, MORE_VIEWS, qemu_format, stem
from timing import command, contest

PART = "formats"
PLAIN = "plain.qcow2"


def run_part(place, images, settings):
    sources = [PLAIN, *MORE_SOURCES]
    for source in sources:
        images.source(source)
    images.settle()
    views = "views=raw:" + ":".join(MORE_VIEWS)
    with imgfs_mount(place, PART, images.raw().parent, views) as mount:
        for source in MORE_SOURCES:
            warm(images.source(source))
            one_copy(place, images, settings, mount, source, "raw", ["-O", "raw"])
        warm(images.source(PLAIN))
        for view, options in MORE_VIEWS.items():
            one_copy(place, images, settings, mount, PLAIN, view, options)


def one_copy(place, images, settings, mount, source, view, options):
    image, out = images.source(source), place.directory / f"out.{view}"
    path = mount / f"{stem(source)}.{view.replace('flat.vmdk', 'flat-flat.vmdk')}"
    formats = ["-f", qemu_format(source), *options]
    verified = []

    def clean(taken):
        out.unlink(missing_ok=True)
        subprocess.run(["sync", "-f", place.directory], check=True)
        return taken

    def copy():
        drop_pages(path)
        taken = command("cp", path, out)
        if not verified:
            verify(out, options[1], images.raw())
            verified.append(True)
        return clean(taken)

    def convert(*flags):
        return clean(command("qemu-img", "convert", *flags, *formats, image, out))

    contestants = {CP: copy, DEFAULT: convert, BEST: lambda: convert("-m", "8", "-W")}
    contest(place.results, PART, f"{source} → {view}", "s", contestants, settings.runs)
