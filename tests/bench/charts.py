# SPDX-License-Identifier: Apache-2.0
"""The charts. Each contestant has its colour in all of them."""

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

from part_convert import BEST, CP, DEFAULT, FLOOR  # noqa: E402
from servers import CEILING, IMGFS, NATIVE, QSD  # noqa: E402
from settings import SOURCES, VIEWS, is_identity  # noqa: E402
from timing import median  # noqa: E402

COLOURS = {
    IMGFS: "#d1242f",
    CP: "#d1242f",
    QSD: "#1f6feb",
    DEFAULT: "#8db8f5",
    "qemu-img convert": "#8db8f5",
    BEST: "#1f6feb",
    FLOOR: "#b6bcc3",
    "qemu-nbd + nbdfuse": "#6cb4a8",
    "nbdkit + nbdfuse": "#2e7d6b",
    "xmount": "#b58bd6",
    "vmdkmount": "#e8a33d",
    "qcowmount": "#a9792b",
    CEILING: "#57606a",
    NATIVE: "#b6bcc3",
}
LINES = ("#d1242f", "#e8a33d", "#7a4fa3")  # of curves of imgfs alone


def style(axes, title, ylabel):
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def bars(axes, groups, names, find):
    """Groups of bars with whiskers from least to most; find(group, name): values or None."""
    present = [[name for name in names if find(group, name)] for group in groups]
    width = 0.8 / max(1, *map(len, present))
    for place, group in enumerate(groups):
        for index, name in enumerate(present[place]):
            values = find(group, name)
            middle = median(values)
            noise = [[middle - min(values)], [max(values) - middle]]
            x = place + (index - (len(present[place]) - 1) / 2) * width
            axes.bar(x, middle, width * 0.92, color=COLOURS.get(name, "#000000"))
            axes.errorbar(x, middle, yerr=noise, color="#24292f", linewidth=0.8, capsize=1.5)
    axes.set_xticks(range(len(groups)))


def legend(figure, names):
    patches = [matplotlib.patches.Patch(color=COLOURS.get(n, "#000000"), label=n) for n in names]
    columns = min(4, max(1, len(names)))
    figure.legend(handles=patches, loc="lower center", ncol=columns, frameon=False, fontsize=9)


def save(figure, path, bottom):
    figure.tight_layout(rect=(0, bottom, 1, 1))
    figure.savefig(path)
    pyplot.close(figure)


def convert(results, path):
    figure, all_axes = pyplot.subplots(1, len(VIEWS), figsize=(12, 4.2), sharey=True)
    names = [n for n in (CP, DEFAULT, BEST, FLOOR) if n in results.contestants("convert")]
    for axes, view in zip(all_axes, VIEWS):
        rows = results.rows("convert")
        sources = [s for s in SOURCES if f"{s} → {view}" in rows]
        bars(axes, sources, names, lambda s, n: results.one("convert", f"{s} → {view}", n))
        labels = [s + ("\n(as is)" if is_identity(s, view) else "") for s in sources]
        axes.set_xticklabels(labels, fontsize=8, rotation=30, ha="right")
        style(axes, f"to {view}", "seconds, less is better" if view == VIEWS[0] else "")
    legend(figure, names)
    save(figure, path, 0.07)


def sequential(results, path):
    rows, names = results.rows("sequential"), ordered(results, "sequential")
    figure, axes = pyplot.subplots(figsize=(11, 4.5))
    bars(axes, rows, names, lambda row, name: results.one("sequential", row, name))
    axes.set_xticklabels(rows)
    style(axes, "raw view of a source, 1 MiB reads in order", "MiB/s, more is better")
    legend(figure, names)
    save(figure, path, 0.13)


