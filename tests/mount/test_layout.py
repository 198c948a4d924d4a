# SPDX-License-Identifier: Apache-2.0
"""What a mount shows of each image, and where: -o views=, layout=dir and the flavours."""

import os
import shutil
import stat

import pytest

import images
from mounting import DidNotMount
from tools import KIB, MIB, VIEWS, compare, eventually, pattern, refusal, run, same


@pytest.fixture
def web(datastore, disk):
    disk.convert(datastore / "web.qcow2", "-O", "qcow2")
    return datastore / "web.qcow2"


def exists(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def all_views(imgfs):
    """What --help says that there is."""
    line = [line for line in run(imgfs, "--help").out.splitlines() if line.startswith("    views:")]
    return line[0].split()[1:]


# ---- which views ----


def test_only_the_views_that_are_asked_for(mount, web, disk):
    views = mount(web.parent, "views=raw:vmdk")
    assert views.names() == ["web.raw", "web.vmdk"]
    assert (views / "web.raw").read_bytes() == disk.bytes
    assert not exists(views / "web.qcow2") and not exists(views / "web.qcow2.qcow2")


def test_the_order_does_not_matter(mount, web):
    views = mount(web.parent, "views=vmdk:qcow2")
    assert views.names() == ["web.qcow2", "web.vmdk"]


def test_all_views_at_once(imgfs, mount, web):
    names = all_views(imgfs)
    views = mount(web.parent, "views=" + ":".join(names))
    assert set(VIEWS) <= set(names)
    assert {f"web.{name}" for name in names} <= set(views.names())


@pytest.mark.parametrize("value", ("", ":", "raw::vmdk", "foo", "raw:raw", "RAW", "x" * 500))
def test_a_list_that_cannot_be(mount, web, value):
    with pytest.raises(DidNotMount) as failure:
        mount(web.parent, f"views={value}")
    assert failure.value.status == 1 and "imgfs: " in failure.value.log


@pytest.mark.parametrize(
    "option",
    ("vmdk=thick", "vhd=x", "layout=tree", "adapter=pvscsi", "hw_version=x", "hw_version=1000",
     "tools_version=-1", "sector_size=520", "flat_type=x"),
)  # fmt: skip
def test_a_word_that_is_none(mount, web, option):
    with pytest.raises(DidNotMount) as failure:
        mount(web.parent, option)
    assert failure.value.status == 1 and option in failure.value.log


# ---- what .vmdk and .vhd are ----


def descriptor_of(path):
    """The text of a VMDK, which is a file of its own or is in one."""
    data = path.read_bytes()
    start = data.index(b"# Disk DescriptorFile")
    return data[start : start + 10240].partition(b"\0")[0].decode()


@pytest.mark.parametrize(
    "options,create_type,line",
    (
        ([], "vmfs", ' VMFS "web-flat.vmdk"'),
        (["flat_type=vmfs"], "vmfs", ' VMFS "web-flat.vmdk"'),
        (["flat_type=monolithicFlat"], "monolithicFlat", ' FLAT "web-flat.vmdk" 0'),
    ),
)
def test_a_flat_pair(mount, web, disk, options, create_type, line):
    views = mount(web.parent, "views=raw:vmdk", "vmdk=flat", *options)
    assert views.names() == ["web-flat.vmdk", "web.raw", "web.vmdk"]
    assert f"RW {len(disk.bytes) // 512}{line}" in descriptor_of(views / "web.vmdk").splitlines()
    assert f'createType="{create_type}"' in descriptor_of(views / "web.vmdk")
    assert same(views / "web-flat.vmdk", views / "web.raw")
    compare(views / "web.vmdk", "vmdk", disk.path)


def test_a_pair_is_called_as_it_is_shown(datastore, mount, web, disk):
    """By its other name, the descriptor names the extent's other name."""
    disk.convert(datastore / "web.vdi", "-O", "vdi")
    views = mount(datastore, "views=vmdk", "vmdk=flat")
    names = ["web.qcow2-flat.vmdk", "web.qcow2.vmdk", "web.vdi-flat.vmdk", "web.vdi.vmdk"]
    assert views.names() == names
    for name in names[1::2]:
        compare(views / name, "vmdk", disk.path)
    os.unlink(datastore / "web.vdi")
    eventually(lambda: views.names() == ["web-flat.vmdk", "web.vmdk"])
    compare(views / "web.vmdk", "vmdk", disk.path)
    compare(views / "web.qcow2.vmdk", "vmdk", disk.path)


def test_a_stream(mount, web, disk):
    views = mount(web.parent, "views=vmdk", "vmdk=stream")
    assert views.names() == ["web.vmdk"]
    assert (views / "web.vmdk").read_bytes()[4:8] == b"\3\0\0\0"
    assert 'createType="streamOptimized"' in descriptor_of(views / "web.vmdk")
    compare(views / "web.vmdk", "vmdk", disk.path)


@pytest.mark.parametrize("flavour,start", (("fixed", None), ("dynamic", b"conectix")))
def test_a_vhd(mount, web, disk, flavour, start):
    views = mount(web.parent, "views=vhd", f"vhd={flavour}")
    data = (views / "web.vhd").read_bytes()
    assert data[-512:-504] == b"conectix"
    assert (data[:8] == b"conectix") == (start is not None)
    if flavour == "fixed":
        assert data[:-512] == disk.bytes
    compare(views / "web.vhd", "vpc", disk.path)


def test_several_flavours_at_once(mount, web, disk):
    views = mount(web.parent, "views=qcow2:raw:vmdk:stream.vmdk:flat.vmdk")
    assert views.names() == sorted(
        ["web.flat-flat.vmdk", "web.flat.vmdk", "web.qcow2", "web.raw", "web.stream.vmdk", "web.vmdk"]
    )
    for name, kind in (
        ("web.vmdk", "monolithicSparse"),
        ("web.stream.vmdk", "streamOptimized"),
        ("web.flat.vmdk", "vmfs"),
    ):
        assert f'createType="{kind}"' in descriptor_of(views / name)
        compare(views / name, "vmdk", disk.path)


@pytest.mark.parametrize("view", ("vmdk", "stream.vmdk", "flat.vmdk"))
def test_what_the_descriptor_says(mount, web, disk, view):
    usual = mount(web.parent, f"views={view}")
    text = descriptor_of(usual / f"web.{view}")
    for line in ('adapterType = "lsilogic"', 'geometry.heads = "255"', 'virtualHWVersion = "4"',
                 'toolsVersion = "2147483647"'):  # fmt: skip
        assert f"ddb.{line}" in text
    assert "SectorSize" not in text
    other = mount(
        web.parent, f"views={view}", "adapter=ide", "hw_version=13", "tools_version=11365",
        "sector_size=4096",
    )  # fmt: skip
    text = descriptor_of(other / f"web.{view}")
    for line in ('adapterType = "ide"', 'geometry.heads = "16"', 'virtualHWVersion = "13"',
                 'toolsVersion = "11365"', 'logicalSectorSize = "4096"'):  # fmt: skip
        assert f"ddb.{line}" in text
    compare(other / f"web.{view}", "vmdk", disk.path)
    buslogic = mount(web.parent, f"views={view}", "adapter=buslogic")
    assert 'ddb.adapterType = "buslogic"' in descriptor_of(buslogic / f"web.{view}")


# ---- a directory for each image ----


def test_a_directory_for_each_image(datastore, mount, web, disk):
    (datastore / "sub").mkdir()
    disk.save(datastore / "sub" / "old.img")
    views = mount(datastore, "layout=dir")
    assert views.names() == ["sub", "web"]
    assert views.names("web") == [f"web.{view}" for view in VIEWS]
    assert views.names("sub") == ["old"]
    assert views.names("sub/old") == [f"old.{view}" for view in VIEWS]
    assert (views / "web" / "web.raw").read_bytes() == disk.bytes
    assert (views / "sub" / "old" / "old.raw").read_bytes() == disk.bytes
    assert same(views / "web" / "web.qcow2", web)
    compare(views / "sub" / "old" / "old.vmdk", "vmdk", disk.path)
    assert not exists(views / "web.raw") and not exists(views / "web" / "old.raw")


def test_its_attributes(mount, web):
    os.chmod(web, 0o640)
    views = mount(web.parent, "layout=dir")
    st = os.stat(views / "web")
    assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o550
    assert st.st_mtime_ns == os.stat(web).st_mtime_ns and st.st_size == 0
    # what OpenNebula asks of a directory that is an image: its views and nothing else
    size = sum(os.stat(views / "web" / name).st_size for name in views.names("web"))
    assert int(run("du", "-sb", views / "web").out.split()[0]) == size
    assert refusal(os.rmdir, views / "web") == "EROFS"
    assert refusal(os.open, views / "web", os.O_WRONLY) == "EISDIR"


def test_one_stem_is_two_directories(datastore, mount, web, disk):
    disk.convert(datastore / "web.vmdk", "-O", "vmdk")
    views = mount(datastore, "layout=dir")
    assert views.names() == ["web.qcow2", "web.vmdk"]
    for name in views.names():
        assert views.names(name) == [f"web.{view}" for view in VIEWS]
    assert same(views / "web.vmdk" / "web.vmdk", datastore / "web.vmdk")
    assert same(views / "web.qcow2" / "web.qcow2", web)


def test_the_whole_name_answers_too(mount, web):
    views = mount(web.parent, "layout=dir")
    assert views.names("web.qcow2") == views.names("web")
    assert os.stat(views / "web.qcow2").st_ino == os.stat(views / "web").st_ino
    assert same(views / "web" / "web.qcow2.raw", views / "web" / "web.raw")


def test_a_directory_of_that_name_stays(datastore, mount, web, disk):
    (datastore / "web").mkdir()
    disk.save(datastore / "web" / "inner.img")
    views = mount(datastore, "layout=dir")
    assert views.names() == ["web", "web.qcow2"]
    assert views.names("web") == ["inner"]
    assert (views / "web.qcow2" / "web.raw").read_bytes() == disk.bytes


def test_what_is_no_image_has_none(datastore, mount, web):
    (datastore / "broken.qcow2").write_bytes(b"not a qcow2")
    (datastore / "notes.txt").write_bytes(b"remember the milk")
    views = mount(datastore, "layout=dir")
    assert views.names() == ["web"]
    for name in ("broken", "broken.qcow2", "notes", "notes.txt"):
        assert not exists(views / name), name
    assert views.log_lines("broken.qcow2")


def test_an_image_that_changes(mount, web, datastore, disk):
    views = mount(datastore, "layout=dir")
    assert (views / "web" / "web.raw").read_bytes() == disk.bytes
    other = datastore.with_name("other")
    images.create(other, "2M")
    images.replace(web, other)
    eventually(lambda: os.stat(views / "web" / "web.raw").st_size == 2 * MIB)
    os.unlink(web)
    eventually(lambda: not exists(views / "web"))
    assert views.names() == []
    shutil.copyfile(other, web)
    eventually(lambda: views.names() == ["web"])


def test_a_reader_inside_survives_a_change_of_its_neighbour(datastore, mount, web, disk):
    disk.save(datastore / "other.img")
    views = mount(datastore, "layout=dir")
    with open(views / "web" / "web.raw", "rb") as file:
        assert file.read(64 * KIB) == disk.bytes[: 64 * KIB]
        os.unlink(datastore / "other.img")
        assert file.read(64 * KIB) == disk.bytes[64 * KIB : 128 * KIB]


def test_many_images(datastore, mount):
    images.populate(datastore / "many", 300)
    views = mount(datastore, "layout=dir")
    names = views.names("many")
    assert len(names) == 300
    assert all(len(views.names(f"many/{name}")) == 3 for name in names[::50])
    assert run("ls", "-lR", views.point).returncode == 0


def test_a_copy_of_the_tree(datastore, mount, web, disk, tmp_path):
    """rsync and cp see directories like any other."""
    disk.save(datastore / "old.img")
    views = mount(datastore, "layout=dir", "views=raw")
    run("cp", "-r", views.point, tmp_path / "copy")
    assert (tmp_path / "copy" / "web" / "web.raw").read_bytes() == disk.bytes
    run("rsync", "-a", f"{views.point}/", tmp_path / "synced")
    assert (tmp_path / "synced" / "old" / "old.raw").read_bytes() == disk.bytes
    assert "old/old.raw" not in run("rsync", "-ain", f"{views.point}/", tmp_path / "synced").out


def test_masks(mount, web):
    views = mount(web.parent, "layout=dir", "dmask=027", "fmask=077", "uid=12", "gid=13")
    st = os.stat(views / "web")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o550, 12, 13)
    assert stat.S_IMODE(os.stat(views / "web" / "web.raw").st_mode) == 0o400


def test_numbers_stay_the_same(mount, web):
    first = mount(web.parent, "layout=dir")
    numbers = [os.stat(first / name).st_ino for name in ("web", "web/web.raw", "web/web.vmdk")]
    first.unmount()
    again = mount(web.parent, "layout=dir")
    assert [os.stat(again / n).st_ino for n in ("web", "web/web.raw", "web/web.vmdk")] == numbers
    # other words in its descriptor: another file
    again.unmount()
    other = mount(web.parent, "layout=dir", "adapter=ide")
    assert os.stat(other / "web" / "web.vmdk").st_ino != numbers[2]


def test_a_pattern_is_never_shown_twice(datastore, mount):
    (datastore / "a").write_bytes(pattern(1, 4096))
    (datastore / "a.img").write_bytes(pattern(2, 4096))
    views = mount(datastore, "layout=dir")
    assert views.names() == ["a", "a.img"]
    assert (views / "a" / "a.raw").read_bytes() == pattern(1, 4096)
    assert (views / "a.img" / "a.raw").read_bytes() == pattern(2, 4096)
