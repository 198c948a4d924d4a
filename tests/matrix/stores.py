# SPDX-License-Identifier: Apache-2.0
"""Small datastores for tests of single rules."""

from dataclasses import dataclass
from pathlib import Path

import shapes
from shapes import MIB, Run, Shape
from vmdk_writer import descriptor

DISK = Shape("disk", MIB, (Run(shapes.DATA, 0, MIB),))
SECRET = b"nobody may read this " * 50


@dataclass
class Image:
    root: Path
    path: str
    options: tuple = ()


def raw(path, seed=9):
    """1 MiB of data."""
    return shapes.write_raw(path, DISK.size, [(DISK, seed)])


def raw_bytes(seed=9):
    return shapes.content(seed, 0, DISK.size)


def flat_vmdk(store, name="disk", *, cid=0x11223344, seed=9, **text):
    """A descriptor NAME.vmdk and its NAME-flat.vmdk, 1 MiB."""
    raw(store / f"{name}-flat.vmdk", seed)
    line = f'RW {MIB // 512} FLAT "{name}-flat.vmdk" 0'
    (store / f"{name}.vmdk").write_bytes(descriptor("monolithicFlat", [line], cid=cid, **text))
    return store / f"{name}.vmdk"
