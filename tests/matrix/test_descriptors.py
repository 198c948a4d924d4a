# SPDX-License-Identifier: Apache-2.0
"""The descriptors of all flavours of VMDK views, with all options, against strict readers; and those
readers against descriptors that they must refuse."""

import itertools
import re

import descriptor_rules
import pytest
import shapes
from descriptor_rules import GEOMETRY, Refused
from layout import disk_size
from shapes import GIB, MIB, SECTOR
from stores import raw
from tools import flat_extent_of, qemu_img
from vmdk_writer import write_stream

FLAVOURS = ("vmdk", "vmdk-stream", "vmdk-flat")
CREATE_TYPES = {"vmdk": "monolithicSparse", "vmdk-stream": "streamOptimized"}
SIZES = (1, SECTOR, 10 * MIB + 1000, 8 * GIB, 200 * GIB)

# Words of -o, the first of each is the default
OPTIONS = {
    "adapter": ("lsilogic", "buslogic", "ide"),
    "hw_version": ("4", "21"),
    "tools_version": ("2147483647", "0"),
    "sector_size": ("512", "4096"),
    "flat_type": ("vmfs", "monolithicFlat"),
}
COMBINATIONS = [dict(zip(OPTIONS, words)) for words in itertools.product(*OPTIONS.values())]
COMBINATIONS = [o for o in COMBINATIONS if (o["hw_version"] == "4") == (o["tools_version"] != "0")]


def described(viewcat, store, path, flavour, options=(), name=None):
    """(the text, the start of the file)"""
    words = [word for key, value in dict(options).items() for word in ("-V", f"{key}={value}")]
    words += ["-n", name] if name else []
    start = viewcat.run(
        store, path, "read", flavour, 0, 64 * 1024, options=words, text=False
    ).stdout
    return start if flavour == "vmdk-flat" else start[SECTOR : 21 * SECTOR], start


