# SPDX-License-Identifier: Apache-2.0
"""What an image may name, and that nothing else is ever opened."""

import os

import pytest
import qcow_writer
import qed_writer
from qcow2_writer import DATA_FILE, EXTERNAL_DATA, Qcow2Writer, overlay
from shapes import MIB, SECTOR
from stores import SECRET, flat_vmdk, raw, raw_bytes
from tools import NO_IMAGE, OK, REFUSED, assert_same_bytes
from vmdk_writer import ZERO_GTE, descriptor, write_cowd, write_sesparse, write_sparse

TOP = "disk.qcow2"


def refused(viewcat, store, path, *errnos, options=()):
    """Refused, in one line that says which of these errors it was."""
    done = viewcat.run(store, path, "info", options=options, expect=REFUSED)
    lines = done.stderr.splitlines()
    last = lines[-1]
    assert last.startswith("refused: "), done.stderr
    name, _, reason = last[len("refused: ") :].partition(": ")
    name = {"EOPNOTSUPP": "ENOTSUP"}.get(name, name)  # one number, two names
    assert name in errnos, last
    assert reason and SECRET[:20].decode() not in done.stderr
    return reason


def served(viewcat, store, path, expected, options=()):
    got = viewcat.run(store, path, "cat", "raw", options=options, text=False).stdout
    assert_same_bytes(got, expected)


# ---- backing files: who may be named ----

FAMILY = ("disk-base.raw", "disk.raw", "disk_1.raw", "disk@snap.raw", "disk.base.raw")
STRANGERS = ("other.raw", "disk2.raw", "diskbase.raw", "dis.raw", "sub/disk-base.raw", ".disk-base.raw")


@pytest.mark.parametrize("name", FAMILY)
def test_family_is_followed(viewcat, store, name):
    raw(store / name)
    overlay(store / TOP, name, "raw")
    served(viewcat, store, TOP, raw_bytes())
    served(viewcat, store, TOP, raw_bytes(), options=("-r", "datastore"))
    refused(viewcat, store, TOP, "EPERM", options=("-r", "none"))


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_only_with_datastore(viewcat, store, name):
    (store / name).parent.mkdir(exist_ok=True)
    raw(store / name)
    overlay(store / TOP, name, "raw")
    assert "references=datastore" in refused(viewcat, store, TOP, "EPERM")
    served(viewcat, store, TOP, raw_bytes(), options=("-r", "datastore"))
    refused(viewcat, store, TOP, "EPERM", options=("-r", "none"))


def test_refusal_does_not_tell_what_is_there(viewcat, store):
    """The answer to a refused name is the same whether there is such a file or not."""
    overlay(store / TOP, "other.raw", "raw")
    without = refused(viewcat, store, TOP, "EPERM")
    raw(store / "other.raw")
    assert refused(viewcat, store, TOP, "EPERM") == without


def test_relative_to_the_file_that_names(viewcat, store):
    (store / "sub").mkdir()
    raw(store / "sub/disk-base.raw")
    raw(store / "disk-base.raw", seed=1)
    overlay(store / "sub" / TOP, "disk-base.raw", "raw")
    served(viewcat, store, f"sub/{TOP}", raw_bytes())


def test_absolute_name_in_the_datastore(viewcat, store):
    raw(store / "disk-base.raw")
    overlay(store / TOP, os.fspath((store / "disk-base.raw").resolve()), "raw")
    served(viewcat, store, TOP, raw_bytes())


@pytest.mark.parametrize("policy", ("family", "datastore"))
def test_names_that_lead_out(viewcat, tmp, store, policy):
    (tmp / "disk-secret.raw").write_bytes(SECRET)
    (tmp / "store-2").mkdir()
    (tmp / "store-2/disk-base.raw").write_bytes(SECRET)
    (store / "sub").mkdir()
    raw(store / "disk-base.raw")
    for name in (
        os.fspath(tmp / "disk-secret.raw"),
        "/etc/passwd",
        f"{store}-2/disk-base.raw",
        f"{store}/../disk-secret.raw",
        "../disk-secret.raw",
        "sub/../disk-base.raw",
        "sub/../../disk-secret.raw",
        "./../disk-secret.raw",
        "..",
        "/proc/self/root/etc/passwd",
    ):
        overlay(store / TOP, name, "raw")
        refused(viewcat, store, TOP, "EPERM", options=("-r", policy))


