# SPDX-License-Identifier: Apache-2.0
"""Which names a directory shows, and which it answers to."""

import os
import shutil

import pytest

import images
from tools import KIB, MIB, VIEWS, compare, pattern, refusal, run, same


@pytest.fixture
def qcow2(tmp_path):
    """A small qcow2 image to be put anywhere: qcow2(PATH, seed) gives it a content of its own."""

    def make(path, seed=1):
        raw = tmp_path / "content"
        raw.write_bytes(pattern(seed, 128 * KIB))
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "image")
        shutil.move(tmp_path / "image", path)

    return make


def views_of(*stems):
    return sorted(f"{stem}.{view}" for stem in stems for view in VIEWS)


def exists(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def test_every_view_of_a_file(datastore, mount, qcow2):
    qcow2(datastore / "web.qcow2")
    (datastore / "disk.raw").write_bytes(pattern(1, 4096))
    (datastore / "old.img").write_bytes(pattern(1, 4096))
    (datastore / "db.v1.dd").write_bytes(pattern(1, 4096))
    (datastore / "nosuffix").write_bytes(pattern(1, 4096))
    views = mount(datastore)
    assert views.names() == views_of("web", "disk", "old", "db.v1", "nosuffix")


def test_equal_stems_keep_their_whole_names(datastore, mount, qcow2, disk):
    qcow2(datastore / "a.qcow2", seed=3)
    disk.convert(datastore / "a.vmdk", "-O", "vmdk")
    qcow2(datastore / "b.qcow2")
    views = mount(datastore)
    assert views.names() == sorted(
        ["a.qcow2", "a.qcow2.raw", "a.qcow2.vmdk", "a.vmdk", "a.vmdk.qcow2", "a.vmdk.raw"]
        + views_of("b")
    )
    assert (views / "a.qcow2.raw").read_bytes() == pattern(3, 128 * KIB)
    assert (views / "a.vmdk.raw").read_bytes() == disk.bytes
    assert same(views / "a.qcow2", datastore / "a.qcow2")
    assert same(views / "a.vmdk", datastore / "a.vmdk")
    assert not exists(views / "a.raw")


def test_three_files_of_one_stem(datastore, mount, qcow2, disk):
    qcow2(datastore / "a.qcow2")
    disk.convert(datastore / "a.vmdk", "-O", "vmdk")
    (datastore / "a.raw").write_bytes(pattern(4, 4096))
    (datastore / "a.img").write_bytes(pattern(5, 4096))
    views = mount(datastore)
    expected = {"a.img.qcow2", "a.img.raw", "a.img.vmdk"}
    for own in VIEWS:
        expected |= {f"a.{own}"} | {f"a.{own}.{other}" for other in VIEWS if other != own}
    assert set(views.names()) == expected
    assert (views / "a.raw").read_bytes() == pattern(4, 4096)
    assert (views / "a.img.raw").read_bytes() == pattern(5, 4096)


def test_the_whole_name_always_answers(datastore, mount, qcow2):
    """A script that appends the suffix to the file's name need not know what else is there."""
    qcow2(datastore / "web.qcow2", seed=6)
    (datastore / "disk.img").write_bytes(pattern(7, 4096))
    views = mount(datastore)
    assert (views / "web.qcow2.raw").read_bytes() == pattern(6, 128 * KIB)
    assert same(views / "web.qcow2.raw", views / "web.raw")
    assert same(views / "web.qcow2.vmdk", views / "web.vmdk")
    assert (views / "disk.img.raw").read_bytes() == pattern(7, 4096)
    assert same(views / "disk.img.qcow2", views / "disk.qcow2")
    assert views.names() == views_of("web", "disk")
    for name in ("web.qcow2.img", "web", "web.img", "disk.img", "web.raw.raw"):
        assert not exists(views / name), name


def test_a_name_is_shown_once(datastore, mount, qcow2):
    """disk and disk.qcow2 would both be called disk.qcow2; the file of that name has it."""
    qcow2(datastore / "disk.qcow2", seed=8)
    (datastore / "disk").write_bytes(pattern(9, 4096))
    views = mount(datastore)
    names = os.listdir(views.point)
    assert len(names) == len(set(names))
    assert same(views / "disk.qcow2", datastore / "disk.qcow2")
    assert (views / "disk.qcow2.raw").read_bytes() == pattern(8, 128 * KIB)
    assert (views / "disk.raw").read_bytes() == pattern(9, 4096)


def test_a_listed_name_is_stronger_than_a_whole_name(datastore, mount, qcow2):
    """a.qcow2.vmdk is a file here, and would be the whole name of a view of a.qcow2."""
    qcow2(datastore / "a.qcow2", seed=10)
    raw = datastore.with_name("raw")
    raw.write_bytes(pattern(11, 128 * KIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, datastore / "a.qcow2.vmdk")
    views = mount(datastore)
    assert same(views / "a.qcow2.vmdk", datastore / "a.qcow2.vmdk")
    assert (views / "a.raw").read_bytes() == pattern(10, 128 * KIB)
    names = os.listdir(views.point)
    assert len(names) == len(set(names))


def test_a_directory_keeps_its_name(datastore, mount, qcow2):
    qcow2(datastore / "x.qcow2", seed=12)
    (datastore / "x.raw").mkdir()
    (datastore / "x.raw" / "inner.raw").write_bytes(pattern(1, 4096))
    views = mount(datastore)
    assert os.path.isdir(views / "x.raw")
    assert views.names("x.raw") == views_of("inner")
    names = os.listdir(views.point)
    assert sorted(names) == ["x.qcow2", "x.qcow2.raw", "x.qcow2.vmdk", "x.raw"]
    assert (views / "x.qcow2.raw").read_bytes() == pattern(12, 128 * KIB)


def test_any_case_of_the_suffix(datastore, mount, qcow2, disk):
    qcow2(datastore / "UP.QCOW2")
    disk.convert(datastore / "Mixed.Vmdk", "-O", "vmdk")
    (datastore / "raw.RAW").write_bytes(pattern(1, 4096))
    views = mount(datastore)
    assert views.names() == sorted(views_of("UP", "Mixed", "raw"))
    assert same(views / "UP.qcow2", datastore / "UP.QCOW2")
    assert same(views / "UP.QCOW2.raw", views / "UP.raw")


ODD_NAMES = [
    b"new\nline",
    b"\xff\xfe not utf-8 \x80",
    b"tab\tand space ",
    b"-rf",
    b"*?[x]",
    b"quote'\"\\",
    b"\xe2\x80\xae rtl",
    b"...dots",
    b"bell\x07\x1b[31m",
    b"100%s%n",
    b"a..b",
    b"#comment",
]


def test_odd_names(datastore, mount, qcow2):
    root = os.fsencode(datastore)
    shown = [name for name in ODD_NAMES if not name.startswith(b".")]
    for seed, name in enumerate(ODD_NAMES):
        qcow2(os.path.join(root, name + b".qcow2"), seed)
    views = mount(datastore)
    point = os.fsencode(views.point)
    expected = sorted(n + b"." + v.encode() for n in shown for v in VIEWS)
    assert sorted(os.listdir(point)) == expected
    for seed, name in enumerate(ODD_NAMES):
        if name in shown:
            with open(os.path.join(point, name + b".raw"), "rb") as file:
                assert file.read() == pattern(seed, 128 * KIB)


def test_long_names(datastore, mount):
    """A view whose name would have more than 255 bytes cannot be; the others are there."""
    content = pattern(1, 4096)
    (datastore / ("a" * 251)).write_bytes(content)  # 251 + ".raw" = 255
    (datastore / ("b" * 249 + ".img")).write_bytes(content)  # 249 + ".qcow2" = 255
    (datastore / ("c" * 251 + ".img")).write_bytes(content)
    (datastore / ("d" * 255)).write_bytes(content)
    views = mount(datastore)
    assert views.names() == sorted(
        ["a" * 251 + ".raw", "c" * 251 + ".raw"] + views_of("b" * 249)
    )
    for name in views.names():
        assert os.stat(views / name).st_size > 0
    assert (views / ("b" * 249 + ".raw")).read_bytes() == content
    assert not exists(views / ("d" * 251 + ".raw"))
    assert refusal(os.stat, views / ("e" * 256)) in ("ENAMETOOLONG", "ENOENT")


def test_long_names_that_collide(datastore, mount, qcow2):
    """Their whole-name forms do not all fit; what fits is shown, and nothing is shown twice."""
    stem = "a" * 249
    qcow2(datastore / f"{stem}.qcow2", seed=20)
    (datastore / f"{stem}.img").write_bytes(pattern(21, 4096))
    views = mount(datastore)
    names = os.listdir(views.point)
    assert len(names) == len(set(names))
    assert same(views / f"{stem}.qcow2", datastore / f"{stem}.qcow2")


def test_dotfiles_are_not_shown(datastore, mount, qcow2):
    qcow2(datastore / ".hidden.qcow2")
    (datastore / ".snapshots").mkdir()
    qcow2(datastore / ".snapshots" / "a.qcow2")
    (datastore / ".raw").write_bytes(pattern(1, 4096))
    qcow2(datastore / "seen.qcow2")
    views = mount(datastore)
    assert views.names() == views_of("seen")
    for name in (".hidden.raw", ".hidden.qcow2.raw", ".snapshots", ".snapshots/a.raw", "..raw"):
        assert not exists(views / name), name


@pytest.mark.parametrize(
    ("subformat", "extents"),
    [
        ("monolithicFlat", ["disk-flat.vmdk"]),
        ("twoGbMaxExtentSparse", ["disk-s001.vmdk", "disk-s002.vmdk"]),
        ("twoGbMaxExtentFlat", ["disk-f001.vmdk", "disk-f002.vmdk"]),
    ],
)
def test_extents_are_not_images(datastore, mount, tmp_path, subformat, extents):
    raw = tmp_path / "raw"
    images.sparse_file(raw, 2 * 1024 * MIB + 4 * MIB, (0, b"begin"), (2 * 1024 * MIB, b"second"))
    run(
        *("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"),
        *(raw, datastore / "disk.vmdk"),
    )
    assert sorted(p.name for p in datastore.iterdir()) == sorted(["disk.vmdk", *extents])
    views = mount(datastore)
    assert views.names() == views_of("disk")
    with open(views / "disk.raw", "rb") as file:
        assert file.read(5) == b"begin"
        file.seek(2 * 1024 * MIB)
        assert file.read(6) == b"second"
    assert os.stat(views / "disk.raw").st_size == raw.stat().st_size


def test_an_esx_delta_and_its_parent(datastore, mount):
    """x-000001.vmdk is a descriptor of its own; its extent x-000001-delta.vmdk is not an image."""
    images.sparse_file(datastore / "x-flat.vmdk", MIB, (0, b"parent"))
    descriptor = (
        "# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent}\n"
        'createType="{kind}"\n{hint}RW 2048 {extent}\n'
    )
    (datastore / "x.vmdk").write_text(
        descriptor.format(
            cid="12345678", parent="ffffffff", kind="vmfs", hint="", extent='VMFS "x-flat.vmdk"'
        )
    )
    header = bytearray(2048)
    header[0:4] = b"COWD"
    for offset, value in ((4, 1), (8, 3), (12, 2048), (16, 1), (20, 4), (24, 1), (28, 5)):
        header[offset : offset + 4] = value.to_bytes(4, "little")
    (datastore / "x-000001-delta.vmdk").write_bytes(bytes(header) + bytes(512))
    (datastore / "x-000001.vmdk").write_text(
        descriptor.format(
            cid="9abcdef0",
            parent="12345678",
            kind="vmfsSparse",
            hint='parentFileNameHint="x.vmdk"\n',
            extent='VMFSSPARSE "x-000001-delta.vmdk"',
        )
    )
    views = mount(datastore)
    assert views.names() == views_of("x", "x-000001")
    assert (views / "x-000001.raw").read_bytes()[:6] == b"parent"


def test_subdirectories_are_mirrored(datastore, mount, qcow2):
    deep = datastore / "site" / "a b" / "2024" / "vm-1" / "disks"
    deep.mkdir(parents=True)
    (datastore / "empty").mkdir()
    qcow2(deep / "root.qcow2", seed=13)
    qcow2(datastore / "site" / "base.qcow2")
    views = mount(datastore)
    assert views.names() == ["empty", "site"]
    assert views.names("empty") == []
    assert views.names("site") == sorted(["a b"] + views_of("base"))
    assert views.names("site/a b/2024/vm-1/disks") == views_of("root")
    path = views / "site/a b/2024/vm-1/disks/root.raw"
    assert path.read_bytes() == pattern(13, 128 * KIB)
    listed = run("find", views.point, "-type", "f", "-name", "root.*").out.split("\n")
    assert len(listed) - 1 == 3
    assert os.path.realpath(views / "site/../site/./base.raw") == str(views / "site/base.raw")


def test_a_very_deep_tree(datastore, mount, qcow2):
    deep = "/".join(["d" * 60] * 40)  # longer than any one path that a kernel takes in a cache
    (datastore / deep).mkdir(parents=True)
    qcow2(datastore / deep / "x.qcow2")
    views = mount(datastore)
    assert views.names(deep) == views_of("x")
    assert os.stat(views / deep / "x.raw").st_size == 128 * KIB


def test_files_that_are_no_images(datastore, mount, qcow2):
    (datastore / "README").write_text("text\n" * 200)
    (datastore / "notes.txt").write_text("text\n" * 200)
    (datastore / "list.md5").write_text("x" * 1024)
    (datastore / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + pattern(1, 4096))
    (datastore / "vm.vmx").write_text('config.version = "8"\n')
    (datastore / "vm.nvram").write_bytes(pattern(1, 8192))
    (datastore / "empty").write_bytes(b"")
    os.mkfifo(datastore / "fifo.raw")
    os.mknod(datastore / "device.raw", 0o20600, os.makedev(1, 5))
    os.symlink("/etc/passwd", datastore / "link.raw")
    qcow2(datastore / "seen.qcow2")
    views = mount(datastore)
    assert views.names() == views_of("seen")
    for name in ("README.raw", "fifo.raw", "device.raw", "link.raw", "notes.txt.raw", "empty.raw"):
        assert not exists(views / name), name


def test_text_in_a_file_that_says_it_is_a_disk(datastore, mount):
    """.raw is raw whatever it holds, and so is an empty one, which no VMDK can be."""
    (datastore / "text.raw").write_text("just text\n")
    (datastore / "empty.raw").write_bytes(b"")
    views = mount(datastore)
    assert views.names() == sorted(["empty.qcow2", "empty.raw"] + views_of("text"))
    assert (views / "text.raw").read_text() == "just text\n"
    assert os.stat(views / "empty.raw").st_size == 0


def test_symlinks_where_they_are_allowed(datastore, mount, qcow2):
    (datastore / "pool").mkdir()
    qcow2(datastore / "pool" / "real.qcow2", seed=14)
    os.symlink("pool/real.qcow2", datastore / "alias.qcow2")
    os.symlink("/etc/passwd", datastore / "out.raw")
    os.symlink("../../..", datastore / "up")
    plain = mount(datastore)
    assert plain.names() == ["pool"]
    followed = mount(datastore, "follow_symlinks")
    assert followed.names() == sorted(["pool"] + views_of("alias"))
    assert (followed / "alias.raw").read_bytes() == pattern(14, 128 * KIB)
    assert not exists(followed / "out.raw")


# ---- formats by rule ----


def test_raw_is_raw_whatever_a_guest_wrote(datastore, mount, qcow2):
    """A guest can write a qcow2 header into its disk. It stays a raw disk."""
    qcow2(datastore / "guest.raw")
    size = (datastore / "guest.raw").stat().st_size
    views = mount(datastore)
    assert same(views / "guest.raw", datastore / "guest.raw")
    compare(views / "guest.qcow2", "qcow2", datastore / "guest.raw")
    assert os.stat(views / "guest.raw").st_size == size


def test_format_options(datastore, mount, qcow2):
    qcow2(datastore / "disk.0", seed=15)
    qcow2(datastore / "forced.img", seed=16)
    (datastore / "blob.bin").write_bytes(pattern(17, 4096))
    views = mount(datastore, "format=*.bin:raw", "raw=forced*")
    assert views.names() == views_of("blob.bin", "disk.0", "forced")
    assert (views / "blob.bin.raw").read_bytes() == pattern(17, 4096)
    assert (views / "disk.0.raw").read_bytes() == pattern(15, 128 * KIB)
    assert same(views / "forced.raw", datastore / "forced.img")


def test_dot_and_dot_dot(sample):
    entries = [e.name for e in os.scandir(sample.mount.point)]
    assert "." not in entries and ".." not in entries
    out = run("ls", "-a", sample.mount.point).out.split("\n")
    assert out[:2] == [".", ".."]
