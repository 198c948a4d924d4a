# SPDX-License-Identifier: Apache-2.0
"""Images that cannot be served faithfully, and files that are none."""

import struct

import pytest
from qcow2_writer import (
    AUTOCLEAR,
    CLUSTER_BITS,
    COMPRESSION_TYPE,
    CRYPT,
    EXTENDED_L2,
    HEADER_LENGTH,
    INCOMPATIBLE,
    L1_OFFSET,
    L1_SIZE,
    LUKS_HEADER,
    SIZE,
    Qcow2Writer,
    poke_int,
)
from shapes import MIB
from stores import raw, raw_bytes
from test_references import refused, served
from tools import NO_IMAGE, parse_info, qemu_img
from vmdk_writer import CAPACITY, GD_OFFSET, GRAIN, GTES, VERSION, descriptor, write_sparse, write_stream

TOP = "disk.qcow2"


def qcow2(store, name=TOP, **kwargs):
    image = Qcow2Writer(MIB, **kwargs)
    image.plain(0, raw_bytes()[: image.cluster])
    image.write(store / name)
    return store / name


# ---- encryption ----


def test_encrypted_with_aes(viewcat, store):
    qemu_img(
        "create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=abc",
        "-o", "encrypt.format=aes,encrypt.key-secret=key", store / TOP, "1M",
    )  # fmt: skip
    assert "crypt" in refused(viewcat, store, TOP, "ENOTSUP").lower()


def test_encrypted_qcow(viewcat, store):
    qemu_img(
        "create", "-q", "-f", "qcow", "--object", "secret,id=key,data=abc",
        "-o", "encrypt.format=aes,encrypt.key-secret=key", store / "disk.qcow", "1M",
    )  # fmt: skip
    assert "encrypted with AES" in refused(viewcat, store, "disk.qcow", "ENOTSUP")


def test_encrypted_with_luks(viewcat, store):
    """By hand: QEMU measures the machine before it makes a key."""
    image = Qcow2Writer(MIB)
    image.extensions.append((LUKS_HEADER, struct.pack(">QQ", 4 << 16, 1 << 16)))
    image.plain(0, b"LUKS\xba\xbe\0\1".ljust(image.cluster, b"\xaa"))
    image.write(store / TOP)
    poke_int(store / TOP, CRYPT, ">I", 2)
    assert "crypt" in refused(viewcat, store, TOP, "ENOTSUP").lower()


# ---- qcow2 headers ----


@pytest.mark.parametrize(
    ("field", "fmt", "value", "errno"),
    (
        (4, ">I", 1, "EINVAL ENOTSUP"),
        (4, ">I", 4, "EINVAL ENOTSUP"),
        (INCOMPATIBLE, ">Q", 1 << 5, "ENOTSUP"),
        (INCOMPATIBLE, ">Q", 1 << 63, "ENOTSUP"),
        (INCOMPATIBLE, ">Q", COMPRESSION_TYPE, "EINVAL ENOTSUP"),
        (AUTOCLEAR, ">Q", 2, "EINVAL"),
        (CLUSTER_BITS, ">I", 8, "EINVAL"),
        (CLUSTER_BITS, ">I", 22, "EINVAL"),
        (CLUSTER_BITS, ">I", 0xFFFFFFFF, "EINVAL"),
        (CRYPT, ">I", 3, "EINVAL ENOTSUP"),
        (SIZE, ">Q", 1 << 63, "EINVAL"),
        (SIZE, ">Q", 1 << 40, "EINVAL"),
        (L1_SIZE, ">I", 0, "EINVAL"),
        (L1_SIZE, ">I", 0xFFFFFFFF, "EINVAL"),
        (L1_OFFSET, ">Q", 0x20200, "EINVAL"),
        (L1_OFFSET, ">Q", 1 << 40, "EINVAL"),
        (L1_OFFSET, ">Q", 0xFFFFFFFFFFFF0000, "EINVAL"),
        (HEADER_LENGTH, ">I", 96, "EINVAL"),
        (HEADER_LENGTH, ">I", 1 << 20, "EINVAL"),
    ),
)
def test_qcow2_header(viewcat, store, field, fmt, value, errno):
    path = qcow2(store)
    served(viewcat, store, TOP, raw_bytes()[:65536].ljust(MIB, b"\0"))
    poke_int(path, field, fmt, value)
    refused(viewcat, store, TOP, *errno.split())


def test_unknown_compatible_bits(viewcat, store):
    """They are what they are called."""
    path = qcow2(store)
    poke_int(path, INCOMPATIBLE + 8, ">Q", 1 << 40)
    poke_int(path, AUTOCLEAR, ">Q", 1 << 40)
    served(viewcat, store, TOP, raw_bytes()[:65536].ljust(MIB, b"\0"))


def test_unknown_compression(viewcat, store):
    path = qcow2(store, compression=1)
    poke_int(path, 104, ">B", 2)
    refused(viewcat, store, TOP, "ENOTSUP", "EINVAL")