@pytest.mark.parametrize("policy", ("family", "datastore"))
@pytest.mark.parametrize(
    "name",
    (
        'json:{"driver":"file","filename":"/etc/passwd"}',
        'json:{"driver":"raw","file":{"driver":"file","filename":"disk-base.raw"}}',
        "nbd:127.0.0.1:10809",
        "nbd+unix:///?socket=/run/disk.sock",
        "http://127.0.0.1/disk.raw",
        "file:disk-base.raw",
        "host_device:/dev/null",
        "fat:rw:/etc",
    ),
)
def test_protocol_names_are_names(viewcat, store, policy, name):
    raw(store / "disk-base.raw")
    overlay(store / TOP, name, "raw")
    refused(viewcat, store, TOP, "EPERM", "ENOENT", options=("-r", policy))


def test_a_name_that_looks_like_a_protocol_is_a_file(viewcat, store):
    raw(store / "file:disk.raw")
    overlay(store / TOP, "file:disk.raw", "raw")
    served(viewcat, store, TOP, raw_bytes(), options=("-r", "datastore"))


@pytest.mark.parametrize(
    "name", (b"disk-\nbase.raw", b"disk-\x7f.raw", b"disk-base.raw\0x", b"disk-base.raw/", b"/", b".")
)
def test_names_that_are_none(viewcat, store, name):
    raw(store / "disk-base.raw")
    overlay(store / TOP, name, "raw")
    refused(viewcat, store, TOP, "EINVAL", "EPERM", options=("-r", "datastore"))


def test_longest_name(viewcat, store):
    """1023 bytes are a name (of no file), 1024 are none."""
    overlay(store / TOP, "disk-" + "/x" * 509, "raw")
    refused(viewcat, store, TOP, "ENOENT", options=("-r", "datastore"))
    overlay(store / TOP, "disk-" + "/x" * 509 + "y", "raw")
    refused(viewcat, store, TOP, "EINVAL", options=("-r", "datastore"))


# ---- what is named ----


@pytest.mark.parametrize("target", ("inside.raw", "../outside.raw", "/etc/passwd"))
def test_symlinks_are_not_followed(viewcat, tmp, store, target):
    raw(store / "inside.raw")
    (tmp / "outside.raw").write_bytes(SECRET)
    (store / "disk-base.raw").symlink_to(target)
    overlay(store / TOP, "disk-base.raw", "raw")
    refused(viewcat, store, TOP, "ELOOP", "EXDEV", "EINVAL")


def test_symlinked_directory_is_not_followed(viewcat, tmp, store):
    (tmp / "elsewhere").mkdir()
    (tmp / "elsewhere/base.raw").write_bytes(SECRET)
    (store / "sub").symlink_to(tmp / "elsewhere")
    overlay(store / TOP, "sub/base.raw", "raw")
    refused(viewcat, store, TOP, "ELOOP", "EXDEV", options=("-r", "datastore"))


def test_the_image_itself_is_no_symlink(viewcat, store):
    raw(store / "disk.raw")
    (store / "link.raw").symlink_to("disk.raw")
    refused(viewcat, store, "link.raw", "ELOOP", "EINVAL")


@pytest.mark.parametrize("kind", ("directory", "fifo", "socket"))
def test_only_regular_files(viewcat, store, kind):
    path = store / "disk-base.raw"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o140600)
    overlay(store / TOP, "disk-base.raw", "raw")
    refused(viewcat, store, TOP, "EINVAL", "EISDIR", "ENXIO")
    refused(viewcat, store, "disk-base.raw", "EINVAL", "EISDIR", "ENXIO")


def test_missing(viewcat, store):
    overlay(store / TOP, "disk-base.raw", "raw")
    refused(viewcat, store, TOP, "ENOENT")
    refused(viewcat, store, "nothing.qcow2", "ENOENT")


# ---- formats of what is named ----


def test_unrecorded_format(viewcat, store):
    """Taken for raw where the name says so; never guessed."""
    raw(store / "disk-base.img")
    overlay(store / TOP, "disk-base.img")
    refused(viewcat, store, TOP, "EINVAL")
    (store / "disk-base.img").rename(store / "disk-base.raw")
    overlay(store / TOP, "disk-base.raw")
    served(viewcat, store, TOP, raw_bytes())


