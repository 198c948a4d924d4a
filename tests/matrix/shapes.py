# SPDX-License-Identifier: Apache-2.0
"""Shapes: what a disk holds and where, independent of any image format.

A shape is a size and a list of runs. A run is `data` (bytes that tell where they belong) or
`zero` (zeros that somebody wrote); between runs nothing was ever written.
"""

import os
import random
from dataclasses import dataclass
from functools import lru_cache

SECTOR = 512
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
UNIT = 64 * KIB

DATA = "data"
ZERO = "zero"


@dataclass(frozen=True)
class Run:
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Shape:
    name: str
    size: int
    runs: tuple = ()

    def __str__(self):
        return self.name

    @property
    def end(self):
        """Where the last run ends."""
        return max((run.end for run in self.runs), default=0)

    def reversed(self, piece):
        """The same runs, cut at multiples of `piece`, the last one first."""
        runs = []
        for run in self.runs:
            at = run.start
            while at < run.end:
                end = min((at // piece + 1) * piece, run.end)
                runs.append(Run(run.kind, at, end))
                at = end
        return Shape(f"{self.name}-reversed", self.size, tuple(reversed(runs)))

    def touched(self, granule):
        """Ranges of whole granules in which something was written, merged, cut at the size."""
        merged = []
        for run in sorted(self.runs, key=lambda r: r.start):
            start = run.start // granule * granule
            end = min(-(-run.end // granule) * granule, self.size)
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        return merged


@lru_cache(maxsize=1024)
def _unit(seed, number):
    """64 KiB that occur nowhere else. Three of four units shrink under deflate, but only by
    matches at a distance of 24 KiB: a decoder with a small window fails on them."""
    rng = random.Random(f"{seed}:{number}")
    if number % 4 == 3:
        return rng.randbytes(UNIT)
    chunk = rng.randbytes(24 * KIB)
    text = b"".join(b"seed %d unit %d line %d\n" % (seed, number, i) for i in range(1000))
    return chunk + chunk + text[: 16 * KIB].ljust(16 * KIB, b".")


def content(seed, start, end):
    """The bytes of a data run at [start, end) of the disk."""
    parts = []
    while start < end:
        number, skip = divmod(start, UNIT)
        take = min(end - start, UNIT - skip)
        parts.append(_unit(seed, number)[skip : skip + take])
        start += take
    return b"".join(parts)


def write_raw(path, size, layers):
    """A sparse file of `size` bytes with the runs of (shape, seed) layers, lowest first. What a
    zero run covers is written too, so it is allocated where the file system has no other way."""
    with open(path, "w+b") as file:
        file.truncate(size)
        for shape, seed in layers:
            for run in shape.runs:
                end = min(run.end, size)
                if run.start >= end:
                    continue
                zero = run.kind == ZERO
                data = bytes(end - run.start) if zero else content(seed, run.start, end)
                os.pwrite(file.fileno(), data, run.start)
    return path


def _fragmented(name, size, seed):
    """Runs of all alignments: whole units, pages and single sectors, data and zeros."""
    rng = random.Random(seed)
    runs = []
    at = 0
    while at < size:
        align = rng.choice((UNIT, UNIT, 4 * KIB, SECTOR))
        start = min(-(-at // align) * align + rng.choice((0, 0, 1, 3)) * align, size)
        end = min(start + align * rng.choice((1, 1, 2, 5)), size)
        if start < end:
            runs.append(Run(rng.choice((DATA, DATA, ZERO)), start, end))
        at = end + rng.choice((0, 0, 1, 2)) * align
    runs.append(Run(DATA, size - SECTOR, size))
    return Shape(name, size, tuple(runs))


def _checkerboard(name, size):
    """Data in every even unit; odd ones are zeros and nothing in turn."""
    runs = []
    for number in range(size // UNIT):
        if number % 2 == 0:
            runs.append(Run(DATA, number * UNIT, (number + 1) * UNIT))
        elif number % 4 == 1:
            runs.append(Run(ZERO, number * UNIT, (number + 1) * UNIT))
    return Shape(name, size, tuple(runs))


def _at_the_end(name, size, extra=()):
    return Shape(name, size, (*extra, Run(DATA, size - 3 * SECTOR, size)))


EMPTY = Shape("empty", 0)
ONE = Shape("1-byte", 1, (Run(DATA, 0, 1),))
B511 = Shape("511-bytes", 511, (Run(DATA, 0, 511),))
B513 = Shape("513-bytes", 513, (Run(DATA, 0, 513),))
SECTORS = Shape("1-sector", SECTOR, (Run(DATA, 0, SECTOR),))
U1 = Shape("64k+512", UNIT + SECTOR, (Run(DATA, 0, UNIT + SECTOR),))
# 1 MiB and three sectors: something at the start, a lone sector, a partial last unit
TAIL = Shape(
    "tail",
    MIB + 3 * SECTOR,
    (
        Run(DATA, 0, UNIT),
        Run(DATA, 5 * UNIT + 7 * SECTOR, 5 * UNIT + 8 * SECTOR),
        Run(DATA, MIB + SECTOR, MIB + 3 * SECTOR),
    ),
)
TAIL_HOLE = Shape("tail-hole", 3 * UNIT + 5 * SECTOR, (Run(DATA, UNIT, 2 * UNIT),))
# the last unit of the disk holds something, but not up to its end
TAIL_SHORT = Shape(
    "tail-short", 3 * UNIT + 9 * SECTOR, (Run(DATA, 0, UNIT), Run(DATA, 3 * UNIT, 3 * UNIT + 2 * SECTOR))
)
NOTHING = Shape("nothing-written", 2 * MIB + 5 * SECTOR)
ZEROS = Shape("all-zero", MIB + 7 * SECTOR, (Run(ZERO, 0, MIB + 7 * SECTOR),))
CHECKER = _checkerboard("checkerboard", 4 * MIB)
FULL = Shape("full", 3 * MIB, (Run(DATA, 0, 3 * MIB),))
FRAG = _fragmented("fragmented", 5 * MIB + 37 * SECTOR, 7)
# another map of nearly the same size, to lie above or below FRAG
FRAG2 = _fragmented("fragmented-2", 5 * MIB + 37 * SECTOR, 11)
# more than one L2 table, grain directory page and occupancy page (512 MiB)
WIDE = Shape(
    "wide",
    1200 * MIB + 9 * SECTOR,
    (
        Run(DATA, 3 * UNIT, 4 * UNIT + 512),
        Run(DATA, 512 * MIB - SECTOR, 512 * MIB + SECTOR),
        Run(ZERO, 600 * MIB, 600 * MIB + 3 * UNIT),
        Run(DATA, 1200 * MIB + 8 * SECTOR, 1200 * MIB + 9 * SECTOR),
    ),
)
FAR = _at_the_end("8-TiB", 8 * TIB)
SPLIT = _at_the_end(
    "split", 2 * GIB + 96 * MIB + 5 * SECTOR, (Run(DATA, 0, UNIT), Run(DATA, 2 * GIB - 4096, 2 * GIB + 4096))
)


def resized(shape, size, name=None):
    """The shape cut at, or followed by nothing up to, another size."""
    runs = tuple(Run(r.kind, r.start, min(r.end, size)) for r in shape.runs if r.start < size)
    return Shape(name or f"{shape.name}-{size}", size, runs)
