# SPDX-License-Identifier: Apache-2.0
"""The table of the README, sources by views: how a source of each row is made, and who judges a
copy of each column. Both are found by the words of the table itself, so that no cell of it can be
without a test."""

import re
import tarfile
from pathlib import Path

from tools import run

README = Path(__file__).resolve().parents[2] / "README.md"


# ---- rows ----


def convert(disk, path, *options):
    disk.convert(path, *options)
    return path


def qemu(image_format, suffix, *options):
    def make(directory, disk):
        extra = [word for option in options for word in ("-o", option)]
        return convert(disk, directory / f"image.{suffix}", "-O", image_format, *extra)

    return make


def overlay(image_format, suffix, base_format=None):
    """An image whose data is half its own and half its base's."""
    base_format = base_format or image_format

    def make(directory, disk):
        base = convert(disk, directory / f"image-base.{suffix}", "-O", base_format)
        path = directory / f"image.{suffix}"
        run("qemu-img", "create", "-qf", image_format, "-b", base.name, "-F", base_format, path)
        return path

    return make


def external_data(directory, disk):
    path = directory / "image.qcow2"
    return convert(disk, path, "-O", "qcow2", "-o", f"data_file={directory}/image-data.raw")


def snapshot(directory, disk):
    """The disk as it was; what is there now is something else."""
    path = convert(disk, directory / "image.qcow2", "-O", "qcow2")
    run("qemu-img", "snapshot", "-c", "before", path)
    run("qemu-io", "-c", "write -P 0x55 0 1M", path)
    return path


def delta(directory, disk):
    base = convert(disk, directory / "image.vmdk", "-O", "vmdk")
    path = directory / "image-000001.vmdk"
    run("qemu-img", "create", "-qf", "vmdk", "-b", base.name, "-F", "vmdk", path)
    return path


def ova(directory, disk):
    """Made as exporters do: the description first, then the disk that it names."""
    work = directory.with_name("ova")
    work.mkdir()
    name = "image-disk1.vmdk"
    convert(disk, work / name, "-O", "vmdk", "-o", "subformat=streamOptimized")
    (work / "image.ovf").write_text(
        '<?xml version="1.0"?>\n'
        '<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"\n'
        '          xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">\n'
        f'  <References><File ovf:id="file1" ovf:href="{name}"/></References>\n'
        '  <DiskSection><Info>disks</Info><Disk ovf:diskId="vmdisk1" ovf:fileRef="file1"\n'
        f'    ovf:capacity="{disk.path.stat().st_size}"/></DiskSection>\n'
        "</Envelope>\n"
    )
    with tarfile.open(directory / "image.ova", "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in ("image.ovf", name):
            archive.add(work / member, arcname=member)
    return directory / "image.ova" / name


def packed(suffix, *argv):
    def make(directory, disk):
        path = convert(disk, directory / "image.qcow2", "-O", "qcow2")
        run(*argv, path)
        path.unlink(missing_ok=True)
        return path.with_name(f"image.qcow2.{suffix}")

    return make


def original(source):
    """The bytes that a source is made of, out of its archive."""
    return source if source.exists() else source.parents[1].with_name("ova") / source.name


# Words of the first column: the row's sources. A row is tested by all of those that it has.
ROWS = {
    "raw": lambda directory, disk: disk.save(directory / "image.raw") or directory / "image.raw",
    "qcow2": qemu("qcow2", "qcow2"),
    "zlib clusters": lambda directory, disk: convert(
        disk, directory / "image.qcow2", "-O", "qcow2", "-c"
    ),
    "backing chain": overlay("qcow2", "qcow2"),
    "external data file": external_data,
    "snapshot": snapshot,
    "monolithicSparse": qemu("vmdk", "vmdk"),
    "streamOptimized": qemu("vmdk", "vmdk", "subformat=streamOptimized"),
    "flat": qemu("vmdk", "vmdk", "subformat=monolithicFlat"),
    "split": qemu("vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
    "delta": delta,
    "VHD dynamic": qemu("vpc", "vhd", "force_size"),
    "VHD fixed": qemu("vpc", "vhd", "subformat=fixed", "force_size"),
    "VHDX": qemu("vhdx", "vhdx"),
    "VDI": qemu("vdi", "vdi"),
    "qcow1": qemu("qcow", "qcow"),
    "QED": qemu("qed", "qed"),
    "Parallels": qemu("parallels", "hdd"),
    "OVA": ova,
    "gzip": packed("gz", "gzip"),
    "xz": packed("xz", "xz", "--block-size=1MiB"),
    "zstd": packed("zst", "zstd", "-q", "--rm"),
}  # fmt: skip

# What the mount must be told for some
OPTIONS = {"snapshot": ["snapshots"], "gzip": ["scan_gzip"]}


# ---- columns ----

# Of a view's suffix: the name that qemu-img has for the format, and who reads it besides
COLUMNS = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "stream.vmdk": "vmdk",
    "flat.vmdk": "vmdk",
    "vhd": "vpc",
    "fixed.vhd": "vpc",
    "vhdx": "vhdx",
    "vdi": "vdi",
}


def judge(path, view, disk):
    """The copy holds the disk; of some formats the size is rounded up to whole sectors."""
    run("qemu-img", "compare", "-q", "-f", COLUMNS[view], "-F", "raw", path, disk.path, timeout=300)
    if view not in ("raw", "flat.vmdk", "fixed.vhd") and not view.endswith("vhd"):
        run("qemu-img", "check", "-q", "-f", COLUMNS[view], path)


def second(path, view, disk):
    """Somebody else reads it as well; 7-Zip and libvmdk do not read all that QEMU writes."""
    if view == "raw":
        assert path.read_bytes() == disk.bytes
    elif view == "qcow2":
        assert "QCOW" in run("qcowinfo", path).out
    elif view.endswith("vhd"):
        run("vhdiinfo", path)
    elif view.endswith("vmdk"):
        run("vmdkinfo", path)
        run("7z", "t", path)
    elif view == "vdi":
        assert run("7z", "x", "-so", path).stdout[: len(disk.bytes)] == disk.bytes
    # 7-Zip refuses a VHDX of an odd number of sectors, of whoever's making; the matrix has others


# ---- the table itself ----


def table():
    """(heads of the columns, rows as lists of cells) of the README's first table of views."""
    rows, found = [], False
    for line in README.read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not rows and "view" not in cells[0]:
                continue
            rows.append(cells)
            found = True
        elif found:
            break
    return rows[0][1:], [row for row in rows[2:]]


def column_names():
    return [re.findall(r"`\.?([^`]+)`", head)[0].lstrip(".") for head in table()[0]]


def keys_of(row):
    """The sources that a row of the table speaks of."""
    return [key for key in ROWS if re.search(rf"\*\*{re.escape(key)}\*\*", row[0])]