def test_recorded_raw_is_never_looked_at(viewcat, tmp, store):
    """A guest wrote a qcow2 header that names a file into the disk below."""
    (tmp / "secret").write_bytes(SECRET)
    overlay(store / "disk-base.img", "disk-secret.raw", "raw")
    (store / "disk-secret.raw").write_bytes(SECRET)
    overlay(store / TOP, "disk-base.img", "raw")
    below = (store / "disk-base.img").read_bytes()
    served(viewcat, store, TOP, below[:MIB].ljust(MIB, b"\0"))


def test_recorded_format_must_be_true(viewcat, store):
    raw(store / "disk-base.img")
    for image_format in ("qcow2", "vmdk"):
        overlay(store / TOP, "disk-base.img", image_format)
        refused(viewcat, store, TOP, "EINVAL")


@pytest.mark.parametrize("image_format", ("bochs", "nbd", "file", "host_device", "luks", "blkdebug"))
def test_recorded_format_of_others(viewcat, store, image_format):
    raw(store / "disk-base.img")
    overlay(store / TOP, "disk-base.img", image_format)
    refused(viewcat, store, TOP, "ENOTSUP")


@pytest.mark.parametrize("name", ("disk.img", "disk", "disk.0", "3f2a9c0d11e24b7f8a90b1c2d3e4f506"))
def test_guessed_format_names_nothing(viewcat, store, name):
    """Recognised by content only: a guest may have written that header."""
    for policy in ("family", "datastore"):
        raw(store / f"{name}-base.raw")
        overlay(store / name, f"{name}-base.raw", "raw")
        refused(viewcat, store, name, "EPERM", options=("-r", policy))
        served(viewcat, store, name, raw_bytes(), options=("-r", policy, "-F", f"{name}:qcow2"))


# ---- qcow and QED ----

OTHER_OVERLAYS = {
    "disk.qcow": lambda path, name: qcow_writer.overlay(path, name),
    "disk.qed": lambda path, name: qed_writer.overlay(path, name, qed_writer.RAW_BACKING),
}


@pytest.fixture(params=OTHER_OVERLAYS)
def other_overlay(request, store):
    """(path, function that makes it over a name)"""
    return request.param, lambda name: OTHER_OVERLAYS[request.param](store / request.param, name)


def test_other_overlay_in_the_family(viewcat, store, other_overlay):
    path, make = other_overlay
    raw(store / "disk-base.raw")
    make("disk-base.raw")
    served(viewcat, store, path, raw_bytes())
    served(viewcat, store, path, raw_bytes(), options=("-r", "datastore"))
    assert "references=none" in refused(viewcat, store, path, "EPERM", options=("-r", "none"))


def test_other_overlay_on_a_stranger(viewcat, store, other_overlay):
    path, make = other_overlay
    raw(store / "other.raw")
    make("other.raw")
    assert "references=datastore" in refused(viewcat, store, path, "EPERM")
    served(viewcat, store, path, raw_bytes(), options=("-r", "datastore"))


@pytest.mark.parametrize("name", ("/etc/passwd.raw", "../disk-secret.raw", "sub/../disk-base.raw"))
def test_other_overlay_outside(viewcat, tmp, store, other_overlay, name):
    path, make = other_overlay
    raw(store / "disk-base.raw")
    (tmp / "disk-secret.raw").write_bytes(SECRET)
    make(name)
    for policy in ("family", "datastore"):
        refused(viewcat, store, path, "EPERM", options=("-r", policy))


@pytest.mark.parametrize("name", (b"disk-\nbase.raw", b"disk-base.raw/", b"disk-base\0.raw", b"disk-" + b"/x" * 507 + b"/.raw"))
def test_other_overlay_on_no_name(viewcat, store, other_overlay, name):
    path, make = other_overlay
    make(name)
    refused(viewcat, store, path, "EINVAL", options=("-r", "datastore"))


def test_other_overlay_on_itself(viewcat, store):
    qed_writer.overlay(store / "disk.qed", "disk.qed", qed_writer.RAW_BACKING)
    refused(viewcat, store, "disk.qed", "ELOOP")
    qcow_writer.overlay(store / "disk.raw", "disk.raw")
    refused(viewcat, store, "disk.raw", "ELOOP", options=("-F", "disk.raw:qcow"))


