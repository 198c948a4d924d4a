# SPDX-License-Identifier: Apache-2.0
"""How much is measured: all of it within twenty minutes, or with --quick within three."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

tests = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(tests / "mount"), str(tests / "realdisk")]

from tools import GIB, MIB, TIB, VIEWS  # noqa: E402

PARTS = ("convert", "sequential", "random", "latency", "growth", "formats")

# name of the source: how qemu-img makes it
SOURCES = {
    "raw.raw": None,  # the disk itself
    "plain.qcow2": ["-O", "qcow2"],
    "zlib.qcow2": ["-O", "qcow2", "-c"],
    "zstd.qcow2": ["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
    "sparse.vmdk": ["-O", "vmdk"],
    "stream.vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
}
COMPRESSED = ("zlib.qcow2", "zstd.qcow2", "stream.vmdk")

# The other formats, as sources and as views: how qemu-img makes them
MORE_SOURCES = {
    "vhd.vhd": ["-O", "vpc", "-o", "force_size"],
    "vhdx.vhdx": ["-O", "vhdx"],
    "vdi.vdi": ["-O", "vdi"],
    "qcow.qcow": ["-O", "qcow"],
    "qed.qed": ["-O", "qed"],
    "parallels.hdd": ["-O", "parallels"],
}
MORE_VIEWS = {
    "flat.vmdk": ["-O", "raw"],  # of the pair, the file with the disk
    "stream.vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
    "vhd": ["-O", "vpc", "-o", "force_size"],
    "fixed.vhd": ["-O", "vpc", "-o", "subformat=fixed,force_size"],
    "vhdx": ["-O", "vhdx"],
    "vdi": ["-O", "vdi"],
}

DISK_SIZE = 8 * GIB
HUGE = TIB


def stem(source):
    return source.rpartition(".")[0]


def image_format(path):
    return str(path).rpartition(".")[2]


def qemu_format(path):
    """What qemu-img calls it."""
    suffix = image_format(path)
    return {"vhd": "vpc", "hdd": "parallels"}.get(suffix, suffix)


def is_identity(source, view):
    """Is the view the source's own bytes?"""
    return image_format(source) == view


ALL_PAIRS = [(source, view) for source in SOURCES for view in VIEWS]


@dataclass
class Settings:
    """Of a full run, unless told otherwise."""

    name: str = "full"
    parts: tuple = PARTS
    runs: int = 5  # that count, of each contestant; one more before them warms up
    # Of files on the disk of 8 GiB; --disk says otherwise. 54 conversions in six rounds take half of
    # the twenty minutes.
    disk_bytes: int = 640 * MIB
    pairs: list = field(default_factory=lambda: ALL_PAIRS)
    cold_pairs: tuple = (
        ("raw.raw", "qcow2"),
        ("plain.qcow2", "raw"),
        ("plain.qcow2", "vmdk"),
        ("sparse.vmdk", "raw"),
    )
    cat_pairs: tuple = (  # none of the raw view: cat reads all of its 8 GiB, holes too
        ("raw.raw", "qcow2"),
        ("plain.qcow2", "vmdk"),
        ("zlib.qcow2", "vmdk"),
        ("sparse.vmdk", "qcow2"),
        ("stream.vmdk", "qcow2"),
    )
    window: int = 512 * MIB  # of the disk that is read in order, and at random
    sequential: tuple = ("plain.qcow2", "zlib.qcow2", "sparse.vmdk", "stream.vmdk", "raw.raw")
    longest_read: float = 4.0  # seconds; what a slow one has read until then has to do
    random: dict = field(
        default_factory=lambda: {
            "plain.qcow2": ("buffered 1", "direct 1", "buffered 8", "direct 8"),
            "zlib.qcow2": ("buffered 1", "direct 1", "buffered 8", "direct 8", "hot 1", "hot 8"),
            "stream.vmdk": ("direct 8", "hot 8"),
            "raw.raw": ("direct 8",),
        }
    )
    random_seconds: float = 0.5
    crowd: int = 10_000
    chain_bytes: int = 512 * MIB
    growth_sources: tuple = ("plain.qcow2", "zlib.qcow2")


def quick():
    return Settings(
        name="quick",
        parts=PARTS[:-1],
        runs=3,
        disk_bytes=256 * MIB,
        pairs=[
            ("raw.raw", "qcow2"),
            *(("plain.qcow2", view) for view in VIEWS),
            ("zlib.qcow2", "raw"),
            ("sparse.vmdk", "raw"),
            ("stream.vmdk", "raw"),
        ],
        cold_pairs=(("plain.qcow2", "raw"),),
        cat_pairs=(("plain.qcow2", "vmdk"),),
        window=192 * MIB,
        sequential=("plain.qcow2", "zlib.qcow2", "raw.raw"),
        longest_read=1.0,
        random={
            "plain.qcow2": ("buffered 1", "direct 8"),
            "zlib.qcow2": ("direct 8", "hot 8"),
        },
        random_seconds=0.3,
        chain_bytes=128 * MIB,
        growth_sources=("plain.qcow2",),
    )
