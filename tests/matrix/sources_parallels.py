# SPDX-License-Identifier: Apache-2.0
"""Parallels sources, by qemu-img and by hand."""

import shapes
from parallels_writer import IN_CLUSTERS, IN_SECTORS, IN_USE, write_parallels
from qcow2_writer import poke_int
from shapes import KIB, MIB, SECTOR, UNIT
from sources import variant

NAME = "disk.hdd"


# ---- by qemu-img ----


def written(options="", granule=MIB, reverse=False, name=NAME, qemu=True):
    def build_it(build):
        build.expect()
        args = ["-o", options] if options else []
        build.qemu_img("create", "-q", "-f", "parallels", *args, name, build.shape.size)
        build.fill("parallels", name, build.shape.reversed(UNIT) if reverse else None)
        return build.source(name, "parallels", standalone=True, granule=granule, qemu=qemu)

    return build_it


variant(
    "parallels",
    also=(shapes.SECTORS, shapes.NOTHING, shapes.ZEROS, shapes.CHECKER, shapes.FULL, shapes.WIDE),
)(written())
# where QEMU fails in an assertion of its own
variant("parallels-far", shapes.FAR)(written(qemu=False))
variant("parallels-64k", also=(shapes.WIDE,))(written("cluster_size=64k", UNIT))
variant("parallels-4m")(written("cluster_size=4M", 4 * MIB))
variant("parallels-scattered", shapes.FRAG, shapes.FULL)(written("cluster_size=64k", UNIT, reverse=True))
variant("parallels-hds", shapes.FRAG)(written(name="disk.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds"))
variant("parallels-by-content", shapes.TAIL)(written(name="disk.img"))


@variant("parallels-never-closed", shapes.FRAG, shapes.TAIL)
def never_closed(build):
    """QEMU would not write to it; it reads it, and so do we."""
    found = written()(build)
    poke_int(found.file, 44, "<I", IN_USE)
    found.standalone = found.check = False
    return found


# ---- by hand ----


def backwards(numbers):
    return numbers[::-1]


def by_hand(standalone=True, check=True, cut=0, **layout):
    def build_it(build):
        build.expect()
        cluster = layout.setdefault("cluster", MIB)
        blocks = build.units(cluster)
        missing = -build.shape.size % cluster if cut else 0
        write_parallels(build.file(NAME), build.shape.size, blocks, cut=missing, **layout)
        return build.source(NAME, "parallels", standalone=standalone, granule=cluster, check=check)

    return build_it


OLD = {"magic": IN_SECTORS}

variant("parallels-hand", also=(shapes.CHECKER, shapes.WIDE))(by_hand())
variant("parallels-hand-scattered", shapes.FRAG)(by_hand(order=backwards, cluster=UNIT))
variant("parallels-hand-in-sectors", also=(shapes.CHECKER, shapes.WIDE))(by_hand(**OLD))
# the sizes of old: a track, and 252 KiB
variant("parallels-hand-tracks", also=(shapes.CHECKER, shapes.FULL))(by_hand(cluster=63 * SECTOR, **OLD))
variant("parallels-hand-tracks-in-clusters")(by_hand(cluster=63 * SECTOR))
variant("parallels-hand-252k")(by_hand(cluster=252 * KIB, order=backwards, **OLD))
variant("parallels-hand-data-not-said")(by_hand(cluster=63 * SECTOR, data=777, say_data=False, check=False, **OLD))
variant("parallels-hand-size-with-garbage", shapes.TAIL)(by_hand(high=0xDEADBEEF, **OLD))
variant("parallels-hand-long-bat", shapes.TAIL)(by_hand(more=10000))
variant("parallels-hand-one-sector-clusters")(by_hand(cluster=SECTOR, **OLD))
variant("parallels-hand-old-writer", shapes.TAIL)(by_hand(in_use=0, **OLD))
variant("parallels-hand-in-use", shapes.TAIL)(by_hand(in_use=IN_USE, standalone=False, check=False))
variant("parallels-hand-flag-of-empty", shapes.TAIL)(by_hand(flags=1))
variant("parallels-hand-large-clusters", shapes.FRAG)(by_hand(cluster=64 * MIB, magic=IN_CLUSTERS))
# the file ends with the disk
variant("parallels-hand-cut-at-the-end")(by_hand(cut=1, check=False))