def test_other_overlay_by_content_names_nothing(viewcat, store, other_overlay):
    path, make = other_overlay
    raw(store / "disk-base.raw")
    make("disk-base.raw")
    (store / path).rename(store / "disk")
    assert "content" in refused(viewcat, store, "disk", "EPERM")
    kind = path.rpartition(".")[2]
    served(viewcat, store, "disk", raw_bytes(), options=("-F", f"disk:{kind}"))


def test_other_overlay_without_a_format(viewcat, store):
    """qcow never says what is below; QED says only that it is raw. A name may, an image is not probed."""
    raw(store / "disk-base.img")
    qcow_writer.overlay(store / "disk.qcow", "disk-base.img")
    refused(viewcat, store, "disk.qcow", "EINVAL")
    qed_writer.overlay(store / "disk.qed", "disk-base.img")
    refused(viewcat, store, "disk.qed", "EINVAL")
    qed_writer.overlay(store / "disk.qed", "disk-base.img", qed_writer.RAW_BACKING)
    served(viewcat, store, "disk.qed", raw_bytes())
    overlay(store / "disk-base.qcow2", "disk-base.img", "raw")
    qed_writer.overlay(store / "disk.qed", "disk-base.qcow2")
    refused(viewcat, store, "disk.qed", "EINVAL")


@pytest.mark.parametrize("suffix", ("qcow", "qed", "parallels"))
def test_recorded_format_is_looked_for(viewcat, store, suffix):
    raw(store / "disk-base.img")
    overlay(store / TOP, "disk-base.img", suffix)
    assert f"should be {suffix}" in refused(viewcat, store, TOP, "EINVAL")


# ---- chains ----


def test_backed_by_itself(viewcat, store):
    overlay(store / TOP, TOP, "qcow2")
    refused(viewcat, store, TOP, "ELOOP", options=("-r", "datastore"))
    refused(viewcat, store, TOP, "ELOOP", "EPERM")


def test_backed_by_itself_as_raw(viewcat, store):
    overlay(store / TOP, TOP, "raw")
    refused(viewcat, store, TOP, "ELOOP", options=("-r", "datastore"))


def test_cycle_of_three(viewcat, store):
    overlay(store / TOP, "disk-1.qcow2", "qcow2")
    overlay(store / "disk-1.qcow2", "disk-2.qcow2", "qcow2")
    overlay(store / "disk-2.qcow2", "disk-1.qcow2", "qcow2")
    refused(viewcat, store, TOP, "ELOOP")


def test_cycle_by_another_name(viewcat, store):
    overlay(store / TOP, "disk-1.qcow2", "qcow2")
    os.link(store / TOP, store / "disk-1.qcow2")
    refused(viewcat, store, TOP, "ELOOP")


def test_chain_of_17(viewcat, store):
    """One more than the matrix has."""
    raw(store / "disk-00.raw")
    below, below_format = "disk-00.raw", "raw"
    for i in range(1, 17):
        name = f"disk-{i:02}.qcow2"
        overlay(store / name, below, below_format)
        below, below_format = name, "qcow2"
    os.rename(store / "disk-16.qcow2", store / TOP)
    refused(viewcat, store, TOP, "ELOOP")
    os.rename(store / "disk-15.qcow2", store / "disk-15-top.qcow2")
    served(viewcat, store, "disk-15-top.qcow2", raw_bytes(), options=("-r", "datastore"))


def test_family_is_that_of_the_top(viewcat, store):
    """A layer below may not lead to its own family, which the top could not name."""
    raw(store / "disk-base-own.raw")
    raw(store / "base.raw")
    overlay(store / "disk-base.qcow2", "disk-base-own.raw", "raw")
    overlay(store / TOP, "disk-base.qcow2", "qcow2")
    served(viewcat, store, TOP, raw_bytes())
    overlay(store / "disk-base.qcow2", "base.raw", "raw")
    refused(viewcat, store, TOP, "EPERM")


# ---- data files ----


