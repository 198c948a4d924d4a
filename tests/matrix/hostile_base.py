# SPDX-License-Identifier: Apache-2.0
"""A base of the hostile cases: a small legal image, taken apart.

A base knows its files, what the disk holds, and the places in the files that a table may name.
Where not said otherwise a disk is 1 MiB in 16 units of 64 KiB, all of it data except unit 3, which
the format marks as zeros where it can, and unit 7, which is absent.
"""

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import shapes
from shapes import MIB, UNIT

SEED, BELOW_SEED = 21, 22
UNITS = MIB // UNIT
ZERO_UNIT, ABSENT_UNIT = 3, 7


@dataclass
class Base:
    path: str
    files: dict  # name: bytes
    disk: bytes
    units: set  # that count as occupied
    target: str  # the file that offsets without a file mean
    others: dict = field(default_factory=dict)  # short name: file
    symbols: dict = field(default_factory=dict)  # name: number
    blobs: dict = field(default_factory=dict)  # name: bytes
    below: bytes = b""  # the disk of the parent
    text: tuple = ()  # the descriptor: file, offset, bytes that it may take
    finish: object = None  # gets the Workspace after the changes: makes checksums right


BASES = {}


def base(build):
    """Registers a function that fills a directory and returns the Base without its files."""

    @cache
    def make():
        with tempfile.TemporaryDirectory(prefix="imgfs-hostile-") as path:
            made = build(Path(path))
            made.files = {p.name: p.read_bytes() for p in sorted(Path(path).iterdir())}
        made.symbols.setdefault("end", len(made.files[made.target]))
        made.symbols |= {f"len_{n.replace('-', '_')}": len(blob) for n, blob in made.blobs.items()}
        return made

    BASES[build.__name__.removesuffix("_").replace("_", "-")] = make
    return make


def data(number, size=UNIT, seed=SEED):
    return shapes.content(seed, number * size, (number + 1) * size)


def disk_of(zeros=(ZERO_UNIT, ABSENT_UNIT)):
    return b"".join(bytes(UNIT) if n in zeros else data(n) for n in range(UNITS))


def made(path, target=None, zeros=(ZERO_UNIT, ABSENT_UNIT), **kwargs):
    units = set(range(UNITS)) - set(zeros)
    return Base(path, {}, disk_of(zeros), units, target or path, **kwargs)


def below_file(store, name):
    shapes.write_raw(store / name, MIB, [(shapes.Shape("below", MIB, (shapes.Run(shapes.DATA, 0, MIB),)), BELOW_SEED)])
    return shapes.content(BELOW_SEED, 0, MIB)
