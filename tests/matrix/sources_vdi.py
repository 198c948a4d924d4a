# SPDX-License-Identifier: Apache-2.0
"""VDI sources: dynamic, fixed and differencing disks, by QEMU and by hand."""

import shapes
from shapes import MIB, SECTOR, resized
from sources import BELOW, TOP, variant
from vdi_writer import BLOCK, DIFFERENCING, FIXED, ID, NIL, PARENT_ID, PARENT_STATE, STATE, write_vdi

NAME = "disk.vdi"


# ---- by qemu-img ----


def create(build, options=()):
    build.qemu_img("create", "-q", "-f", "vdi", *options, NAME, build.shape.size)


def written(options=(), reverse=False, granule=BLOCK):
    def build_it(build):
        build.expect()
        create(build, options)
        build.fill("vdi", NAME, build.shape.reversed(BLOCK) if reverse else None)
        return build.source(NAME, "vdi", standalone=True, granule=granule)

    return build_it


variant(
    "vdi-dynamic",
    also=(shapes.SECTORS, shapes.NOTHING, shapes.ZEROS, shapes.CHECKER, shapes.FULL, shapes.WIDE),
)(written())
variant("vdi-dynamic-scattered", shapes.FRAG, shapes.FULL)(written(reverse=True))
variant("vdi-static")(written(("-o", "static=on"), granule=None))


# ---- by hand ----


def blocks_of(build, block=BLOCK, zeros=False):
    units = build.units(block)
    return units if zeros else {n: data or bytes(block) for n, data in units.items()}


def by_hand(qemu=True, check=True, standalone=True, zeros=False, **layout):
    def build_it(build):
        build.expect()
        block = layout.get("block", BLOCK)
        granule = None if layout.get("kind") == FIXED else block
        write_vdi(build.file(NAME), build.shape.size, blocks_of(build, block, zeros), **layout)
        return build.source(NAME, "vdi", standalone=standalone, granule=granule, qemu=qemu, check=qemu and check)

    return build_it


def backwards(numbers):
    return numbers[::-1]


variant("vdi-hand-dynamic", also=(shapes.CHECKER, shapes.WIDE))(by_hand())
variant("vdi-hand-zero-blocks", also=(shapes.ZEROS, shapes.CHECKER))(by_hand(zeros=True))
variant("vdi-hand-scattered", shapes.FRAG)(by_hand(order=backwards))
variant("vdi-hand-spare-blocks", shapes.FRAG)(by_hand(spare=2, check=False, standalone=False))
variant("vdi-hand-aligned-to-sectors", shapes.FRAG, shapes.TAIL)(by_hand(align=SECTOR))
variant("vdi-hand-short-header", shapes.TAIL)(by_hand(length=0x180))
variant("vdi-hand-fixed", also=(shapes.WIDE,))(by_hand(kind=FIXED))
# what other readers do not take
variant("vdi-hand-longer-map", shapes.TAIL)(by_hand(more_blocks=3, qemu=False, standalone=False))
variant("vdi-hand-small-blocks", also=(shapes.CHECKER,))(by_hand(block=4096, qemu=False, standalone=False))
variant("vdi-hand-large-blocks")(by_hand(block=4 * MIB, order=backwards, qemu=False, standalone=False))
variant("vdi-hand-extra-bytes")(by_hand(extra=512, qemu=False, standalone=False))
variant("vdi-hand-nil-ids", shapes.TAIL)(by_hand(ids=(NIL, NIL), standalone=False))


# ---- differencing ----


def below(build, name="disk-base.vdi", size=None, **layout):
    """What lies below. Returns its shape."""
    shape = resized(shapes.FRAG2, build.shape.size if size is None else size)
    path = shapes.write_raw(build.scratch / "below", shape.size, [(shape, BELOW)])
    data = path.read_bytes()
    blocks = {n: data[n * BLOCK : (n + 1) * BLOCK] for n in range(-(-shape.size // BLOCK))}
    write_vdi(build.file(name), shape.size, blocks, ids=(PARENT_ID, PARENT_STATE), **layout)
    return shape


def child(build, name, zeros=False, parent=(PARENT_ID, PARENT_STATE), **fields):
    """VirtualBox fills up a new block from the parent, so the block is the disk's as it is."""
    write_vdi(
        build.file(name), build.shape.size, blocks_of(build, zeros=zeros), kind=DIFFERENCING, parent=parent, **fields
    )


def differencing(size=None, kind=None, zeros=False, parent=(PARENT_ID, PARENT_STATE), path=NAME, base="disk-base.vdi",
                 options=()):  # fmt: skip
    def build_it(build):
        build.file(path).parent.mkdir(exist_ok=True)
        shape = below(build, base, size, **({"kind": kind} if kind else {}))
        build.expect((shape, BELOW), (build.shape, TOP))
        child(build, path, zeros, parent)
        return build.source(path, "vdi", standalone=False, files=2, qemu=False, options=options)

    return build_it


variant("vdi-differencing", also=(shapes.CHECKER,))(differencing())
variant("vdi-differencing-zero-blocks", also=(shapes.ZEROS,))(differencing(zeros=True))
variant("vdi-differencing-fixed-parent")(differencing(kind=FIXED))
variant("vdi-differencing-short-parent", shapes.FRAG)(differencing(size=MIB + 5 * SECTOR))
variant("vdi-differencing-any-state", shapes.TAIL)(differencing(parent=(PARENT_ID, NIL)))
variant("vdi-differencing-as-virtualbox-keeps-it", shapes.FRAG)(
    differencing(path="Snapshots/{61524334-0000}.vdi", base="a machine.vdi", options=("-r", "datastore"))
)


@variant("vdi-differencing-chain", shapes.FRAG)
def chain(build):
    """Three layers in a directory with others that are not meant."""
    shape = below(build)
    middle = shapes.Shape("middle", shape.size, (shapes.Run(shapes.DATA, MIB + SECTOR, MIB + 9 * SECTOR),))
    build.expect((shape, BELOW), (middle, 3))
    write_vdi(
        build.file("disk-m.vdi"), shape.size, {1: build.disk(MIB, 2 * MIB)}, kind=DIFFERENCING,
        parent=(PARENT_ID, PARENT_STATE),
    )  # fmt: skip
    build.expect((shape, BELOW), (middle, 3), (build.shape, TOP))
    child(build, NAME, parent=(ID, STATE), ids=(b"c" * 16, b"s" * 16))
    write_vdi(build.file("disk-a.vdi"), shape.size, {0: b"a" * MIB}, ids=(b"o" * 16, PARENT_STATE))
    write_vdi(build.file("disk-b.vdi"), shape.size, {0: b"b" * MIB}, ids=(ID, b"o" * 16))
    write_vdi(build.file("disk-c.vdi"), shape.size, {0: b"c" * MIB}, ids=(PARENT_ID, b"o" * 16))
    build.file("disk-d.vdi").write_bytes(b"no VDI at all")
    return build.source(NAME, "vdi", standalone=False, files=3, qemu=False)
