# SPDX-License-Identifier: Apache-2.0
"""The Markdown table, made of the records."""

import headline
from headline import figure, spread
from servers import IMGFS
from timing import median

EXPLAINED = {
    "convert": "Seconds; less is better. *as is*: the view is the source's own bytes.",
    "convert, from the disk": "Seconds; less is better. The source is not in the page cache, as "
    "when an image is converted that nobody has read today.",
    "convert, not the disk": "Seconds; less is better. The view is read and thrown away; qemu-img "
    "decodes into null-co, which is the nearest that it has.",
    "formats": "Seconds; less is better. Formats beside the three of `convert`; sources in memory.",
    "sequential": "MiB/s; more is better. A fresh part of the kernel's page cache for each run: "
    "all of it comes through the server. The sources are in the page cache.",
    "random": "Reads of 4 KiB per second; more is better. *hot*: O_DIRECT within 16 MiB.",
    "latency": "Milliseconds; less is better.",
}


def table(head, rows):
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def headline_table(results):
    found = headline.lines(results)
    rows = [[x.what, x.target, x.measured, "yes" if x.met else "**no**"] for x in found]
    yield from table(["what", "target", "measured: median (min..max)", "met?"], rows)


def cell(results, part, row, contestant):
    record = results.of(part, row, contestant)
    if record:
        values = record[0]["values"]
        return spread(values) if len(values) > 1 else f"{figure(values[0])} (one run)"
    failed = any(
        f["contestant"] == contestant and f["part"] == part and f["row"] in (row, row.split(",")[0])
        for f in results.failures
    )
    return "failed" if failed else ""


def part_table(results, part):
    names = results.contestants(part)
    rows = [[r, *(cell(results, part, r, n) for n in names)] for r in results.rows(part)]
    yield from table([results.of(part)[0]["unit"], *names], rows)


def parts(results):
    return list(dict.fromkeys(r["part"] for r in results.records))


def details(results):
    for part in parts(results):
        yield f"## {part[0].upper()}{part[1:]}"
        yield ""
        explained = EXPLAINED.get(part)
        if explained:
            yield explained
            yield ""
        yield from part_table(results, part)


def memory_table(results):
    """The most of each kind, over its mounts."""
    rows = []
    kinds = dict.fromkeys((r["contestant"], r["part"]) for r in results.memory)
    for contestant, part in sorted(kinds, key=lambda kind: (kind[0] != IMGFS, kind)):
        mine = [r for r in results.memory if (r["contestant"], r["part"]) == (contestant, part)]
        idle = median([r["idle"] for r in mine])
        end, peak = (max(r[key] for r in mine) for key in ("end", "peak"))
        rows.append([contestant, part, *(figure(kib / 1024) for kib in (idle, end, peak))])
    if rows:
        yield "## Memory"
        yield ""
        yield "RSS, MiB, of all processes of a server: idle (median), the most at an end, the peak."
        yield ""
        yield from table(["", "part", "idle", "end", "peak"], rows)


def failures(results):
    if not results.failures:
        return
    yield "## What could not be measured"
    yield ""
    rows = [
        [f["part"], f["row"], f["contestant"], f["message"].replace("\n", " ").replace("|", "\\|")]
        for f in results.failures
    ]
    yield from table(["part", "what", "who", "message"], rows)


def write(path, results, machine, charts):
    lines = ["# imgfs: measured", ""]
    lines += [f"- {key}: {value}" for key, value in machine.items()]
    lines += [
        f"- medians of {results.settings.runs} rounds, in each of which every contestant has a "
        "turn; ratios are those of the same round; in brackets the least and the most",
        "",
        *headline_table(results),
        *(f"![{name}]({name})" for name in charts),
        "",
        *details(results),
        *memory_table(results),
        *failures(results),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
