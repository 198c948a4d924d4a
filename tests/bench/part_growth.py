# SPDX-License-Identifier: Apache-2.0
"""5. What it costs when there is more of it: curves."""

import contextlib

import prepare
from prepare import warm
from reading import first_byte, shared_throughput, throughput
from servers import IMGFS, NATIVE, PEERS, QSD, imgfs_mount, in_turn, server
from settings import GIB, MIB, VIEWS
from timing import Failed, command, contest

READERS = (1, 2, 4, 8)


def run_part(place, images, settings):
    sizes(place, images, settings)
    crowds(place, images, settings)
    chains(place, images, settings)
    readers(place, images, settings)


def add(place, curve, line, x, unit, values):
    place.results.add(f"growth: {curve}", str(x), line, unit, values)


def sizes(place, images, settings):
    """First bytes of views of fully mapped disks: one pass over tables that grow with the disk."""
    stores = {size: images.full(size) for size in prepare.SIZES}
    images.settle()
    for size, store in stores.items():
        warm(store / "over-full.qcow2")
        for view in VIEWS:
            times = []
            for _ in range(settings.runs):
                with imgfs_mount(place, "growth", store) as mount:
                    times.append(first_byte(mount / f"over.{view}") * 1000)
            add(place, "virtual size", f"first byte of .{view}", size // GIB, "ms", times)


def crowds(place, images, settings):
    stores = {count: images.crowd(count) for count in prepare.CROWDS}
    images.settle()
    for count, store in stores.items():
        cold, again = [], []
        for _ in range(settings.runs):
            with imgfs_mount(place, "growth", store) as mount:
                cold.append(command("ls", "-l", mount.point) * 1000)
                again.append(command("ls", "-l", mount.point) * 1000)
        add(place, "images", "ls -l, cold", count, "ms", cold)
        add(place, "images", "ls -l, again", count, "ms", again)


def check_chain(path, size):
    with open(path, "rb", buffering=0) as file:
        for chunk in range(0, size // prepare.CHUNK, 3):
            file.seek(chunk * prepare.CHUNK)
            if file.read(1) != bytes([prepare.chunk_byte(chunk)]):
                raise Failed(f"chunk {chunk} has other bytes than were written")


def chains(place, images, settings):
    """The same bytes in one layer, in four, in sixteen: MiB/s of the raw view in order."""
    tops = {depth: images.chain(depth) for depth in prepare.DEPTHS}
    images.settle()
    for depth, top in tops.items():
        for layer in top.parent.iterdir():
            warm(layer)
        with contextlib.ExitStack() as stack:
            paths = {}
            mount = imgfs_mount(place, "growth", top.parent, "references=datastore")
            paths[IMGFS] = stack.enter_context(mount) / f"{top.stem}.raw"
            daemon = server(place, "growth", QSD, PEERS[QSD][1], top, settings.chain_bytes)
            try:
                paths[QSD] = stack.enter_context(daemon)
            except Failed as e:
                place.results.fail("growth: chain depth", str(depth), QSD, str(e))
            for path in paths.values():
                check_chain(path, settings.chain_bytes)
            contestants = {
                name: lambda path=path: throughput(
                    path, 0, settings.chain_bytes, settings.longest_read
                )
                for name, path in paths.items()
            }
            contest(
                *(place.results, "growth: chain depth", str(depth), "MiB/s"),
                *(contestants, settings.runs),
            )


def readers(place, images, settings):
    """One view, several readers, each in its own part: MiB/s of all together."""
    for source, everyone in in_turn(place, "growth", images, settings.growth_sources):
        paths = everyone.enter(source, only=(QSD,))
        for count in READERS:
            share(place, settings, source, count, everyone.start, paths)


def share(place, settings, source, count, start, paths):
    size, limit = min(settings.window, 512 * MIB), settings.longest_read

    contestants = {
        name: lambda path=path: shared_throughput(path, start, size, count, limit)
        for name, path in paths.items()
        if name != NATIVE
    }
    part = f"growth: readers of {source}"
    contest(place.results, part, str(count), "MiB/s", contestants, settings.runs)
