# SPDX-License-Identifier: Apache-2.0
"""VHDX by what others make of it: QEMU of logs, libvhdi of disks with parents."""

import shutil

import pytest
import pyvhdi
import shapes
import sources
from sources_vhdx import BASE, CHILD
from stores import SECRET
from test_references import refused, served
from tools import assert_same, assert_same_bytes, qemu_img
from vhdx_writer import BELOW_GUID, Partial, linked_to, write_vhdx

MIB = shapes.MIB

# QEMU 7.2 takes the entry behind the first one of a sequence for the next whatever its number is, and
# makes no file longer by a number of MiB.
NOT_OF_QEMU = ("vhdx-log-leftovers", "vhdx-log-longer-file")
LOGS = [
    (variant, shape)
    for variant, shape in sources.cases()
    if variant.name.startswith("vhdx-log") and variant.name not in NOT_OF_QEMU and shape in (variant.shapes[0], shapes.FRAG)
]


def named(value):
    return getattr(value, "name", None)


@pytest.mark.parametrize(("variant", "shape"), LOGS, ids=named)
def test_replayed_by_qemu(viewcat, tmp, variant, shape):
    """QEMU opens no such file read-only. What its repair makes of a copy is the disk that is shown of
    the file as it is, and then the copy is as good as any."""
    source = sources.make(tmp, variant.name, shape)
    done = qemu_img("convert", "-f", "vhdx", "-O", "raw", source.file, tmp / "raw", check=False)
    assert "contains a log that needs to be replayed" in done.stderr
    before = source.file.read_bytes()
    viewcat.of(source, "copy", "raw", tmp / "ours")
    viewcat.of(source, "copy", "vhdx", tmp / "again.vhdx")
    assert source.file.read_bytes() == before
    copy = tmp / "store-2" / source.path
    copy.parent.mkdir()
    shutil.copy(source.file, copy)
    qemu_img("check", "-r", "all", "-f", "vhdx", copy)
    qemu_img("convert", "-f", "vhdx", "-O", "raw", copy, tmp / "raw")
    assert_same(tmp / "raw", tmp / "ours")
    assert viewcat.run(copy.parent, copy.name, "info").stdout.splitlines()[2] == "standalone 1"
    qemu_img("check", "-f", "vhdx", tmp / "again.vhdx")
    qemu_img("compare", "-f", "vhdx", "-F", "vhdx", tmp / "again.vhdx", copy)


# ---- libvhdi ----

# libvhdi (20210425) reads no shorter parent, knows no second linkage, and takes blocks of zeros for the
# parent's; the chain has a parent of its own kind.
NOT_OF_LIBVHDI = ("short-parent", "second-linkage", "full-blocks", "chain")
CHILDREN = [
    (variant, shape)
    for variant, shape in sources.cases()
    if variant.name.startswith("vhdx-differencing")
    and not variant.name.endswith(NOT_OF_LIBVHDI)
    and shape.size < 64 * MIB
]


def opened(path):
    file = pyvhdi.file()
    file.open(str(path))
    return file


@pytest.mark.parametrize(("variant", "shape"), CHILDREN, ids=named)
def test_read_by_libvhdi(tmp, variant, shape):
    source = sources.make(tmp, variant.name, shape)
    file = opened(source.file)
    parent = opened(source.root / BASE)  # must live as long as the child
    file.set_parent(parent)
    assert file.get_media_size() == source.size
    got = b"".join(
        file.read_buffer_at_offset(min(MIB, source.size - at), at) for at in range(0, source.size, MIB)
    )
    assert_same_bytes(got, source.expected.read_bytes())


# ---- references ----


def family(store, name, **kwargs):
    write_vhdx(store / name, MIB, {0: shapes.content(1, 0, MIB)}, data_guid=BELOW_GUID, **kwargs)


def child(store, parent, name=CHILD, **kwargs):
    (store / name).parent.mkdir(exist_ok=True)
    write_vhdx(store / name, MIB, {}, parent=linked_to(parent), **kwargs)


BYTES = shapes.content(1, 0, MIB)


@pytest.mark.parametrize("path", ("disk.vhdx", ".\\disk.vhdx", "./disk.vhdx", ".\\.\\disk.vhdx"))
def test_family(viewcat, store, path):
    family(store, BASE)
    child(store, path)
    served(viewcat, store, CHILD, BYTES)
    refused(viewcat, store, CHILD, "EPERM", options=("-r", "none"))


def test_names_of_checkpoints(viewcat, store):
    """Hyper-V puts a GUID between the name and .avhdx, so its parent is not of the child's family."""
    name = "web_2A8C5A1B-4E0C-4D6E-9A5B-0F0C7A5D1234.avhdx"
    family(store, "web.vhdx")
    child(store, "web.vhdx", name)
    assert "references=datastore" in refused(viewcat, store, name, "EPERM")
    served(viewcat, store, name, BYTES, options=("-r", "datastore"))
    (store / "Checkpoints").mkdir()
    child(store, "..\\web.vhdx", f"Checkpoints/{name}")
    refused(viewcat, store, f"Checkpoints/{name}", "EPERM", options=("-r", "datastore"))


@pytest.mark.parametrize(
    "path",
    ("..\\outside.vhdx", "\\etc\\passwd", "..", "sub\\..\\..\\outside.vhdx", "C:\\outside.vhdx",
     "\\\\?\\C:\\outside.vhdx", "\\\\server\\share\\outside.vhdx"),
)  # fmt: skip
def test_names_that_lead_out(viewcat, tmp, store, path):
    (tmp / "outside.vhdx").write_bytes(SECRET)
    (store / "sub").mkdir()
    child(store, path)
    refused(viewcat, store, CHILD, "EPERM")
    refused(viewcat, store, CHILD, "EPERM", "ENOENT", options=("-r", "datastore"))


def test_only_its_content_makes_it_one(viewcat, store):
    """A guest that writes a child into its disk reads no other file."""
    family(store, BASE)
    child(store, BASE, "disk.img")
    assert "content" in refused(viewcat, store, "disk.img", "EPERM", options=("-r", "datastore"))
    served(viewcat, store, "disk.img", BYTES, options=("-F", "*.img:vhdx"))


def test_loops(viewcat, store):
    child(store, "disk-b.vhdx", "disk-a.vhdx", data_guid=BELOW_GUID)
    child(store, "disk-a.vhdx", "disk-b.vhdx", data_guid=BELOW_GUID)
    refused(viewcat, store, "disk-a.vhdx", "EPERM", "ELOOP", options=("-r", "datastore"))
    child(store, CHILD)
    refused(viewcat, store, CHILD, "ELOOP")


def test_a_parent_of_another_kind(viewcat, store):
    shapes.write_raw(store / BASE, MIB, ())
    child(store, BASE)
    refused(viewcat, store, CHILD, "EINVAL")
    (store / BASE).unlink()
    assert BASE in refused(viewcat, store, CHILD, "ENOENT")


def test_a_parent_that_has_changed(viewcat, store):
    family(store, BASE)
    block = Partial(BYTES, frozenset(range(7)))
    write_vhdx(store / CHILD, MIB, {0: block}, parent=linked_to(BASE, b"another state..."))
    assert "modified since" in refused(viewcat, store, CHILD, "EINVAL")