def with_data_file(path, name, bits=EXTERNAL_DATA):
    image = Qcow2Writer(MIB)
    image.incompatible |= bits
    if name is not None:
        image.extensions.append((DATA_FILE, name.encode()))
    for number in range(MIB // 65536):
        image.entries[number] = number * 65536 | 1 << 63
    image.write(path)


def test_data_file(viewcat, tmp, store):
    raw(store / "disk-data.raw")
    with_data_file(store / TOP, "disk-data.raw")
    served(viewcat, store, TOP, raw_bytes())
    refused(viewcat, store, TOP, "EPERM", options=("-r", "none"))


@pytest.mark.parametrize("name", ("other.raw", "/etc/passwd", "../secret", 'json:{"driver":"null-co"}'))
def test_data_file_outside(viewcat, tmp, store, name):
    (tmp / "secret").write_bytes(SECRET)
    (store / "other.raw").write_bytes(SECRET)
    with_data_file(store / TOP, name)
    refused(viewcat, store, TOP, "EPERM")


def test_data_file_not_named(viewcat, store):
    with_data_file(store / TOP, None)
    refused(viewcat, store, TOP, "EINVAL")


def test_data_file_that_is_the_image(viewcat, store):
    with_data_file(store / TOP, TOP)
    refused(viewcat, store, TOP, "ELOOP", "EPERM", options=("-r", "datastore"))


def test_data_file_without_the_bit(viewcat, store):
    """The extension alone makes nothing external."""
    raw(store / "disk-data.raw")
    image = Qcow2Writer(MIB)
    image.extensions.append((DATA_FILE, b"disk-data.raw"))
    image.plain(0, raw_bytes()[:65536])
    image.write(store / TOP)
    served(viewcat, store, TOP, raw_bytes()[:65536].ljust(MIB, b"\0"))


def test_guessed_format_has_no_data_file(viewcat, store):
    raw(store / "disk-data.raw")
    with_data_file(store / "disk.img", "disk-data.raw")
    refused(viewcat, store, "disk.img", "EPERM", options=("-r", "datastore"))


# ---- VMDK ----


def child(store, name="disk-000001", parent_cid=0x11223344, hint="disk.vmdk", lines=None):
    write_sparse(store / f"{name}-s001.vmdk", MIB // SECTOR, {}, flags=3 | ZERO_GTE, version=2)
    lines = lines or [f'RW {MIB // SECTOR} SPARSE "{name}-s001.vmdk"']
    text = descriptor("twoGbMaxExtentSparse", lines, cid=0x5555AAAA, parent_cid=parent_cid, hint=hint)
    (store / f"{name}.vmdk").write_bytes(text)
    return f"{name}.vmdk"


def test_parent_is_followed(viewcat, store):
    flat_vmdk(store)
    served(viewcat, store, child(store), raw_bytes())
    refused(viewcat, store, child(store), "EPERM", options=("-r", "none"))


def test_wrong_cid(viewcat, store):
    flat_vmdk(store)
    refused(viewcat, store, child(store, parent_cid=0x11223345), "EINVAL", "ESTALE")


def test_missing_parent(viewcat, store):
    refused(viewcat, store, child(store), "ENOENT")


def test_parent_cid_without_a_name(viewcat, store):
    refused(viewcat, store, child(store, hint=None), "EINVAL")


@pytest.mark.parametrize("name", ("other.vmdk", "/etc/passwd", "../disk.vmdk"))
def test_parent_outside(viewcat, tmp, store, name):
    flat_vmdk(store, "other")
    flat_vmdk(tmp)
    refused(viewcat, store, child(store, hint=name), "EPERM")


def test_parent_outside_with_datastore(viewcat, store):
    flat_vmdk(store, "other")
    served(viewcat, store, child(store, hint="other.vmdk"), raw_bytes(), options=("-r", "datastore"))


def test_parent_is_vmdk(viewcat, store):
    raw(store / "disk.raw")
    refused(viewcat, store, child(store, hint="disk.raw"), "EINVAL")


def test_parent_is_itself(viewcat, store):
    name = child(store, parent_cid=0x5555AAAA, hint="disk-000001.vmdk")
    refused(viewcat, store, name, "ELOOP")


def test_parents_in_a_cycle(viewcat, store):
    child(store, "disk-000002", parent_cid=0x5555AAAA, hint="disk-000001.vmdk")
    name = child(store, "disk-000001", parent_cid=0x5555AAAA, hint="disk-000002.vmdk")
    refused(viewcat, store, name, "ELOOP")


def test_missing_extent(viewcat, store):
    flat_vmdk(store)
    (store / "disk-flat.vmdk").unlink()
    refused(viewcat, store, "disk.vmdk", "ENOENT")


@pytest.mark.parametrize("name", ("other-flat.vmdk", "/etc/passwd", "../disk-flat.vmdk", "nbd:localhost:1"))
def test_extent_outside(viewcat, tmp, store, name):
    (tmp / "disk-flat.vmdk").write_bytes(SECRET)
    (store / "other-flat.vmdk").write_bytes(SECRET)
    text = descriptor("monolithicFlat", [f'RW 2 FLAT "{name}" 0'])
    (store / "disk.vmdk").write_bytes(text)
    refused(viewcat, store, "disk.vmdk", "EPERM")


def test_extent_is_bytes(viewcat, store):
    """A descriptor that is named as a flat extent is not parsed."""
    flat_vmdk(store, "disk-inner")
    inner = (store / "disk-inner.vmdk").read_bytes().ljust(SECTOR, b"\n")
    (store / "disk-inner.vmdk").write_bytes(inner)
    text = descriptor("monolithicFlat", [f'RW {len(inner) // SECTOR} FLAT "disk-inner.vmdk" 0'])
    (store / "disk.vmdk").write_bytes(text)
    served(viewcat, store, "disk.vmdk", inner[: len(inner) // SECTOR * SECTOR])


def test_descriptor_as_sparse_extent(viewcat, store):
    flat_vmdk(store, "disk-inner")
    text = descriptor("twoGbMaxExtentSparse", ['RW 2048 SPARSE "disk-inner.vmdk"'])
    (store / "disk.vmdk").write_bytes(text)
    refused(viewcat, store, "disk.vmdk", "EINVAL")


def test_extent_that_is_the_descriptor(viewcat, store):
    text = descriptor("monolithicFlat", ['RW 1 FLAT "disk.vmdk" 0'])
    (store / "disk.vmdk").write_bytes(text.ljust(2 * SECTOR, b"\n"))
    refused(viewcat, store, "disk.vmdk", "ELOOP", "EPERM")


def test_guessed_descriptor_names_nothing(viewcat, store):
    """A text file is no image by its content; if it were one it could name no file."""
    flat_vmdk(store)
    (store / "disk.vmdk").rename(store / "disk.img")
    done = viewcat.run(store, "disk.img", "info", expect=None)
    assert done.returncode in (REFUSED, NO_IMAGE)


@pytest.mark.parametrize(
    ("create_type", "line"),
    (
        ("fullDevice", 'RW 2048 FLAT "disk-flat.vmdk" 0'),
        ("partitionedDevice", 'RW 2048 FLAT "/dev/sda" 63'),
        ("partitionedDevice", 'RW 2048 FLAT "\\\\.\\PhysicalDrive0" 63'),
        ("vmfsRDM", 'RW 2048 VMFSRDM "disk-flat.vmdk"'),
        ("vmfsRDM", 'RW 2048 FLAT "disk-flat.vmdk" 0'),
        ("vmfsRDMP", 'RW 2048 VMFSRDM "disk-flat.vmdk"'),
        ("vmfsRawDeviceMap", 'RW 2048 VMFSRDM "disk-flat.vmdk"'),
        ("vmfsPassthroughRawDeviceMap", 'RW 2048 VMFSRDM "disk-flat.vmdk"'),
        ("vmfsRaw", 'RW 2048 VMFSRAW "disk-flat.vmdk"'),
        ("monolithicFlat", 'RW 2048 VMFSRDM "disk-flat.vmdk"'),
    ),
)
def test_devices(viewcat, store, create_type, line):
    """Types that reach a device, even where a regular file is named in its place."""
    flat_vmdk(store)
    (store / "disk.vmdk").write_bytes(descriptor(create_type, [line]))
    refused(viewcat, store, "disk.vmdk", "ENOTSUP", "EPERM")


def test_device_node_as_extent(viewcat, store):
    text = descriptor("monolithicFlat", ['RW 2048 FLAT "/dev/zero" 0'])
    (store / "disk.vmdk").write_bytes(text)
    refused(viewcat, store, "disk.vmdk", "EPERM", "ENOTSUP", options=("-r", "datastore"))


@pytest.mark.parametrize("kind", ("cowd", "sesparse"))
def test_extent_file_opened_itself(viewcat, store, kind):
    """The extent of a delta has no descriptor, so it is no image."""
    writer = {"cowd": write_cowd, "sesparse": write_sesparse}[kind]
    writer(store / "disk.vmdk", 2048, {0: b"x" * SECTOR})
    done = viewcat.run(store, "disk.vmdk", "info", expect=None)
    assert done.returncode != OK
