# SPDX-License-Identifier: Apache-2.0
"""3. Reads of 4 KiB at random, as a guest does them: fio.

"hot" stays within 16 MiB of a compressed source, and is O_DIRECT: a server that keeps what it
has unpacked does so once for each unit. "direct" is all over the window.
"""

import json
import subprocess

from reading import drop_pages
from servers import NATIVE, in_turn
from settings import MIB
from timing import Failed, contest

HOT = 16 * MIB


def run_part(place, images, settings):
    for source, everyone in in_turn(place, "random", images, settings.random):
        paths = everyone.enter(source)
        for mode in settings.random[source]:
            one_mode(place, settings, source, mode, everyone.start, paths)


def one_mode(place, settings, source, mode, start, paths):
    kind, jobs = mode.split()
    size = HOT if kind == "hot" else settings.window

    def reader(name, path):
        def read():
            # Invalidation by fio itself would also take the pages of the native file.
            if name != NATIVE:
                drop_pages(path)
            return fio(path, start, size, int(jobs), kind, settings.random_seconds)

        return read

    # The native file by O_DIRECT would measure the disk, not what is read through.
    contestants = {
        name: reader(name, path)
        for name, path in paths.items()
        if name != NATIVE or kind == "buffered"
    }
    row = f"{source}, {kind}, {jobs} job{'s' if jobs != '1' else ''}"
    contest(place.results, "random", row, "IOPS", contestants, settings.runs)


def fio(path, start, size, jobs, kind, seconds):
    """IOPS. Each job has its own part of the range when buffered, since what one job has read
    would be in the page cache for the next; by O_DIRECT all are all over it."""
    share = size // jobs if kind == "buffered" else size
    step = share if kind == "buffered" else 0
    argv = [
        *("fio", "--name=read", f"--filename={path}", "--readonly", "--rw=randread", "--bs=4k"),
        *(f"--offset={start}", f"--size={share}", f"--offset_increment={step}"),
        *(f"--numjobs={jobs}", "--thread", "--ioengine=psync", "--group_reporting"),
        *("--time_based", f"--runtime={int(seconds * 1000)}ms", "--randrepeat=0"),
        *("--invalidate=0", f"--direct={int(kind != 'buffered')}", "--output-format=json"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failed(f"fio exited with {done.returncode}: {done.stderr.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    if job["error"]:
        raise Failed(f"fio: error {job['error']}")
    return job["read"]["iops"]
