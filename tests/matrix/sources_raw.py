# SPDX-License-Identifier: Apache-2.0
"""Raw sources."""

import os

import shapes
from sources import EVERY_SHAPE, TOP, variant

# sizes that only raw can have
ODD_SIZES = (shapes.EMPTY, shapes.ONE, shapes.B511, shapes.B513)


@variant("raw", also=(*ODD_SIZES, *EVERY_SHAPE))
def raw(build):
    build.expect()
    shapes.write_raw(build.file("disk.raw"), build.shape.size, [(build.shape, TOP)])
    return build.source("disk.raw", "raw", standalone=True, granule=4096)


@variant("raw-by-content")
def raw_by_content(build):
    """No suffix that declares anything, and no magic."""
    build.expect()
    shapes.write_raw(build.file("disk.img"), build.shape.size, [(build.shape, TOP)])
    return build.source("disk.img", "raw", standalone=True, granule=4096)


@variant("raw-by-rule")
def raw_by_rule(build):
    build.expect()
    shapes.write_raw(build.file("disk.bin"), build.shape.size, [(build.shape, TOP)])
    return build.source("disk.bin", "raw", standalone=True, granule=4096, options=("-F", "*.bin:raw"))


@variant("raw-in-subdirectory", shapes.TAIL)
def raw_in_subdirectory(build):
    build.expect()
    build.file("a/b").mkdir(parents=True)
    shapes.write_raw(build.file("a/b/disk.raw"), build.shape.size, [(build.shape, TOP)])
    return build.source("a/b/disk.raw", "raw", standalone=True, granule=4096)


@variant("raw-dense")
def raw_dense(build):
    """Zeros instead of holes: everything is allocated."""
    build.expect()
    with open(build.file("disk.raw"), "wb") as file:
        file.write(build.disk(0, build.shape.size))
    return build.source("disk.raw", "raw", standalone=True)


@variant("raw-fallocated")
def raw_fallocated(build):
    """Allocated but never written: a hole for lseek, and yet not nothing."""
    build.expect()
    path = shapes.write_raw(build.file("disk.raw"), build.shape.size, [(build.shape, TOP)])
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, build.shape.size)
    return build.source("disk.raw", "raw", standalone=True, qemu_holes=False)


@variant("raw-with-header-of-qcow2", shapes.TAIL)
def raw_with_foreign_header(build):
    """What a guest may write into its own disk: a header that names another file."""
    build.expect()
    build.qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", "lure.qcow2", "1M")
    lure = build.file("lure.qcow2").read_bytes()[:4096]
    build.file("lure.qcow2").unlink()
    shapes.write_raw(build.file("disk.raw"), build.shape.size, [(build.shape, TOP)])
    for path in (build.file("disk.raw"), build.expected):
        with open(path, "r+b") as file:
            file.write(lure)
    return build.source("disk.raw", "raw", standalone=True, granule=4096)
