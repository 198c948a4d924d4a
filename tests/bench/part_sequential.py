# SPDX-License-Identifier: Apache-2.0
"""2. Reads of 1 MiB in order, of the raw view: what cp and a backup do."""

from reading import throughput
from servers import NATIVE, in_turn
from timing import contest


def run_part(place, images, settings):
    for source, everyone in in_turn(place, "sequential", images, settings.sequential):
        one_source(place, settings, source, everyone)


def one_source(place, settings, source, everyone):
    def reader(name, path):
        def read():
            size, limit = settings.window, settings.longest_read
            return throughput(path, everyone.start, size, limit, drop=name != NATIVE)

        return read

    contestants = {name: reader(name, path) for name, path in everyone.enter(source).items()}
    contest(place.results, "sequential", source, "MiB/s", contestants, settings.runs)
