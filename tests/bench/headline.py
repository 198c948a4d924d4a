# SPDX-License-Identifier: Apache-2.0
"""What was aimed at, against what was measured."""

from dataclasses import dataclass

from part_convert import BEST, CP, DEFAULT, FLOOR
from part_latency import AGAIN
from servers import CEILING, IMGFS, QSD
from settings import COMPRESSED, SOURCES, is_identity
from timing import median, ratios


@dataclass
class Line:
    what: str
    target: str
    measured: str
    met: bool


def figure(value):
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def spread(values, unit=""):
    text = f"{figure(median(values))} ({figure(min(values))}..{figure(max(values))})"
    return f"{text} {unit}".strip()


def compared(results, part, row, one, other):
    """Ratios of the rounds, or None where one of the two was not measured."""
    mine, theirs = results.one(part, row, one), results.one(part, row, other)
    return ratios(mine, theirs) if mine and theirs else None


def worst(cases, less_is_better):
    """The case whose median is the worst: {name: values}; None where there is no case."""
    choose = max if less_is_better else min
    cases = {name: values for name, values in cases.items() if values}
    return choose(cases.items(), key=lambda case: median(case[1]), default=None)


def line(what, cases, limit, less_is_better, unit="", sign=""):
    """One line of the table, of the worst of the cases."""
    found = worst(cases, less_is_better)
    sign = sign or ("≤" if less_is_better else "≥")
    target = f"{sign} {limit:g}{'×' if not unit else ' ' + unit}"
    if not found:
        return None
    name, values = found
    met = median(values) <= limit if less_is_better else median(values) >= limit
    of = f"; the worst of {len(cases)}: {name}" if len(cases) > 1 else f"; {name}"
    return Line(what, target, spread(values, unit) + of, met)


# ---- 1 ----


def conversions(results, sources, part="convert", who=CP, others=(DEFAULT, BEST)):
    """Against whichever of the ways of calling qemu-img is the quicker in the same round."""
    cases = {}
    for row in results.rows(part):
        if row.split()[0] in sources:
            times = [results.one(part, row, name) for name in (who, *others)]
            if all(times):
                cases[row] = ratios(times[0], [min(round_) for round_ in zip(*times[1:])])
    return cases


def convert_lines(results):
    plain = [source for source in SOURCES if source not in COMPRESSED]
    packed = [source for source in COMPRESSED if source != "zstd.qcow2"]
    versus = "against the quicker `qemu-img convert`"
    yield line(
        f"`cp` of a view of an uncompressed source, {versus}",
        *(conversions(results, plain), 0.7, True),
    )
    yield line(
        f"`cp` of a view of a zlib qcow2 or streamOptimized VMDK, {versus}",
        *(conversions(results, packed), 0.5, True),
    )
    yield line(f"`cp` of any view of any source, {versus}", conversions(results, SOURCES), 1, True)
    cold = "convert, from the disk"
    yield line(
        "`cp` of a view whose uncompressed source is on the disk alone, against `qemu-img convert`",
        *(conversions(results, plain, cold, CP, (DEFAULT,)), 0.7, True),
    )
    yield line(
        f"the same, {versus}",
        *(conversions(results, plain, cold), 1, True),
    )
    yield line(
        f"for comparison, the floor: `cp` of a ready-made file without FUSE, {versus}",
        *(conversions(results, plain, "convert", FLOOR), 0.7, True),
    )


# ---- 2 and 3 ----


def sequential(results, other, wanted):
    return {
        row: compared(results, "sequential", row, IMGFS, other)
        for row in results.rows("sequential")
        if wanted(row)
    }


def at_random(results, source, kinds):
    return {
        row: compared(results, "random", row, IMGFS, QSD)
        for row in results.rows("random")
        if row.split(",")[0] in source and row.split(", ")[1] in kinds and row.endswith("8 jobs")
    }


def read_lines(results):
    def translated(source):
        return source not in COMPRESSED and not is_identity(source, "raw")

    def identity(source):
        return is_identity(source, "raw")

    yield line(
        "1 MiB reads of a translated view in order, against the FUSE pass-through ceiling",
        *(sequential(results, CEILING, translated), 0.9, False),
    )
    yield line(
        "the same of an identity view", sequential(results, CEILING, identity), 0.95, False
    )
    yield line(
        "1 MiB reads of a raw view in order, against qemu-storage-daemon's FUSE export",
        *(sequential(results, QSD, lambda source: True), 1.5, False),
    )
    plain = [source for source in SOURCES if source not in COMPRESSED]
    yield line(
        "4 KiB O_DIRECT reads at random, 8 jobs, against the same",
        *(at_random(results, plain, ("direct",)), 2, False),
    )
    yield line(
        "4 KiB O_DIRECT reads of a compressed source at random, 8 jobs, against the same",
        *(at_random(results, COMPRESSED, ("direct", "hot")), 2, False),
    )


# ---- 4 ----


def latencies(results, start):
    return {
        row.partition(", ")[2] or row: results.one("latency", row, IMGFS)
        for row in results.rows("latency")
        if row.startswith(start)
    }


def latency_lines(results):
    qcow2 = {
        name: values
        for name, values in latencies(results, "first byte").items()
        if name.endswith(".qcow2")
    }
    yield line("first byte of a qcow2 view of a fully mapped 1 TiB image", qcow2, 1000, True, "ms")
    yield line("its second open, any view", latencies(results, "second open"), 10, True, "ms")
    yield line(
        "copy of a view of an empty 1 TiB image", latencies(results, "copy"), 50, True, "ms"
    )
    listings = latencies(results, "ls -l")
    cold = {name: values for name, values in listings.items() if name.endswith("cold")}
    warm = {name: values for name, values in listings.items() if str(AGAIN) in name}
    yield line("`ls -l` of 10,000 images, cold", cold, 2000, True, "ms")
    yield line("`ls -l` of 10,000 images, warm", warm, 300, True, "ms")
    yield line("mount, whatever the datastore", latencies(results, "mount"), 50, True, "ms")


def memory_lines(results):
    """Of imgfs, over all the mounts of this run."""
    mine = [r for r in results.memory if r["contestant"] == IMGFS]
    if not mine:
        return
    idle = {"": [r["idle"] / 1024 for r in mine]}
    yield Line("RSS, idle", "< 32 MiB", f"{max(idle['']):.1f} MiB", max(idle[""]) < 32)
    end = max(r["end"] for r in mine) / 1024
    peak = max(mine, key=lambda r: r["peak"])
    measured = f"{end:.1f} MiB; peak {peak['peak'] / 1024:.1f} MiB ({peak['part']})"
    yield Line("RSS, after all of the above", "< 200 MiB", measured, end < 200)


def lines(results):
    every = (convert_lines, read_lines, latency_lines, memory_lines)
    return [found for each in every for found in each(results) if found]
