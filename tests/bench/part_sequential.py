# SPDX-License-Identifier: Apache-2.0
"""2. Reads of 1 MiB in order, of the raw view: what cp and a backup do."""

import contextlib

from prepare import warm
from reading import throughput
from servers import NATIVE, Contestants, imgfs_mount
from timing import contest


def run_part(place, images, settings):
    for source in settings.sequential:
        images.source(source)
    images.settle()
    warm(images.raw())
    with imgfs_mount(place, "sequential", images.raw().parent) as mount:
        for source in settings.sequential:
            warm(images.source(source))
            with contextlib.ExitStack() as stack:
                everyone = Contestants(place, "sequential", images, mount, stack)
                one_source(place, settings, source, everyone)


def one_source(place, settings, source, everyone):
    def reader(name, path):
        def read():
            size, limit = settings.window, settings.longest_read
            return throughput(path, everyone.start, size, limit, drop=name != NATIVE)

        return read

    contestants = {name: reader(name, path) for name, path in everyone.enter(source).items()}
    contest(place.results, "sequential", source, "MiB/s", contestants, settings.runs)
