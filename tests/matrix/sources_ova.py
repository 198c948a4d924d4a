# SPDX-License-Identifier: Apache-2.0
"""Sources in OVAs: what other sources are, but in an archive."""

import tarfile

import shapes
from ova_writer import END, header, long_name, ovf, pad, pax, write_tar
from shapes import UNIT
from sources import TOP, variant
from tools import run

NAME = "vm.ova"
LONG = "directory-" * 12 + "/disk.vmdk"  # more than the 100 bytes that a ustar name has


def vmdk(build, subformat="streamOptimized"):
    build.expect()
    path = build.scratch / "disk.vmdk"
    build.qemu_img(
        "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", build.expected, path
    )
    return path


def in_archive(build, name, image_format, plain, **kwargs):
    # QEMU has to be told where in the archive it is: test_ova.py
    return build.source(f"{NAME}/{name}", image_format, plain=plain, qemu=False, **kwargs)


@variant("ova-stream")
def stream(build):
    """As exporters write it: the descriptor, a manifest, the disk; its last sector is not the archive's."""
    path = vmdk(build)
    write_tar(
        build.file(NAME),
        [("vm.ovf", ovf([("disk.vmdk", {"size": path.stat().st_size})])), ("vm.mf", b"SHA256()= 0\n"), ("disk.vmdk", path)],
    )
    return in_archive(build, "disk.vmdk", "vmdk", path, standalone=True, granule=UNIT)


@variant("ova-by-gnu-tar", shapes.FRAG)
def by_gnu_tar(build):
    """Names with "./", the descriptor last."""
    path = vmdk(build, "monolithicSparse")
    (build.scratch / "vm.ovf").write_bytes(ovf([("disk.vmdk", {})]))
    run("tar", "-C", build.scratch, "-cf", build.file(NAME), "./disk.vmdk", "./vm.ovf")
    return in_archive(build, "disk.vmdk", "vmdk", path, standalone=True, granule=UNIT)


def long_named(tar_format):
    def build_it(build):
        path = vmdk(build)
        write_tar(build.file(NAME), [("vm.ovf", ovf([(LONG, {})])), (LONG, path)], tar_format)
        return in_archive(build, "disk.vmdk", "vmdk", path, standalone=True, granule=UNIT)

    return build_it


variant("ova-gnu", shapes.FRAG)(long_named(tarfile.GNU_FORMAT))
variant("ova-pax", shapes.FRAG)(long_named(tarfile.PAX_FORMAT))
variant("ova-ustar-prefix", shapes.FRAG)(long_named(tarfile.USTAR_FORMAT))


@variant("ova-ovirt")
def ovirt(build):
    """A qcow2 whose name is a number; only its content says what it is."""
    build.expect()
    name = "2f3a6e0c-9f63-4c5b-8a4e-1d1d9d4e5f60"
    path = build.scratch / name
    build.qemu_img("convert", "-f", "raw", "-O", "qcow2", build.expected, path)
    write_tar(build.file(NAME), [("vm.ovf", ovf([(name, {})])), (name, path)], tarfile.GNU_FORMAT)
    return in_archive(build, name, "qcow2", path, standalone=True, granule=UNIT)


@variant("ova-raw", shapes.TAIL, shapes.EMPTY, shapes.ONE, shapes.B513, shapes.CHECKER)
def raw(build):
    build.expect()
    path = shapes.write_raw(build.scratch / "disk.raw", build.shape.size, [(build.shape, TOP)])
    write_tar(build.file(NAME), [("vm.ovf", ovf([("disk.raw", {})])), ("disk.raw", path)])
    return in_archive(build, "disk.raw", "raw", path, standalone=True)


@variant("ova-flat")
def flat(build):
    """A descriptor whose extent is a file of the archive too."""
    path = vmdk(build, "monolithicFlat")
    extent = path.with_name("disk-flat.vmdk")
    members = [("vm.ovf", ovf([("disk.vmdk", {}), ("disk-flat.vmdk", {})], [0]))]
    write_tar(build.file(NAME), [*members, ("disk-flat.vmdk", extent), ("disk.vmdk", path)])
    return in_archive(build, "disk.vmdk", "vmdk", path, standalone=False, files=2)


@variant("ova-chunked")
def chunked(build):
    """Chunks in any order, whose ends no table of the image respects."""
    path = vmdk(build)
    content = path.read_bytes()
    size = len(content) // 5 + 1
    chunks = [(f"disk.vmdk.{i:09d}", content[i * size : (i + 1) * size]) for i in range(5)]
    chunks = chunks[3:] + chunks[:3]
    descriptor = ovf([("disk.vmdk", {"size": len(content), "chunkSize": size})])
    write_tar(build.file(NAME), [("vm.ovf", descriptor), *chunks])
    return in_archive(build, "disk.vmdk", "vmdk", path, standalone=True, granule=UNIT)


@variant("ova-by-hand", shapes.FRAG, shapes.WIDE)
def by_hand(build):
    """All ways of saying how a member is called and how long it is."""
    path = vmdk(build)
    content = path.read_bytes()
    name = LONG.encode()
    size = len(content)
    descriptor = ovf([(LONG, {})])
    build.file(NAME).write_bytes(
        header(b"vm.ovf", len(descriptor), magic=b"ustar  \0") + pad(descriptor)
        + pax([(b"comment", b"for all that follow")], b"g")
        + long_name(b"another " * 40) + header(b"x", 1000, base256=True) + pad(bytes(1000))
        + pax([(b"path", name), (b"size", b"%d" % size), (b"mtime", b"1.5")])
        + header(b"short", 0) + pad(content)
        + header(b"after", 5, kind=b"\0") + pad(b"after") + END
    )  # fmt: skip
    return in_archive(build, "disk.vmdk", "vmdk", path, standalone=True, granule=UNIT)
