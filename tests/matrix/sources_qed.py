# SPDX-License-Identifier: Apache-2.0
"""QED sources, by qemu-img and by hand."""

import shapes
from qcow2_writer import poke_int
from qed_writer import FEATURES, NEED_CHECK, RAW_BACKING, QedWriter
from shapes import KIB, MIB, UNIT, resized
from sources import BELOW, TOP, variant

NAME = "disk.qed"


# ---- by qemu-img ----


def create(build, options="", name=NAME, below=None, below_format=None):
    args = ["-o", options] if options else []
    if below:
        args += ["-b", below, "-F", below_format]
    build.qemu_img("create", "-q", "-f", "qed", *args, name, build.shape.size)


def written(options="", granule=UNIT, reverse=False, name=NAME):
    def build_it(build):
        build.expect()
        create(build, options, name)
        build.fill("qed", name, build.shape.reversed(UNIT) if reverse else None)
        return build.source(name, "qed", standalone=True, granule=granule)

    return build_it


variant(
    "qed",
    also=(shapes.SECTORS, shapes.NOTHING, shapes.ZEROS, shapes.CHECKER, shapes.FULL, shapes.WIDE, shapes.FAR),
)(written())
variant("qed-4k")(written("cluster_size=4k", 4 * KIB))
variant("qed-4k-table-16", also=(shapes.WIDE,))(written("cluster_size=4k,table_size=16", 4 * KIB))
variant("qed-1m-table-2", also=(shapes.WIDE,))(written("cluster_size=1M,table_size=2", MIB))
variant("qed-scattered", shapes.FRAG, shapes.FULL)(written(reverse=True))
variant("qed-by-content", shapes.TAIL)(written(name="disk.img"))


@variant("qed-never-closed", shapes.FRAG, shapes.TAIL)
def never_closed(build):
    """It needs a check, which a reader does not."""
    found = written()(build)
    poke_int(found.file, FEATURES, "<Q", NEED_CHECK)
    return found


# ---- by hand ----


def filled(image, build, zeros=True):
    for number, data in build.units(image.cluster).items():
        if data or not zeros:
            image.plain(number, data)
        else:
            image.zero(number)
    image.write(build.file(NAME))
    return image


def by_hand(qemu=True, check=True, zeros=True, bits=(0, 0), **layout):
    def build_it(build):
        build.expect()
        image = QedWriter(build.shape.size, **layout)
        image.compatible, image.autoclear = bits
        filled(image, build, zeros)
        return build.source(NAME, "qed", standalone=True, granule=image.cluster, qemu=qemu, check=check)

    return build_it


variant("qed-hand", also=(shapes.ZEROS, shapes.CHECKER, shapes.WIDE))(by_hand())
variant("qed-hand-4k", also=(shapes.ZEROS,))(by_hand(cluster=4096, table=16))
variant("qed-hand-zeros-written", shapes.FRAG, shapes.ZEROS)(by_hand(zeros=False))
variant("qed-hand-long-header", shapes.FRAG)(by_hand(header=3, check=False))
variant("qed-hand-features-to-ignore", shapes.TAIL)(by_hand(bits=((1 << 64) - 1, (1 << 64) - 1)))
variant("qed-hand-needs-check", shapes.TAIL)(by_hand(features=NEED_CHECK | RAW_BACKING))
# the specification has it, and QEMU refuses it
variant("qed-hand-4k-table-1")(by_hand(cluster=4096, table=1, qemu=False))


# ---- chains ----


def chain(below_size=lambda size: size, base_name="disk-base.raw", by_qemu=True, **layout):
    """Over a raw disk, which the image says itself, or its name."""

    def build_it(build):
        base = resized(shapes.FRAG2, below_size(build.shape.size))
        build.expect((base, BELOW), (build.shape, TOP))
        shapes.write_raw(build.file(base_name), base.size, [(base, BELOW)])
        if by_qemu:
            create(build, below=base_name, below_format="raw")
            build.fill("qed", NAME)
        else:
            filled(QedWriter(build.shape.size, backing=base_name.encode(), **layout), build, zeros=False)
        return build.source(NAME, "qed", standalone=False, files=2)

    return build_it


variant("qed-over-raw", also=(shapes.CHECKER, shapes.ZEROS, shapes.NOTHING))(chain(base_name="disk-base.img"))
variant("qed-over-shorter-raw")(chain(lambda size: size // 2 // 512 * 512 + 512))
variant("qed-over-longer-raw")(chain(lambda size: size + 3 * UNIT + 512))
variant("qed-hand-over-raw-unrecorded", shapes.CHECKER)(chain(by_qemu=False))
variant("qed-hand-over-raw", shapes.CHECKER)(
    chain(base_name="disk-base", by_qemu=False, features=RAW_BACKING, header=2, name_at=UNIT + 77)
)


@variant("qed-hand-zeros-over-raw", shapes.CHECKER, shapes.ZEROS)
def zeros_over_raw(build):
    """A cluster of zeros hides what is below."""
    base = resized(shapes.FULL, build.shape.size)
    build.expect((base, BELOW), (build.shape, TOP))
    shapes.write_raw(build.file("disk-base.raw"), base.size, [(base, BELOW)])
    filled(QedWriter(build.shape.size, backing=b"disk-base.raw"), build)
    return build.source(NAME, "qed", standalone=False, files=2)


@variant("qcow2-over-qed", shapes.FRAG, shapes.TAIL)
def below_qcow2(build):
    base = resized(shapes.FRAG2, build.shape.size)
    build.expect((base, BELOW), (build.shape, TOP))
    build.qemu_img("create", "-q", "-f", "qed", "disk-base.qed", base.size)
    build.fill("qed", "disk-base.qed", base, BELOW)
    build.qemu_img("create", "-q", "-f", "qcow2", "-b", "disk-base.qed", "-F", "qed", "disk.qcow2", build.shape.size)
    build.fill("qcow2", "disk.qcow2")
    return build.source("disk.qcow2", "qcow2", standalone=False, files=2)