def geometry(adapter, size):
    sectors = disk_size(size) // SECTOR
    heads, most = (16, 16383) if adapter == "ide" else (255, 65535)
    return [str(min(max(sectors // (heads * 63), 1), most)), str(heads), "63"]


def expected_extent(flavour, options, size):
    sectors = disk_size(size) // SECTOR
    if flavour != "vmdk-flat":
        return "RW", sectors, "SPARSE", "disk.vmdk", 0
    kind = {"vmfs": "VMFS", "monolithicFlat": "FLAT"}[options["flat_type"]]
    return "RW", sectors, kind, "web-flat.vmdk", 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_strict_readers_take_it(viewcat, store, flavour, size):
    with open(store / "disk.raw", "wb") as file:
        file.truncate(size)
    for options in COMBINATIONS:
        text, start = described(viewcat, store, "disk.raw", flavour, options, "web.vmdk")
        descriptor_rules.openstack_text(text)
        create_type, extents, database = descriptor_rules.virtualbox_text(text, flavour != "vmdk-flat")
        assert create_type == CREATE_TYPES.get(flavour, options["flat_type"])
        assert extents == [expected_extent(flavour, options, size)]
        if flavour != "vmdk-flat":
            assert descriptor_rules.openstack_image(start) == disk_size(size)
            assert descriptor_rules.virtualbox_image(start) == (create_type, extents, database)
        judge_database(database, options, size)
        judge_order(text)


def judge_database(database, options, size):
    assert [database[key] for key in GEOMETRY] == geometry(options["adapter"], size)
    assert database["ddb.adapterType"] == options["adapter"]
    assert database["ddb.virtualHWVersion"] == options["hw_version"]
    assert database["ddb.toolsVersion"] == options["tools_version"]
    for key in ("ddb.logicalSectorSize", "ddb.physicalSectorSize"):
        assert database.get(key, "512") == options["sector_size"]
        assert (key in database) == (options["sector_size"] == "4096")


def judge_order(text):
    """What QEMU finds first, wherever it is, must be what it looks for."""
    text = text.rstrip(b"\0").decode("ascii")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = [line.partition("=")[0] for line in lines[:6]]
    assert keys == ["version", "encoding", "CID", "parentCID", "isNativeSnapshot", "createType"]
    assert lines[0] == "version=1"
    cid, long_id = re.search("CID=([0-9a-f]{8})\n", text), re.search('longContentID = "([0-9a-f]{32})"', text)
    assert text.index("CID=") == cid.start() and long_id[1].endswith(cid[1])
    assert cid[1] not in ("00000000", "fffffffe", "ffffffff")
    assert "parentCID=ffffffff\n" in text and "parentFileNameHint" not in text
    assert text.endswith("\n") and "\r" not in text and "\t" not in text


NAMES = ("plain", "with space", "a=b", "quo\"te", "caf\u00e9", "new\nline", "parentFileNameHint=x", "RW 1 FLAT",
         "back\\slash", "ddb.x", "x" * 240)  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[1:17])
def test_any_name(viewcat, store, name):
    """Whatever an image is called, readers see one extent, and open no other file than that."""
    with open(store / f"{name}.raw", "wb") as file:
        file.truncate(MIB)
    plain = name.isprintable() and name.isascii() and not set('"/') & set(name) and "NameHint" not in name
    for flavour in ("vmdk", "vmdk-stream"):
        text, start = described(viewcat, store, f"{name}.raw", flavour)
        assert descriptor_rules.openstack_image(start) == MIB
        _, extents, _ = descriptor_rules.virtualbox_image(start)
        assert [e[3] for e in extents] == [f"{name}.vmdk" if plain else "disk.vmdk"]
        judge_order(text)
    info = viewcat.info_of(store, f"{name}.raw")
    if not plain or len(name) > 240:
        assert {"vmdk-flat"} <= set(info.absent) and "vmdk-flat" not in info.views
        return
    text, _ = described(viewcat, store, f"{name}.raw", "vmdk-flat")
    descriptor_rules.openstack_text(text)
    _, extents, _ = descriptor_rules.virtualbox_text(text, False)
    assert [e[3] for e in extents] == [f"{name}.flat-flat.vmdk"] == [flat_extent_of(text)]


@pytest.mark.parametrize("kind", OPTIONS["flat_type"])
@pytest.mark.parametrize("name", ("web.vmdk", "web.flat.vmdk", "we b.vmdk"))
def test_the_pair_is_found(viewcat, store, tmp, name, kind):
    """By QEMU, in the directory that both are in, by the name that is shown."""
    raw(store / "disk.raw")
    options = ("-n", name, "-V", f"flat_type={kind}")
    viewcat.run(store, "disk.raw", "copy", "vmdk-flat", tmp / name, options=options)
    extent = name.removesuffix(".vmdk") + "-flat.vmdk"
    viewcat.run(store, "disk.raw", "copy", "vmdk-flat-extent", tmp / extent, options=("-n", extent))
    qemu_img("compare", "-f", "vmdk", "-F", "raw", tmp / name, store / "disk.raw")
    assert sorted(p.name for p in tmp.iterdir() if p.is_file()) == sorted((name, extent))


# ---- the readers must refuse something ----

GOOD = """# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=12345678
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 2048 SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "1"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "4"
"""

# name: (from, to, who must refuse it)
BAD = {
    "not-ascii": ("disk.vmdk", "disk\u00e9.vmdk", "openstack"),
    "slash": ("disk.vmdk", "/etc/shadow", "openstack"),
    "relative-slash": ("disk.vmdk", "../disk.vmdk", "openstack"),
    "no-extent": ('RW 2048 SPARSE "disk.vmdk"\n', "", "openstack virtualbox"),
    "unknown-line": ("version=1", "version=1\nhello world", "openstack"),
    "spaced-key": ("CID=1", "C ID=1", "openstack"),
    "unknown-access": ("RW 2048", "RO 2048", "openstack virtualbox"),
    "first-line": ("# Disk Desc", "# A Disk Desc", "virtualbox"),
    "no-first-line": ("# Disk DescriptorFile\n", "", "virtualbox"),
    "version-2": ("version=1", "version=2", "virtualbox"),
    "version-quoted": ("version=1", 'version="1"', "virtualbox"),
    "no-version": ("version=1\n", "", "virtualbox"),
    "no-create-type": ('createType="monolithicSparse"\n', "", "virtualbox"),
    "key-after-extents": ("#DDB", "changeTrackPath=x", "virtualbox"),
    "key-at-the-end": ('HWVersion = "4"\n', 'HWVersion = "4"\nencoding="x"\n', "virtualbox"),
    "database-first": ("version=1", 'ddb.x = "1"\nversion=1', "virtualbox"),
    "database-before-extents": ("# Extent", 'ddb.x = "1"\n# Extent', "virtualbox"),
    "extent-first": ("version=1", 'RW 1 SPARSE "x"\nversion=1', "virtualbox"),
    "extent-last": ('HWVersion = "4"\n', 'HWVersion = "4"\nRW 1 SPARSE "x"\n', "virtualbox"),
    "two-extents": ("# The Disk", 'RW 1 SPARSE "x"\n# The Disk', "virtualbox"),
    "two-spaces": ("RW 2048", "RW  2048", "virtualbox"),
    "tab": ("RW 2048", "RW\t2048", "openstack virtualbox"),
    "no-size": ("RW 2048 ", "RW ", "virtualbox"),
    "unknown-type": ("SPARSE", "SESPARSE", "virtualbox"),
    "name-without-end": ('"disk.vmdk"', '"disk.vmdk', "virtualbox"),
    "quote-in-name": ("disk.vmdk", 'di"sk.vmdk', "virtualbox"),
    "offset-that-is-none": ('"disk.vmdk"', '"disk.vmdk" x', "virtualbox"),
    "end-of-line": ("version=1\n", "version=1\r\r\n", "virtualbox"),
    "value-without-end": ('"255"', '"255', "virtualbox"),
    "geometry-that-is-none": ('"255"', '"many"', "virtualbox"),
    "too-many-lines": ("#DDB", "#DDB\n" + "#\n" * 1100, "virtualbox"),
}

READERS = {
    "openstack": descriptor_rules.openstack_text,
    "virtualbox": lambda text: descriptor_rules.virtualbox_text(text, True),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_good_one_is_taken(reader):
    READERS[reader](GOOD.encode())
    READERS[reader](GOOD.encode().ljust(20 * SECTOR, b"\0"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_one_is_refused(name):
    old, new, who = BAD[name]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new).encode()
    for reader, read in READERS.items():
        if reader in who:
            with pytest.raises(Refused):
                read(text)
        else:
            read(text)


def test_headers_that_are_refused(store):
    path = store / "disk.vmdk"
    text = GOOD.replace("monolithicSparse", "streamOptimized").encode()
    write_stream(path, 2048, {0: shapes.content(1, 0, 65536)}, text, footer=False)
    good = path.read_bytes()
    assert descriptor_rules.openstack_image(good) == MIB
    descriptor_rules.virtualbox_image(good)
    write_stream(path, 2048, {0: shapes.content(1, 0, 65536)}, text, footer=True)
    with pytest.raises(Refused, match="footer"):
        descriptor_rules.openstack_image(path.read_bytes())
    descriptor_rules.virtualbox_image(path.read_bytes())
    lies = {4: (b"\4\0\0\0", "openstack virtualbox"), 28: (b"\2", "openstack virtualbox"), 73: (b"\r", "virtualbox")}
    for offset, (value, who) in lies.items():
        bad = good[:offset] + value + good[offset + len(value) :]
        for reader, read in (("openstack", descriptor_rules.openstack_image), ("virtualbox", descriptor_rules.virtualbox_image)):
            if reader in who:
                with pytest.raises(Refused):
                    read(bad)
            else:
                read(bad)
    with pytest.raises(Refused, match="createType"):
        descriptor_rules.openstack_image(good.replace(b"streamOptimized", b"twoGbMaxExtents"))