def test_extended_l2_needs_16k(viewcat, store):
    image = Qcow2Writer(MIB, cluster_bits=13)
    image.incompatible = EXTENDED_L2
    image.write(store / TOP)
    refused(viewcat, store, TOP, "EINVAL")


def test_extension_past_its_area(viewcat, store):
    image = Qcow2Writer(MIB)
    image.extensions.append((0x12345678, b"x" * 8))
    image.write(store / TOP)
    served(viewcat, store, TOP, bytes(MIB))
    poke_int(store / TOP, 108, ">I", 1 << 20)
    refused(viewcat, store, TOP, "EINVAL")


def test_cut_in_the_l1_table(viewcat, store):
    path = qcow2(store)
    with open(path, "r+b") as file:
        file.truncate(2 * 65536)
    refused(viewcat, store, TOP, "EINVAL")


@pytest.mark.parametrize("entry", (1 << 40, 0x20200 | 1 << 63, 0x30000 | 1))
def test_l1_entry_is_checked_at_open(viewcat, store, entry):
    """Outside the file, not on a cluster. Reserved bits do no harm, to QEMU or to us."""
    path = qcow2(store)
    poke_int(path, 2 * 65536, ">Q", entry)
    if entry == 0x30000 | 1:
        served(viewcat, store, TOP, raw_bytes()[:65536].ljust(MIB, b"\0"))
    else:
        refused(viewcat, store, TOP, "EINVAL")


# ---- VMDK headers ----


def sparse(store, **kwargs):
    text = descriptor("monolithicSparse", ['RW 2048 SPARSE "disk.vmdk"'])
    write_sparse(store / "disk.vmdk", 2048, {0: raw_bytes()[:65536]}, text, **kwargs)
    return store / "disk.vmdk"


@pytest.mark.parametrize(
    ("field", "fmt", "value", "errno"),
    (
        (0, "<4s", b"kdmv", "EINVAL"),
        (VERSION, "<I", 0, "EINVAL ENOTSUP"),
        (VERSION, "<I", 4, "EINVAL ENOTSUP"),
        (CAPACITY, "<Q", 1 << 63, "EINVAL"),
        (CAPACITY, "<Q", 1 << 40, "EINVAL ENOTSUP"),
        (GRAIN, "<Q", 0, "EINVAL"),
        (GRAIN, "<Q", 100, "EINVAL"),
        (GRAIN, "<Q", 1 << 63, "EINVAL"),
        (GTES, "<I", 0, "EINVAL"),
        (GTES, "<I", 1024, "EINVAL"),
        (GD_OFFSET, "<Q", 1 << 40, "EINVAL"),
        (GD_OFFSET, "<Q", (1 << 64) - 2, "EINVAL"),
        (77, "<H", 2, "EINVAL ENOTSUP"),
    ),
)
def test_vmdk_header(viewcat, store, field, fmt, value, errno):
    path = sparse(store)
    served(viewcat, store, "disk.vmdk", raw_bytes()[:65536].ljust(MIB, b"\0"))
    poke_int(path, field, fmt, value)
    refused(viewcat, store, "disk.vmdk", *errno.split())


def test_vmdk_newlines_damaged(viewcat, store):
    """What the header calls its FTP check."""
    path = sparse(store)
    poke_int(path, 73, "<4s", b"\n \n\n")
    refused(viewcat, store, "disk.vmdk", "EINVAL")


def test_vmdk_grain_table_outside(viewcat, store):
    """The grain directory is a top-level table: damage in it hides the image."""
    path = sparse(store, flags=1)
    poke_int(path, 21 * 512, "<I", 1 << 30)
    refused(viewcat, store, "disk.vmdk", "EINVAL")


def test_stream_without_end(viewcat, store):
    """Cut while it was sent: the footer is missing."""
    text = descriptor("streamOptimized", ['RW 2048 SPARSE "disk.vmdk"'])
    write_stream(store / "disk.vmdk", 2048, {0: raw_bytes()[:65536]}, text)
    whole = (store / "disk.vmdk").read_bytes()
    served(viewcat, store, "disk.vmdk", raw_bytes()[:65536].ljust(MIB, b"\0"))
    for cut in (1024, 1536, 5000, len(whole) - 70000):
        (store / "disk.vmdk").write_bytes(whole[:-cut])
        refused(viewcat, store, "disk.vmdk", "EINVAL")


@pytest.mark.parametrize("change", (lambda whole: whole[:-512], lambda whole: whole + bytes(1024)))
def test_stream_with_another_end(viewcat, store, change):
    """No end-of-stream marker, or padding after it: all the data is there, but strict readers
    refuse the file, so it is not served as it is."""
    text = descriptor("streamOptimized", ['RW 2048 SPARSE "disk.vmdk"'])
    write_stream(store / "disk.vmdk", 2048, {0: raw_bytes()[:65536]}, text)
    (store / "disk.vmdk").write_bytes(change((store / "disk.vmdk").read_bytes()))
    served(viewcat, store, "disk.vmdk", raw_bytes()[:65536].ljust(MIB, b"\0"))
    assert parse_info(viewcat.run(store, "disk.vmdk", "info").stdout).standalone == 0


