# SPDX-License-Identifier: Apache-2.0
"""All images that the tables of hostile cases change: those of the formats, and raw disks."""

import hostile_parallels  # noqa: F401
import hostile_qcow  # noqa: F401
import hostile_qcow2
import hostile_qed  # noqa: F401
import hostile_vdi  # noqa: F401
import hostile_vhd  # noqa: F401
import hostile_vhdx  # noqa: F401
import hostile_vmdk  # noqa: F401
from hostile_base import BASES, base, below_file, disk_of, made
from qcow2_writer import Qcow2Writer
from shapes import MIB

__all__ = ("BASES", "UNCHANGED")


def raw_base(store, name):
    (store / name).write_bytes(disk_of(()))
    return made(name, zeros=())


@base
def raw(store):
    return raw_base(store, "disk.raw")


@base
def image(store):
    """A suffix that says only that it is a disk."""
    return raw_base(store, "disk.img")


@base
def nameless(store):
    return raw_base(store, "disk")


@base
def guessed(store):
    """A qcow2 that only its content makes one, without a reference."""
    writer = Qcow2Writer(MIB)
    hostile_qcow2.fill_plain(writer)
    writer.write(store / "disk.img")
    return made("disk.img", symbols=hostile_qcow2.qcow2_symbols(store / "disk.img"))


@base
def guessed_overlay(store):
    """The same as a guest would write it to get at a neighbour."""
    below_file(store, "disk-base.raw")
    made_overlay = hostile_qcow2.overlay_of(store, "disk-base.raw", "raw")
    (store / hostile_qcow2.QCOW2).rename(store / "disk.img")
    made_overlay.path = made_overlay.target = "disk.img"
    return made_overlay


# What is seen of a base that nobody has changed, where that is not its disk.
UNCHANGED = {
    "endless-parallels": "size:1<<57;absent:qcow2;absent:vmdk",
    "endless-qed": "size:1<<60;absent:qcow2;absent:vmdk",
    "endless-qcow2": "size:1<<60;absent:vmdk",
    "endless-vmdk": "size:1<<61;absent:qcow2",
    "guessed-overlay": "refused:EPERM:content",
}
