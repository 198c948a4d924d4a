# SPDX-License-Identifier: Apache-2.0
"""Sources: a variant is a way to store a shape in image files.

A builder gets a Build (a shape and fresh directories), makes the files, and says what must be
seen: the exact bytes of the disk, made from the shape alone and never by reading the image.
The builders are in the modules sources_FORMAT.
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import shapes
from tools import QemuIo, driver, qemu_img

TOP, BELOW = 1, 2  # seeds of content


@dataclass
class Source:
    root: Path
    path: str  # beneath root
    shape: shapes.Shape
    expected: Path  # the bytes of the disk: a sparse file of the exact size
    size: int  # virtual, exact
    format: str
    standalone: bool | None = None  # None: either is right
    files: int = 1
    options: tuple = ()  # of viewcat
    qemu: bool = True  # QEMU reads it, and as it should be read
    check: bool = True  # `qemu-img check` has nothing to say about it
    slow: bool = False  # QEMU needs a second for each look at it
    exact: bool = True  # QEMU shows all of the size (it cuts a qcow2 to whole sectors)
    granule: int | None = None  # what is not touched by this grain must be a hole
    qemu_holes: bool = True  # what QEMU calls unallocated must be a hole
    qemu_map: bool = True  # QEMU tells data from holes (in a VHDX all is data)
    plain: Path | None = None  # the bytes of the image, where path is not a file that has them

    @property
    def file(self):
        return self.plain or self.root / self.path

    @property
    def driver(self):
        """What QEMU calls the format."""
        return driver(self.format)


class Build:
    def __init__(self, base, shape):
        self.shape = shape
        self.root, self.scratch = base / "store", base / "scratch"
        self.expected = base / "expected.raw"
        self.root.mkdir()
        self.scratch.mkdir()

    def file(self, name):
        return self.root / name

    def expect(self, *layers, size=None):
        """The disk as (shape, seed) layers make it, lowest first; the shape alone if none."""
        layers = layers or ((self.shape, TOP),)
        shapes.write_raw(self.expected, self.shape.size if size is None else size, layers)

    def source(self, path, image_format, **kwargs):
        size = os.stat(self.expected).st_size
        return Source(self.root, path, self.shape, self.expected, size, image_format, **kwargs)

    def qemu_img(self, *args):
        return qemu_img(*args, cwd=self.root)

    def qemu_io(self):
        return QemuIo(self.scratch)

    def fill(self, image_format, name, shape=None, seed=TOP, zero_flags=""):
        """Writes the runs of a shape into an image."""
        io = self.qemu_io()
        for run in (shape or self.shape).runs:
            if run.kind == shapes.ZERO:
                io.zero(run.start, run.end - run.start, zero_flags)
            else:
                io.write(run.start, shapes.content(seed, run.start, run.end))
        io.run(image_format, name, self.root)

    def disk(self, start, end):
        """Bytes of the expected disk; zeros past its end."""
        with open(self.expected, "rb") as file:
            file.seek(start)
            return file.read(end - start).ljust(end - start, b"\0")

    def units(self, granule, shape=None):
        """{number: bytes} of the granules that the shape touches, as the expected disk has them.
        Those that lie in zero runs from end to end are b""."""
        shape = shape or self.shape
        data = {}
        for start, end in shape.touched(granule):
            for number in range(start // granule, -(-end // granule)):
                data[number] = self.disk(number * granule, (number + 1) * granule)
        for run in shape.runs:
            if run.kind == shapes.ZERO:
                for number in range(-(-run.start // granule), run.end // granule):
                    # a later run may have written there
                    if not any(data[number]):
                        data[number] = b""
        return data


VARIANTS = {}


@dataclass(frozen=True)
class Variant:
    name: str
    build: object
    shapes: tuple


def variant(name, *of, also=()):
    """Declares a builder. Every variant stores a disk with a partial tail and a fragmented one,
    unless it names its shapes."""

    def declare(build):
        assert name not in VARIANTS
        VARIANTS[name] = Variant(name, build, of or (shapes.TAIL, shapes.FRAG, *also))
        return build

    return declare


# what each of the three main source formats must store
EVERY_SHAPE = (
    shapes.SECTORS,
    shapes.U1,
    shapes.TAIL_HOLE,
    shapes.NOTHING,
    shapes.ZEROS,
    shapes.CHECKER,
    shapes.FULL,
    shapes.WIDE,
    shapes.FAR,
)


FORMATS = ("compressed", "ova", "parallels", "qcow", "qcow2", "qed", "raw", "vdi", "vhd", "vhdx", "vmdk")


def load_all():
    for name in FORMATS:
        importlib.import_module(f"sources_{name}")
    return VARIANTS


def family(variant):
    """The format that its module is about."""
    return variant.build.__module__.removeprefix("sources_")


def cases():
    return [(v, shape) for v in load_all().values() for shape in v.shapes]


def make(base, name, shape):
    build = Build(base, shape)
    return load_all()[name].build(build)