def text_only(store, *lines, create_type="monolithicFlat"):
    raw(store / "disk-flat.vmdk")
    (store / "disk.vmdk").write_bytes(descriptor(create_type, lines))
    return "disk.vmdk"


@pytest.mark.parametrize(
    "lines",
    (
        (),
        ('RW FLAT "disk-flat.vmdk" 0',),
        ('RW -1 FLAT "disk-flat.vmdk" 0',),
        ('RW 99999999999999999999 FLAT "disk-flat.vmdk" 0',),
        ('RW 36028797018963968 FLAT "disk-flat.vmdk" 0', 'RW 36028797018963968 FLAT "disk-flat.vmdk" 0'),
        ('RW 2048 FLAT "disk-flat.vmdk" 36028797018963968',),
        ('RW 2048 FLAT "disk-flat.vmdk',),
        ("RW 2048 FLAT",),
        ('RW 2048 FLAT ""',),
        ('RW 2048 UNKNOWN "disk-flat.vmdk" 0',),
        ('MAYBE 2048 FLAT "disk-flat.vmdk" 0',),
    ),
)
def test_descriptor_lines(viewcat, store, lines):
    path = text_only(store, *lines)
    refused(viewcat, store, path, "EINVAL", "ENOTSUP")


def test_flat_extent_too_short(viewcat, store):
    """QEMU invents zeros for what is missing. One sector too few is refused or an error, no zeros."""
    path = text_only(store, 'RW 2049 FLAT "disk-flat.vmdk" 0')
    info = viewcat.run(store, path, "info", expect=None)
    if info.returncode == 0:
        viewcat.run(store, path, "read", "raw", MIB, 512, expect=4)
    else:
        refused(viewcat, store, path, "EINVAL")


# ---- suffixes and magic ----


@pytest.mark.parametrize("suffix", ("qcow2", "QCOW2", "vmdk", "Vmdk", "qcow", "qed", "hdd", "HDS"))
def test_declared_by_suffix_without_magic(viewcat, store, suffix):
    """No fallback to raw."""
    raw(store / f"disk.{suffix}")
    refused(viewcat, store, f"disk.{suffix}", "EINVAL")
    (store / f"disk.{suffix}").write_bytes(b"")
    refused(viewcat, store, f"disk.{suffix}", "EINVAL")


def test_suffix_against_magic(viewcat, store):
    qcow2(store).rename(store / "disk.vmdk")
    refused(viewcat, store, "disk.vmdk", "EINVAL")
    sparse(store).rename(store / TOP)
    refused(viewcat, store, TOP, "EINVAL")


@pytest.mark.parametrize("name", ("disk.raw", "disk.RAW"))
def test_raw_is_opaque(viewcat, store, name):
    path = qcow2(store, name)
    served(viewcat, store, name, path.read_bytes())


def test_rule_against_suffix(viewcat, store):
    """What the admin declares wins."""
    path = qcow2(store)
    served(viewcat, store, TOP, path.read_bytes(), options=("-F", "*.qcow2:raw"))


FOREIGN = {
    "qed": b"QED\0",
    "vhdx": b"vhdxfile",
    "vhd": b"conectix",
    "vdi": b"<<< disk >>>".ljust(64, b"\0") + b"\x7f\x10\xda\xbe",
    "parallels": b"WithoutFreeSpace",
    "cloop": b"#!/bin/sh\n#V2.0 Format",
    "qcow1": b"QFI\xfb\0\0\0\1",
    "gzip": b"\x1f\x8b\x08",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh9",
    "tar": bytes(257) + b"ustar\x0000",
    "vmdk-unfinished": b"kdmv",
    "luks": b"LUKS\xba\xbe\0\1",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_images_are_not_raw(viewcat, store, kind):
    """An image of a kind that is not read here must not look like a disk of garbage."""
    path = raw(store / "disk.img")
    with open(path, "r+b") as file:
        file.write(FOREIGN[kind])
    refused(viewcat, store, "disk.img", "ENOTSUP", "EINVAL")


def test_fixed_vhd_is_not_raw(viewcat, store):
    path = raw(store / "disk.img")
    with open(path, "ab") as file:
        file.write(b"conectix" + struct.pack(">II", 2, 0x10000) + bytes(496))
    refused(viewcat, store, "disk.img", "EINVAL")


@pytest.mark.parametrize("suffix", ("vdi", "vhd", "vhdx", "qed", "hdd", "qcow"))
def test_a_suffix_without_its_format(viewcat, store, suffix):
    raw(store / f"disk.{suffix}")
    refused(viewcat, store, f"disk.{suffix}", "EINVAL")


@pytest.mark.parametrize("name", ("notes.txt", "README", "vm.xml", "disk.qcow2.md5", "script.sh"))
def test_not_an_image(viewcat, store, name):
    (store / name).write_text("This is only text, however long it may be.\n" * 100)
    viewcat.run(store, name, "info", expect=NO_IMAGE)