def at_random(results, path):
    """A panel per source; without the native file, next to which nothing else would be seen."""
    rows = results.rows("random")
    names = [n for n in ordered(results, "random") if n != NATIVE]
    sources = list(dict.fromkeys(row.split(",")[0] for row in rows))
    widths = [sum(row.split(",")[0] == s for row in rows) for s in sources]
    figure, all_axes = pyplot.subplots(
        *(1, len(sources)),
        figsize=(min(14, max(8, 1.3 * sum(widths) + 2)), 4.5),
        squeeze=False,
        gridspec_kw={"width_ratios": widths},
    )
    for axes, source in zip(all_axes[0], sources):
        mine = [row for row in rows if row.split(",")[0] == source]
        bars(axes, mine, names, lambda row, name: results.one("random", row, name))
        axes.set_xticklabels([row.partition(", ")[2].replace(", ", "\n") for row in mine])
        first = source == sources[0]
        style(axes, source, "4 KiB reads/s, more is better" if first else "")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    legend(figure, names)
    save(figure, path, 0.15)


def latency(results, path):
    """One bar a row, log scale; qemu-img beside it where it was asked."""
    rows = results.rows("latency")[::-1]
    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.27 * len(rows)))
    names = ordered(results, "latency")
    height = 0.8 / len(names)
    for place, row in enumerate(rows):
        for index, name in enumerate(names):
            values = results.one("latency", row, name)
            if values:
                y = place - (index - (len(names) - 1) / 2) * height
                middle = median(values)
                noise = [[middle - min(values)], [max(values) - middle]]
                axes.barh(y, middle, height, color=COLOURS[name])
                axes.errorbar(middle, y, xerr=noise, color="#24292f", linewidth=0.8, capsize=1.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels(rows, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("milliseconds, less is better; each line is ten times the one before")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(axis="x", color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
    legend(figure, names)
    save(figure, path, 0.4 / (1 + 0.27 * len(rows)))


def growth(results, path):
    parts = [p for p in dict.fromkeys(r["part"] for r in results.records) if "growth" in p]
    columns = 2 if len(parts) <= 4 else 3
    figure, all_axes = pyplot.subplots(2, columns, figsize=(4 * columns, 7))
    for axes, part in zip(all_axes.flat, parts):
        curve(results, axes, part)
    for axes in all_axes.flat[len(parts) :]:
        axes.set_visible(False)
    save(figure, path, 0)


LABELS = {
    "growth: virtual size": "virtual size of a fully mapped qcow2, GiB",
    "growth: images": "images in the datastore",
    "growth: chain depth": "layers",
}


def curve(results, axes, part):
    xs = [int(row) for row in results.rows(part)]
    spare = iter(LINES)
    for name in results.contestants(part):
        values = [results.one(part, str(x), name) for x in xs]
        points = [(x, v) for x, v in zip(xs, values) if v]
        colour = COLOURS.get(name) or next(spare)
        middles = [median(v) for _, v in points]
        noise = [
            [m - min(v) for m, (_, v) in zip(middles, points)],
            [max(v) - m for m, (_, v) in zip(middles, points)],
        ]
        axes.errorbar(
            *([x for x, _ in points], middles),
            **{"yerr": noise, "color": colour, "label": name},
            **{"marker": "o", "markersize": 4, "capsize": 2},
        )
    unit = results.of(part)[0]["unit"]
    logarithmic = unit == "ms"
    axes.set_xscale("log", base=10 if logarithmic else 2)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(xs)
    axes.set_xticklabels([f"{x:,}" for x in xs])
    axes.minorticks_off()
    axes.set_xlabel(LABELS.get(part, "readers at once"))
    better = "less" if logarithmic else "more"
    style(axes, part.partition(": ")[2], f"{unit}, {better} is better")
    axes.legend(frameon=False, fontsize=8)


def ordered(results, part):
    """imgfs first, then the peers, at last what cannot be passed."""
    found = results.contestants(part)
    return [n for n in COLOURS if n in found] + [n for n in found if n not in COLOURS]


def draw(results, directory):
    """All that there are records for; the names of the files."""
    drawn = []
    every = [("convert", convert), ("sequential", sequential), ("random", at_random)]
    every += [("latency", latency), ("growth", growth)]
    for name, chart in every:
        path = directory / f"{name}.svg"
        path.unlink(missing_ok=True)
        if any(r["part"].split(":")[0] == name for r in results.records):
            chart(results, path)
            drawn.append(path.name)
    return drawn
