# SPDX-License-Identifier: Apache-2.0
"""Writes the inputs that fuzzing starts from: seeds.py DIRECTORY makes DIRECTORY/HARNESS/*.

The images are what the writers of the matrix and qemu-img make, as small as the formats let
them be: an input of a few KiB is run a hundred times as often as one of a megabyte.
"""

import gzip
import lzma
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "matrix"))

import compressed_writer as c  # noqa: E402
import ova_writer as o  # noqa: E402
import parallels_writer as p  # noqa: E402
import qcow2_writer as q  # noqa: E402
import qcow_writer as q1  # noqa: E402
import qed_writer as qed  # noqa: E402
import vdi_writer as vdi  # noqa: E402
import vhd_writer as vhd  # noqa: E402
import vhdx_writer as vhdx  # noqa: E402
import vmdk_writer as v  # noqa: E402

LARGEST = 65536


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def poked(data, offset, fmt, *values):
    data = bytearray(data)
    struct.pack_into(fmt, data, offset, *values)
    return bytes(data)


class Seeds:
    def __init__(self, root):
        self.root = Path(root)
        self.scratch = Path(tempfile.mkdtemp(prefix="imgfs-seeds-"))

    def path(self, name):
        return self.scratch / name

    def add(self, harness, name, data):
        if len(data) > LARGEST:
            raise AssertionError(f"{harness}/{name} has {len(data)} bytes")
        directory = self.root / harness
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)

    def made(self, make, *args, **kwargs):
        """What a writer writes to the path that it is given."""
        path = self.path("made")
        make(path, *args, **kwargs)
        data = path.read_bytes()
        path.unlink()
        return data

    def qemu(self, name, *commands):
        for command in commands:
            subprocess.run(command, cwd=self.scratch, check=True, capture_output=True)
        return self.path(name).read_bytes()

    def done(self):
        for path in self.scratch.iterdir():
            path.unlink()
        self.scratch.rmdir()


# ---- qcow2 ----


def qcow2_mixed(version=3, compression=q.ZLIB, bits=9, size=40000, padded=True, edit=None):
    """Clusters of every kind that the version has, over two L2 tables."""
    image = q.Qcow2Writer(size, bits, version, compression)
    cluster = 1 << bits
    last = -(-size // cluster) - 1
    for number in (0, 1, 2, 5, 64):
        if number < last:
            image.plain(number, noise(cluster, number))
    for number in (8, 9, 66):
        data = (b"imgfs" * cluster)[:cluster]
        packed = q.zstd_frame(data) if compression else q.deflate(data, 12)
        image.compressed(number, packed)
    if version == 3:
        image.zero(4)
        image.zero(6, preallocated=True)
    if not padded:
        image.plain(last, noise(size - last * cluster))
    if edit:
        edit(image)
    return lambda path: image.write(path, padded)


def extended_header(size):
    return struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 14, size, 0, 1, 16384, 0, 1, 0, 0,
        q.EXTENDED_L2, 0, 0, 4, 104,
    ).ljust(16384, b"\0")  # fmt: skip


def extended_l2():
    """Clusters of 16 KiB, where the L2 table and one cluster fit into 64 KiB."""
    cluster = 16384
    l1 = struct.pack(">Q", q.COPIED | 2 * cluster)
    entries = [
        (q.COPIED | 3 * cluster, 0x0000FFFF),
        (0, 0xFFFFFFFF << 32),
        (q.COPIED | 3 * cluster, 0xFFFF0000 << 32 | 0x00FF00FF),
        (q.COMPRESSED | 3 * cluster, 0),
        (q.COPIED | 3 * cluster, 0xFFFFFFFF),
    ]
    l2 = b"".join(struct.pack(">QQ", *e) for e in entries)
    packed = q.deflate(b"imgfs" * 4096, 12)
    body = packed + noise(2000)
    return extended_header(5 * cluster) + l1.ljust(cluster, b"\0") + l2.ljust(cluster, b"\0") + body


def folded_extended_l2():
    """One cluster is the L1 table, the L2 table that it names, and the data."""
    entries = [
        (q.COPIED | 16384, 0x0000FFFF),
        (q.COPIED | 16384, 0xFFFF0000 << 32 | 0x000000FF),
        (q.COPIED | 16384, 0xFF << 32 | 0xFF),
        (q.COPIED | 16384 | q.ZERO, 1),
        (q.COPIED | 16384 + 512, 1),
        (q.COPIED, 1),
        (q.COMPRESSED | 16384, 1),
        (q.COPIED | 1 << 40, 0xFFFFFFFF),
    ]
    return extended_header(9 * 16384) + b"".join(struct.pack(">QQ", *e) for e in entries).ljust(16384, b"\0")


def with_backing(image):
    image.backing = b"disk-base.raw"
    image.extensions.append((q.BACKING_FORMAT, b"raw"))


def with_data_file(image):
    image.incompatible |= q.EXTERNAL_DATA
    image.extensions.append((q.DATA_FILE, b"disk.raw"))
    for number in (0, 1, 2, 5, 30):
        image.entries[number] = number * 512 | q.COPIED
    for number in (8, 9, 66):
        del image.entries[number]


def with_long_format(image):
    image.backing = b"disk-base.raw"
    image.extensions.append((q.BACKING_FORMAT, b"a-format-of-20-bytes"))


def with_extensions(image):
    image.extensions += [(0x6803F857, bytes(48)), (0x23852875, bytes(24)), (0x12345678, b"abc")]


def packed_at_end():
    """The sectors of the last compressed cluster reach beyond the end of the file."""
    image = q.Qcow2Writer(40000, 9)
    image.plain(0, noise(512))
    image.compressed(70, q.deflate((b"imgfs" * 103)[:512], 12))
    return lambda path: image.write(path, False)


def snapshot_entry(l1, entries, name, size=None, number=b""):
    extra = b"" if size is None else struct.pack(">QQ", 0, size)
    head = struct.pack(">QIHHIIQII", l1, entries, len(number), len(name), 0, 0, 0, 0, len(extra))
    entry = head + extra + number + name
    return entry + bytes(-len(entry) % 8)


def with_snapshots(data, *entries):
    """The same image with these snapshots, whose table ends the file."""
    data += bytes(-len(data) % 512)
    return poked(data, 60, ">IQ", len(entries), len(data)) + b"".join(entries)


def snapshot_images(s):
    """Their L1 tables are the one of the disk, one of their own, and none."""
    data = s.made(q.Qcow2Writer(40000, 9).write)
    l1, entries = struct.unpack_from(">Q", data, 40)[0], struct.unpack_from(">I", data, 36)[0]
    mixed = s.made(qcow2_mixed())
    own = len(mixed)
    l2 = struct.unpack_from(">Q", mixed, l1)[0]
    mixed += struct.pack(">QQ", 0, l2 & ~q.COPIED).ljust(512, b"\0")
    entry = snapshot_entry
    return {
        "snapshots": with_snapshots(
            mixed, entry(l1, entries, b"now"), entry(own, 2, b"then", 40001, b"2"), entry(own, 1, b"", 512, b"3")
        ),
        "snapshots-of-one-name": with_snapshots(
            data, entry(l1, 2, b"a", 9, b"1"), entry(l1, 2, b"a", 8, b"2"), entry(l1, 2, b"2", 7, b"2")
        ),
        "snapshots-cut": with_snapshots(data, entry(l1, 2, b"a"), entry(l1, 2, b"name", 7, b"1"))[:-6],
        "snapshots-without-names": with_snapshots(data, entry(l1, 2, b"x" * 201), entry(l1, 2, b"a/b", 1, b"\n")),
        "snapshots-far": with_snapshots(data, entry(1 << 40, 2, b"a"), entry(l1, 1 << 23, b"b"), entry(l1, 2, b"c", 1 << 63)),
        "snapshots-too-many": poked(with_snapshots(data, entry(l1, 2, b"a")), 60, ">I", 0xFFFFFFFF),
        "snapshots-extra": with_snapshots(data, poked(entry(l1, 2, b"a"), 36, ">I", 1025).ljust(1100, b"\0")),
        "snapshots-nowhere": poked(data, 60, ">IQ", 1, 1 << 62),
    }  # fmt: skip


def qcow2_seeds(s):
    images = {
        "mixed": qcow2_mixed(),
        "version2": qcow2_mixed(2),
        "zstd": qcow2_mixed(compression=q.ZSTD),
        "cut": qcow2_mixed(size=36100, padded=False),
        "clusters-1k": qcow2_mixed(bits=10, size=70000),
        "clusters-4k": qcow2_mixed(bits=12, size=40000),
        "backing": qcow2_mixed(edit=with_backing),
        "data-file": qcow2_mixed(edit=with_data_file),
        "extensions": qcow2_mixed(edit=with_extensions),
        "packed-at-end": packed_at_end(),
        "huge": q.Qcow2Writer(1 << 20, 9).write,
        "empty": q.Qcow2Writer(0, 9).write,
    }
    for name, make in images.items():
        s.add("qcow2", name, s.made(make))
    for name, data in snapshot_images(s).items():
        s.add("qcow2", name, data)
    s.add("qcow2", "extended-l2", extended_l2())
    s.add("qcow2", "extended-l2-folded", folded_extended_l2())
    s.add("qcow2", "extended-l2-cut", extended_l2()[: 3 * 16384 + 1100])
    mixed = s.made(qcow2_mixed())
    for name, offset, fmt, value in (
        ("extended-too-small", q.INCOMPATIBLE, ">Q", q.EXTENDED_L2),
        ("raw-data-alone", q.AUTOCLEAR, ">Q", 2),
        ("data-file-unnamed", q.INCOMPATIBLE, ">Q", q.EXTERNAL_DATA),
        ("encrypted", q.CRYPT, ">I", 2),
        ("dirty-corrupt", q.INCOMPATIBLE, ">Q", q.DIRTY | q.CORRUPT),
        ("feature-unknown", q.INCOMPATIBLE, ">Q", 1 << 40),
        ("size-odd", q.SIZE, ">Q", 33333),
        ("size-max", q.SIZE, ">Q", (1 << 63) - 1),
        ("l1-huge", q.L1_SIZE, ">I", 1 << 23),
        ("l1-in-header", q.L1_OFFSET, ">Q", 0),
    ):
        data = mixed if name in ("dirty-corrupt", "size-odd") else mixed[:1024]
        s.add("qcow2", name, poked(data, offset, fmt, value))
    s.add("qcow2", "cut-short", s.made(images["cut"])[:-100])
    s.add("qcow2", "backing-far", poked(s.made(images["backing"]), q.BACKING_LENGTH, ">I", 1000))
    empty = bytearray(s.made(q.Qcow2Writer(1 << 20, 9).write))
    for index in range(32):  # more L1 entries than there are clusters, all with one table
        struct.pack_into(">Q", empty, 1024 + index * 8, q.COPIED | 2048)
    s.add("qcow2", "tables-shared", bytes(empty[: 6 * 512]))
    s.add("qcow2", "format-too-long", s.made(qcow2_mixed(edit=with_long_format))[:1024])
    options = {"qemu": "", "qemu-v2": ",compat=0.10", "qemu-metadata": ",preallocation=metadata"}
    for name, more in options.items():
        data = s.qemu(
            name,
            ["qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size=512{more}", name, "10000"],
            ["qemu-io", "-f", "qcow2", "-c", "write -P 5 512 1000", "-c", "write -z 4096 2048", name],
        )
        s.add("qcow2", name, data)


# ---- VHD and VDI ----


def vhd_seeds(seeds):
    blocks = {0: noise(4096), 2: noise(4096, 2), 5: noise(512, 5)}
    bits = {0: {0, 1, 5, 7}, 2: None, 5: {0}}
    seeds.add("vhd", "dynamic", seeds.made(vhd.write_blocks, 6 * 4096 - 512, blocks, block=4096))
    seeds.add("vhd", "bitmaps", seeds.made(vhd.write_blocks, 6 * 4096, blocks, block=4096, written=bits))
    seeds.add("vhd", "large-blocks", seeds.made(vhd.write_blocks, 1 << 40, {}, block=1 << 31))
    seeds.add("vhd", "sector-blocks", seeds.made(vhd.write_blocks, 5000, {1: noise(512)}, block=512))
    names = {
        "relative": {"texts": [(b"W2ru", ".\\disk-base.vhd".encode("utf-16-le"))]},
        "url": {"texts": [(b"MacX", b"file://./disk-base.vhd")]},
        "plain": {"name": "C:\\disk-base.vhd"},
    }
    for name, how in names.items():
        data = seeds.made(
            vhd.write_blocks, 6 * 4096, blocks, block=4096, written=bits, kind=vhd.DIFFERENCING,
            parent=vhd.PARENT_ID, **how,
        )  # fmt: skip
        seeds.add("vhd", name, data)
    seeds.add("vhd", "fixed", seeds.made(vhd.write_fixed, 5000, [(0, noise(5000))]))
    seeds.add("vhd", "lost-footer", seeds.made(vhd.write_blocks, 6 * 4096, blocks, block=4096) + bytes(512))


# Parts of a VHDX that vhdx.c puts together again: (offset, length), the log last.
VHDX_PARTS = (
    (64 << 10, 96), (192 << 10, 144), (3 << 20, 256), (3 << 20 | 64 << 10, 448), (2 << 20, 128),
    (2 << 20 | 8 * 4096, 8), (4 << 20, 512), (1 << 20, 65536),
)  # fmt: skip
VHDX_PARENT = b"data of a parent"


def squeezed(path):
    data = path.read_bytes()
    return b"".join(data[at : at + length].ljust(length, b"\0") for at, length in VHDX_PARTS).rstrip(b"\0")


def vhdx_seeds(seeds):
    mib, path = 1 << 20, seeds.path("made.vhdx")
    states = {0: noise(512).ljust(mib, b"\0"), 1: vhdx.State(vhdx.ZERO), 3: vhdx.State(vhdx.UNMAPPED)}
    # the first header is the newer one, for there is no other in an input
    order = {"sequences": (2, 1)}

    def add(name, size, blocks, *entries, **how):
        layout = vhdx.write_vhdx(path, size, blocks, **order, **how)
        if entries:
            vhdx.write_log(path, layout, entries, sequences=(3, 1))
        seeds.add("vhdx", name, squeezed(path))

    add("dynamic", 5 * mib - 512, states)
    add("fixed", mib, {0: states[0]}, fixed=True)
    add("empty-large", 1 << 40, {}, block=256 * mib)
    add("large-sectors", 3 * mib, states, sector=4096)
    name = ".\\disk-base.vhdx"
    partial = {0: vhdx.Partial(noise(mib), frozenset((1, 2, 3, 70))), 1: states[0], 2: states[1]}
    add("differencing", 3 * mib, partial, parent=vhdx.linked_to(name, VHDX_PARENT))
    add("all-of-the-parent", 2 * mib, {}, parent=vhdx.linked_to(name, VHDX_PARENT))
    bat = (4 * mib | 6).to_bytes(8, "little").ljust(4096, b"\0")
    write = (2 * mib, bat)
    add("log", 2 * mib, states, vhdx.log_entry(9, 0, [write]))
    add("log-of-two", 2 * mib, states, vhdx.log_entry(9, 0, [write]), vhdx.log_entry(10, 0, [(2 * mib, 4096)]))
    add("log-of-data", mib, {0: states[0]}, vhdx.log_entry(9, 0, [(4 * mib, bat), (5 * mib - 8192, 4096)]))
    add("log-longer", mib, {}, vhdx.log_entry(9, 0, [(2 * mib, (7 * mib | 6).to_bytes(8, "little").ljust(4096, b"\0"))],
        last=8 * mib))  # fmt: skip


def vdi_seeds(seeds):
    blocks = {0: noise(4096), 2: noise(4096, 2), 3: vdi.ZERO, 5: noise(4096, 5)}
    small = {"block": 4096, "align": 512}
    seeds.add("vdi", "dynamic", seeds.made(vdi.write_vdi, 6 * 4096 - 100, blocks, **small))
    seeds.add("vdi", "fixed", seeds.made(vdi.write_vdi, 6 * 4096, blocks, kind=vdi.FIXED, **small))
    seeds.add("vdi", "extra", seeds.made(vdi.write_vdi, 6 * 4096, blocks, extra=512, **small))
    seeds.add("vdi", "usual-blocks", seeds.made(vdi.write_vdi, 6 << 20, {}, align=512))
    seeds.add("vdi", "large-blocks", seeds.made(vdi.write_vdi, 1 << 40, {}, block=1 << 31, align=512))
    parent = (vdi.PARENT_ID, vdi.PARENT_STATE)
    data = seeds.made(vdi.write_vdi, 6 * 4096, blocks, kind=vdi.DIFFERENCING, parent=parent, **small)
    seeds.add("vdi", "differencing", data)
    seeds.add("vdi", "another-parent", poked(data, 424, "<I", 1))


# ---- qcow, QED, Parallels ----


def qcow_mixed(bits=9, l2_bits=6, size=40000, **kwargs):
    image = q1.QcowWriter(size, bits, l2_bits, **kwargs)
    for number in (0, 1, 2, 5, 64):
        if number < -(-size // image.cluster):
            image.plain(number, noise(image.cluster, number))
    for number in (6, 8):
        image.pack(number, (b"imgfs" * image.cluster)[: image.cluster], gap=number)
    return image.bytes()


def qcow_seeds(s):
    mixed = qcow_mixed()
    s.add("qcow", "mixed", mixed)
    s.add("qcow", "clusters-4k", qcow_mixed(12, 9))
    s.add("qcow", "backing", qcow_mixed(backing=b"disk-base.raw"))
    s.add("qcow", "as-overlays-have-it", qcow_mixed(9, 12, backing=b"disk.raw"))
    s.add("qcow", "empty", q1.QcowWriter(1 << 20, 9, 6).bytes())
    s.add("qcow", "cut", mixed[:-100])
    for name, offset, fmt, value in (
        ("encrypted", q1.CRYPT, ">I", 1),
        ("size-max", q1.SIZE, ">Q", (1 << 63) - 1),
        ("l1-far", q1.L1_OFFSET, ">Q", 1 << 40),
        ("bits", q1.CLUSTER_BITS, ">H", 0x1114),
    ):
        s.add("qcow", name, poked(mixed[:1024], offset, fmt, value))
    commands = ["qemu-img create -q -f qcow qemu 40000", "qemu-io -f qcow qemu -c"]
    s.add("qcow", "qemu", s.qemu("qemu", commands[0].split(), [*commands[1].split(), "write -P 5 512 1000"]))


def qed_image(**kwargs):
    image = qed.QedWriter(40960, 4096, 1, **kwargs)
    image.plain(0, noise(4096))
    image.plain(3, noise(4096, 3))
    image.zero(4)
    return image.bytes()


def qed_seeds(s):
    mixed = qed_image()
    s.add("qed", "mixed", mixed)
    s.add("qed", "backing", qed_image(backing=b"disk-base.raw"))
    s.add("qed", "backing-raw", qed_image(backing=b"disk.raw", features=qed.RAW_BACKING | qed.NEED_CHECK))
    s.add("qed", "long-header", qed_image(header=2, backing=b"disk.raw", name_at=4100))
    s.add("qed", "cut", mixed[:-100])
    for name, offset, fmt, value in (
        ("feature-unknown", qed.FEATURES, "<Q", 8),
        ("size-max", qed.SIZE, "<Q", (1 << 63) - 512),
        ("size-odd", qed.SIZE, "<Q", 1),
        ("l1-far", qed.L1_OFFSET, "<Q", 1 << 40),
        ("l2-far", 4096, "<Q", 1 << 40),
        ("table-16", qed.TABLE, "<I", 16),
    ):
        s.add("qed", name, poked(mixed[:8192], offset, fmt, value))
    commands = ["qemu-img create -q -f qed -o cluster_size=4k,table_size=2 qemu 40960", "qemu-io -f qed qemu -c"]
    s.add("qed", "qemu", s.qemu("qemu", commands[0].split(), [*commands[1].split(), "write -P 5 512 1000"]))


def parallels_seeds(s):
    blocks = {0: noise(2048), 1: noise(2048, 1), 4: noise(2048, 4)}
    images = {
        "clusters": {}, "sectors": {"magic": p.IN_SECTORS}, "scattered": {"order": lambda numbers: numbers[::-1]},
        "not-said": {"magic": p.IN_SECTORS, "data": 3, "say_data": False}, "in-use": {"in_use": p.IN_USE},
        "cut": {"cut": 100},
    }  # fmt: skip
    for name, layout in images.items():
        s.add("parallels", name, s.made(p.write_parallels, 9728, blocks, cluster=2048, **layout))
    mixed = s.made(p.write_parallels, 9728, blocks, cluster=2048)
    for name, offset, fmt, value in (
        ("size-max", p.SECTORS, "<Q", (1 << 54) - 1),
        ("entries", p.ENTRIES, "<I", 1 << 30),
        ("clusters-of-none", p.TRACKS, "<I", 0),
        ("version", p.VERSION, "<I", 3),
        ("entry-far", p.BAT, "<I", 0xFFFFFFFF),
    ):
        s.add("parallels", name, poked(mixed, offset, fmt, value))


# ---- VMDK ----


def hosted_header(version, flags, capacity, grain, text_sectors, gd, overhead, packed=0):
    return struct.pack(
        "<4sIIQQQQIQQQB4sH433x", b"KDMV", version, flags, capacity, grain, 1, text_sectors, 512, 0, gd,
        overhead, 0, b"\n \r\n", packed,
    )  # fmt: skip


def small_stream(text, footer=True, padding=b"", numbers=(0, 1, 3, 8)):
    """streamOptimized of grains of 8 sectors, the tables of which follow at once."""
    capacity, grain = 72, 8
    text = text.ljust(v.SECTOR, b"\0")

    def header(gd):
        length = len(text) // v.SECTOR
        return hosted_header(3, 0x30001, capacity, grain, length, gd, 1 + length, packed=1)

    def marker(value, kind):
        return v.sectors(struct.pack("<QII", value, 0, kind))

    body, table = b"", [0] * 512
    start = 1 + len(text) // v.SECTOR
    for number in numbers:
        table[number] = start + len(body) // v.SECTOR
        packed = zlib.compress((b"%d" % number) * grain * v.SECTOR)
        body += v.sectors(struct.pack("<QI", number * grain, len(packed)) + packed)
    gt = 0
    if numbers:
        body += marker(4, v.MARK_GT)
        gt = start + len(body) // v.SECTOR
        body += struct.pack("<512I", *table)
    body += marker(1, v.MARK_GD)
    gd = start + len(body) // v.SECTOR
    body += v.sectors(struct.pack("<I", gt))
    if not footer:
        return header(gd) + text + body + bytes(v.SECTOR)
    return header(v.GD_AT_END) + text + body + marker(1, v.MARK_FOOTER) + header(gd) + bytes(v.SECTOR) + padding


def grains(size, *numbers, zero=()):
    data = {number: noise(size, number) for number in numbers}
    data.update({number: v.ZERO for number in zero})
    return data


def text_of(create_type, *extents, **kwargs):
    return v.descriptor(create_type, extents, **kwargs)


def far_sparse():
    """A disk of 64 GiB with grains here and there, most of which the file does not hold."""
    capacity, grain, tables = 1 << 27, 128, 5
    first = 2 + 16
    header = hosted_header(1, 1, capacity, grain, 1, 2, first + tables * 4)
    directory = [0] * (capacity // grain // 512)
    for i, index in enumerate((0, 1, 17, 900, 2047)):
        directory[index] = first + i * 4
    image = header + text_of("monolithicSparse", f'RW {capacity} SPARSE "disk.vmdk"').ljust(v.SECTOR, b"\0")
    image += struct.pack("<2048I", *directory).ljust((first - 2) * v.SECTOR, b"\0")
    for i in range(tables):
        entries = [0] * 512
        entries[i], entries[100], entries[511] = first + tables * 4 + i, 1, 1 << 20
        image += struct.pack("<512I", *entries)
    return image + noise(8192)


def overlapping_tables():
    """Entries of the directory that all name one table."""
    image = hosted_header(1, 1, 65536, 8, 1, 2, 7)
    image += text_of("monolithicSparse", 'RW 65536 SPARSE "x"').ljust(v.SECTOR, b"\0")
    return image + v.sectors(struct.pack("<16I", *[3] * 16)) + bytes(2048)


def vmdk_images(s):
    single = text_of("monolithicSparse", 'RW 120 SPARSE "disk.vmdk"')
    stream = text_of("streamOptimized", 'RW 72 SPARSE "disk.vmdk"')
    return {
        "sparse": s.made(v.write_sparse, 120, grains(4096, 0, 1, 3, 14), single, grain=8, gtes=8),
        "sparse-zeroed": s.made(
            v.write_sparse, 120, grains(4096, 2, zero=(0, 5)), single, grain=8, version=2, flags=7,
            tables_everywhere=False,
        ),
        "sparse-one-directory": s.made(v.write_sparse, 117, grains(512, 3, 4, 116), single, grain=1, flags=1),
        "stream": small_stream(stream),
        "stream-padded": small_stream(stream, padding=bytes(1500)),
        "stream-tables-first": small_stream(stream, footer=False),
        "stream-of-writer": s.made(v.write_stream, 72, grains(4096, 0, 1, 8), stream, grain=8, footer=False),
        "far": far_sparse(),
        "container": s.made(v.write_sparse, 0, {}, text_of("vmfs", 'RW 8 FLAT "disk-flat.vmdk" 0')),
    }  # fmt: skip


HEADER_POKES = (
    ("version-unknown", 4, "<I", 9),
    ("flags-contradict", 8, "<I", 0x20001),
    ("flags-unknown", 8, "<I", 0x100001),
    ("capacity-far", 12, "<Q", 1 << 53),
    ("capacity-max", 12, "<Q", (1 << 64) - 1),
    ("grain-not-a-power", 20, "<Q", 9),
    ("grain-huge", 20, "<Q", 1 << 20),
    ("grain-too-large", 20, "<Q", 1 << 16),
    ("descriptor-none", 28, "<Q", 0),
    ("descriptor-far", 28, "<Q", 1 << 40),
    ("descriptor-long", 36, "<Q", 1 << 20),
    ("entries-odd", 44, "<I", 500),
    ("entries-none", 44, "<I", 0),
    ("directory-far", 56, "<Q", 1 << 30),
    ("overhead-far", 64, "<Q", 1 << 30),
    ("newlines-lost", 73, "<I", 0x0A0A0A0A),
    ("algorithm-unknown", 77, "<H", 2),
)


def hosted_seeds(s):
    images = vmdk_images(s)
    for name, data in images.items():
        s.add("vmdk_hosted", name, data)
    text = text_of("streamOptimized", 'RW 72 SPARSE "disk.vmdk"')
    tiny = small_stream(text, footer=False, numbers=())
    for name, offset, fmt, value in HEADER_POKES:
        s.add("vmdk_hosted", name, poked(tiny, offset, fmt, value))
    s.add("vmdk_hosted", "tables-overlap", overlapping_tables())
    stream = images["stream"]
    tables = stream.find(struct.pack("<QII", 4, 0, v.MARK_GT)) + v.SECTOR
    s.add("vmdk_hosted", "grain-far", poked(stream, tables + 4, "<I", 1 << 20))
    directory = stream.find(struct.pack("<QII", 1, 0, v.MARK_GD)) + v.SECTOR
    s.add("vmdk_hosted", "table-far", poked(stream, directory, "<I", 1 << 20))
    s.add("vmdk_hosted", "grain-of-another", poked(stream, tables + 4, "<I", tables // v.SECTOR - 2))
    stream = small_stream(text, numbers=())
    footer = len(stream) - 2 * v.SECTOR
    s.add("vmdk_hosted", "footer-empty", poked(stream, footer + 12, "<Q", 0))
    s.add("vmdk_hosted", "footer-nowhere", poked(stream, footer + 56, "<Q", v.GD_AT_END))
    s.add("vmdk_hosted", "footer-missing", stream[:footer])
    s.add("vmdk_hosted", "footer-of-zeros", poked(stream[:512], 56, "<Q", v.GD_AT_END).ljust(9000, b"\0"))


def snapshot_seeds(s):
    s.add("vmdk_cowd", "version-unknown", struct.pack("<4s7I", b"COWD", 7, 3, 8, 1, 4, 1, 5).ljust(2048, b"\0"))
    se = s.made(v.write_sesparse, 100, {})[:1024]
    s.add("vmdk_sesparse", "flags-unknown", poked(se, 40, "<Q", 1))
    s.add("vmdk_sesparse", "journal-to-replay", poked(se, 512 + 24, "<Q", 1))
    s.add("vmdk_cowd", "grains-of-1", s.made(v.write_cowd, 5000, grains(512, 0, 1, 7, 4999)))
    s.add("vmdk_cowd", "grains-of-8", s.made(v.write_cowd, 100, grains(4096, 0, 1, 12), grain=8))
    s.add("vmdk_cowd", "empty", s.made(v.write_cowd, 100, {}))
    s.add("vmdk_sesparse", "mixed", s.made(v.write_sesparse, 100, grains(4096, 0, 1, 12, zero=(3,)), (4,)))
    s.add("vmdk_sesparse", "far", s.made(v.write_sesparse, 40000, grains(4096, 0), ()))
    s.add("vmdk_sesparse", "empty", s.made(v.write_sesparse, 100, {}))


DESCRIPTORS = {
    "flat": text_of("monolithicFlat", 'RW 8 FLAT "disk-flat.vmdk" 0'),
    "vmfs": text_of("vmfs", 'RW 8 VMFS "disk-flat.vmdk"'),
    "split": text_of(
        "twoGbMaxExtentSparse", 'RW 16 SPARSE "disk-s001.vmdk"', "RW 40 ZERO", 'RDONLY 8 FLAT "disk-flat.vmdk" 1'
    ),
    "noaccess": text_of("partitionedDevice", 'NOACCESS 8 FLAT "/dev/sda" 0', 'RW 4 FLAT "disk-flat.vmdk" 2 partitionUUID x'),
    "child": text_of("vmfs", 'RW 16 SPARSE "disk-s001.vmdk"', parent_cid=0xBEEF, hint="disk-base.vmdk"),
    "windows": text_of(
        "custom", 'RW 4 FLAT "disk-flat.vmdk" 0', newline="\r\n",
        keys=['encoding="windows-1252"', 'isNativeSnapshot="no"'],
    ),
    "device": text_of("fullDevice", 'RW 63 VMFSRDM "/dev/sdb" 0'),
    "delta": text_of("vmfsSparse", 'RW 100 VMFSSPARSE "disk-delta.vmdk"'),
    "sesparse": text_of("seSparse", 'RW 100 SESPARSE "disk-sesparse.vmdk"'),
    "encrypted": text_of(
        "vmfs", 'RW 8 VMFS "disk-flat.vmdk"',
        ddb=['ddb.iofilters = "vmwarevmcrypt"', 'encryptionKeys = "vmware:key"'],
    ),
    "far": text_of("custom", 'RW 8 FLAT "disk-flat.vmdk" 18446744073709551615'),
    "beyond": text_of("custom", 'RW 8 FLAT "disk-flat.vmdk" 36028797018963967'),
    "raw-map": text_of("custom", 'RW 8 VMFSRDM "disk-rdm.vmdk"', 'RW 8 FLAT "/dev/sda" 0'),
    "device-name": text_of("custom", 'RW 8 FLAT "\\\\.\\PhysicalDrive0" 0'),
    "many": text_of("custom", *["RW 1 ZERO"] * 513),
    "short": text_of("custom", 'RW 16 FLAT "disk-flat.vmdk" 0'),
    "parent-unnamed": text_of("custom", 'RW 8 FLAT "disk-flat.vmdk" 0', parent_cid=7),
    "quote-open": text_of("custom", 'RW 8 FLAT "disk-flat.vmdk'),
    "itself": text_of("custom", 'RW 1 FLAT "disk.vmdk"'),
    "cid-changed": text_of("vmfs", 'RW 16 SPARSE "disk-s001.vmdk"', parent_cid=0xBEEE, hint="disk-base.vmdk"),
    "bom": b"\xef\xbb\xbf"
    + text_of("vmfs", 'RW 8 VMFS "disk-flat.vmdk"', keys=['changeTrackPath="disk-ctk.vmdk"'])
    + bytes(20),
}  # fmt: skip


# ---- several files ----


def files(*named):
    return b"\n".join(b"=== " + name.encode() + b"\n" + data for name, data in named)


def backed(backing, kind):
    def edit(image):
        image.backing = backing.encode()
        image.extensions.append((q.BACKING_FORMAT, kind.encode()))

    return edit


def unnamed_format(image):
    image.backing = b"a.img"


def deep_chain():
    """One layer more than are allowed."""
    texts = [text_of("vmfs", "RW 60 ZERO", cid=7, parent_cid=7, hint=f"a-{i + 1}.vmdk") for i in range(17)]
    return [(f"a-{i}.vmdk" if i else "a.vmdk", text) for i, text in enumerate(texts)]


def chain_seeds(s):
    def top(name, kind):
        return s.made(qcow2_mixed(edit=backed(name, kind)))

    def sparse(text):
        return s.made(v.write_sparse, 60, grains(4096, 1), text, grain=8, gtes=8)

    base = sparse(text_of("monolithicSparse", 'RW 60 SPARSE "x"', cid=7))
    child = text_of("monolithicSparse", 'RW 60 SPARSE "x"', cid=8, parent_cid=7, hint="a-1.vmdk")
    delta = text_of("vmfsSparse", 'RW 80 VMFSSPARSE "a-delta.vmdk"', parent_cid=7, hint="a-1.vmdk")
    se = text_of("seSparse", 'RW 80 SESPARSE "a-se.vmdk"', parent_cid=7, hint="a-1.vmdk")
    zeros = text_of("vmfs", "RW 60 ZERO", cid=7)
    split = text_of("twoGbMaxExtentSparse", 'RW 60 SPARSE "a-s001.vmdk"', 'RW 60 SPARSE "a-s002.vmdk"')
    chains = {
        "raw": [("a.qcow2", top("a.raw", "raw")), ("a.raw", noise(9000))],
        "three": [("a.qcow2", top("a-1.qcow2", "qcow2")), ("a-1.qcow2", top("a-2.raw", "raw")), ("a-2.raw", noise(5000))],
        "parent-changed": [("a.vmdk", sparse(child.replace(b"CID=00000007", b"CID=00000009"))), ("a-1.vmdk", base)],
        "parent-without-cid": [("a.vmdk", sparse(child)), ("a-1.vmdk", zeros.replace(b"CID=00000007\n", b"", 1))],
        "no-format": [("a.qcow2", s.made(qcow2_mixed(edit=unnamed_format)))],
        "deep": deep_chain(),
        "parent-no-cid": [
            ("a.vmdk", text_of("vmfs", "RW 60 ZERO", parent_cid=7, hint="a-1.vmdk")),
            ("a-1.vmdk", zeros.replace(b"CID=00000007\n", b"", 1)),
        ],
        "loop": [("a.qcow2", top("a.qcow2", "qcow2"))],
        "on-vmdk": [("a.qcow2", top("a.vmdk", "vmdk")), ("a.vmdk", base)],
        "data-file": [("disk.qcow2", s.made(qcow2_mixed(edit=with_data_file))), ("disk.raw", noise(3000))],
        "vmdk": [("a.vmdk", sparse(child)), ("a-1.vmdk", base)],
        "delta": [("a.vmdk", delta), ("a-delta.vmdk", s.made(v.write_cowd, 80, grains(512, 3))), ("a-1.vmdk", base)],
        "sesparse": [
            ("a.vmdk", se),
            ("a-se.vmdk", s.made(v.write_sesparse, 80, grains(4096, 3, zero=(4,)), (5,))),
            ("a-1.vmdk", zeros),
        ],
        "split": [("a.vmdk", split), ("a-s001.vmdk", sparse(b"")), ("a-s002.vmdk", sparse(b""))],
        "flat": [("a.vmdk", DESCRIPTORS["flat"].replace(b"disk-", b"a-")), ("a-flat.vmdk", noise(4096))],
    }  # fmt: skip
    for name, parts in chains.items():
        s.add("chain", name, files(*parts))


# ---- the rest ----


def image_seeds(s):
    s.add("image", "qcow2", s.made(qcow2_mixed()))
    s.add("image", "qcow2-backing", s.made(qcow2_mixed(edit=with_backing)))
    for name, data in vmdk_images(s).items():
        if len(data) < 20000:
            s.add("image", name, data)
    s.add("image", "descriptor", DESCRIPTORS["flat"])
    s.add("image", "cowd", b"COWD" + struct.pack("<I", 1) + bytes(504))
    s.add("image", "sesparse", struct.pack("<Q", 0xCAFEBABE) + bytes(504))
    s.add("image", "raw", noise(1024))
    s.add("image", "zeros", bytes(2048))
    s.add("image", "text", b"not a disk\n" * 100)
    s.add("image", "text-of-sectors", b"not a disk\n".ljust(1024, b"\n"))
    s.add("image", "odd", noise(700))
    magics = {
        "qed": b"QED\0", "luks": b"LUKS\xba\xbe", "vhdx": b"vhdxfile", "vhd": b"conectix",
        "vdi": bytes(64) + b"\x7f\x10\xda\xbe", "parallels": b"WithoutFreeSpace", "bochs": b"Bochs Virtual HD Image",
        "cloop": b"#!/bin/sh\n#V2.0 ", "kdmv": b"kdmv", "tar": bytes(257) + b"ustar", "gzip": b"\x1f\x8b",
        "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd", "bz2": b"BZh", "qcow1": b"QFI\xfb\0\0\0\1",
    }  # fmt: skip
    for name, magic in magics.items():
        s.add("image", f"magic-{name}", magic.ljust(512, b"\0"))
    s.add("image", "tail-vhd", bytes(512) + b"conectix".ljust(512, b"\0"))
    s.add("image", "tail-dmg", bytes(512) + b"koly".ljust(512, b"\0"))


def unpack_seeds(s):
    def unit(codec, length, need, stream):
        return struct.pack("<BHH", codec, length - 1, need) + stream

    text = b"the quick brown fox " * 40
    for level in (0, 1, 9):
        s.add("unpack", f"deflate-{level}", unit(0, 800, 800, q.deflate(text, level=level)))
        s.add("unpack", f"zlib-{level}", unit(1, 800, 800, zlib.compress(text, level)))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
    s.add("unpack", "deflate-fixed", unit(0, 800, 800, packer.compress(text) + packer.flush()))
    s.add("unpack", "deflate-long", unit(0, 700, 700, q.deflate(text)))
    s.add("unpack", "deflate-never-ended", unit(0, 800, 800, q.deflate(text, level=0)[:-1]))
    s.add("unpack", "zlib-short", unit(1, 900, 800, zlib.compress(text)))
    s.add("unpack", "deflate-short", unit(0, 900, 801, q.deflate(text)))
    s.add("unpack", "zlib-checksum", unit(1, 800, 800, zlib.compress(text)[:-1] + b"\0"))
    s.add("unpack", "zlib-checksum-full", unit(1, 800, 800, zlib.compress(text)[:-4]))
    s.add("unpack", "zlib-noise", unit(1, 300, 300, zlib.compress(noise(300))))
    s.add("unpack", "zstd", unit(2, 800, 800, q.zstd_frame(text)))
    s.add("unpack", "zstd-two", unit(2, 800, 800, q.zstd_frame(text[:400]) + q.zstd_frame(text[400:], False)))
    s.add("unpack", "zstd-runs", unit(2, 9000, 9000, q.zstd_frame(b"a" * 9000)))


def name_seeds(s):
    references = {
        "family": b"1a/x.vmdk\na/x.vmdk\nx-flat.vmdk", "delta": b"1x-000001.vmdk\nx-000001.vmdk\n./x.vmdk",
        "absolute": b"2x.qcow2\nx.qcow2\n/srv/images/base//b.qcow2", "outside": b"2x.qcow2\nx.qcow2\n/etc/shadow",
        "parent": b"2a/x.qcow2\na/x.qcow2\n../x.qcow2", "dots": b"2x.qcow2\nx.qcow2\na/./..b/...",
        "none": b"0x.qcow2\nx.qcow2\nx.raw", "protocol": b"1x.qcow2\nx.qcow2\njson:{\"file\": 1}",
        "control": b"2x.qcow2\nx.qcow2\na\0b", "slash": b"2x.qcow2\nx.qcow2\nb/", "root": b"2x.qcow2\nx.qcow2\n/srv/images",
        "stranger": b"1bo.qcow2\nbo.qcow2\nbob.raw", "other": b"1a/x.qcow2\na/b/x.qcow2\nx-1.qcow2",
        "long": b"2x.qcow2\nx.qcow2\n" + b"a/" * 511 + b"b",
        "longer": b"2x.qcow2\nx.qcow2\n" + b"a" * 1024, "extent": b"1x-s001.vmdk\nx-flat.vmdk\nx_1",
    }  # fmt: skip
    for name, data in references.items():
        s.add("reference", name, data)
    listings = {
        "plain": b"a.qcow2\nb.img\nc\nd.raw", "stems": b"a.qcow2\na.vmdk\na.raw\na", "directories": b"a.qcow2\na.raw/\nb/",
        "extents": b"x.vmdk\nx-flat.vmdk\nx-s001.vmdk\nx-delta.vmdk\ny-f002.vmdk\nz-ctk.VMDK\nz.VMDK",
        "dots": b".a\n.qcow2\na.\n..b", "case": b"A.QCOW2\na.qcow2\nA.Raw", "long": b"a" * 250 + b".qcow2\n" + b"b" * 255,
        "doubled": b"a.qcow2\na.vmdk\na.qcow2.raw\na.qcow2.qcow2",
        "words": b"x-sesparse.vmdk\nx-rdm.vmdk\nx-rdmp.vmdk\nx-pt.vmdk\nx.vmdk",
    }  # fmt: skip
    for name, data in listings.items():
        s.add("naming", name, data)


def ova_seeds(s):
    disk = noise(512) + bytes(512)
    text = b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 2 VMFS \"a-flat.vmdk\"\n"
    members = [("a.raw", disk), ("a.vmdk", text), ("a-flat.vmdk", disk)]
    descriptor = o.ovf([(name, {}) for name, _ in members])
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        long = [("d" * 80 + "/" + "e" * 80 + "/" + n, c) for n, c in members]
        listed = o.ovf([(n, {}) for n, _ in long])
        s.add("ova", name, s.made(o.write_tar, [("vm.ovf", descriptor), *members], kind))
        s.add("ova", f"{name}-long", s.made(o.write_tar, [("vm.ovf", listed), *long], kind))
    chunks = [("a.raw.%09d" % i, disk[i * 400 : i * 400 + 400]) for i in range(3)]
    listed = o.ovf([("a.raw", {"size": 1024, "chunkSize": 400}), ("b.raw", {"compression": "gzip"})])
    s.add("ova", "chunks", s.made(o.write_tar, [("vm.ovf", listed), *chunks]))
    hand = o.header(b"vm.ovf", len(descriptor)) + o.pad(descriptor)
    hand += o.pax([(b"path", b"a.raw"), (b"size", b"512")]) + o.header(b"x", 0) + disk[:512]
    hand += o.long_name(b"a.vmdk") + o.header(b"x", len(text), base256=True) + o.pad(text)
    s.add("ova", "by-hand", hand + o.header(b"a-flat.vmdk", 0, kind=b"2", link=b"a.raw") + o.END)


def compressed_seeds(s):
    text = noise(200) + bytes(3000) + noise(100) * 3
    image = q.Qcow2Writer(4096, 9)
    image.plain(1, noise(512))
    for kind, content in enumerate((text, s.made(image.write))):
        def add(suffix, name, data, kind=kind):
            s.add("compressed", f"{name}-{kind}", bytes([3 * kind + suffix]) + data)

        add(0, "gzip", gzip.compress(content))
        add(0, "gzip-stored", gzip.compress(content, 0))
        add(0, "gzip-members", c.bgzf(content, 1000))
        add(1, "xz", lzma.compress(content, check=lzma.CHECK_CRC32, preset=0))
        add(1, "xz-blocks", c.xz_blocks(None, content, 1000))
        add(1, "xz-streams", lzma.compress(content[:500]) + bytes(4) + lzma.compress(content[500:]))
        add(2, "zstd-sized", c.zstd_frames(None, content, 1000, sized=True))
        add(2, "zstd-unsized", c.zstd_frames(None, content, 1000, sized=False))
        add(2, "zstd-seekable", c.seekable_zstd(None, content, 1000))
        add(2, "zstd-checksums", c.seekable_zstd(None, content, 1000, checksums=True))


def main():
    s = Seeds(sys.argv[1])
    qcow2_seeds(s)
    vhd_seeds(s)
    vhdx_seeds(s)
    vdi_seeds(s)
    qcow_seeds(s)
    qed_seeds(s)
    parallels_seeds(s)
    hosted_seeds(s)
    snapshot_seeds(s)
    for name, text in DESCRIPTORS.items():
        s.add("vmdk_descriptor", name, text)
    chain_seeds(s)
    image_seeds(s)
    unpack_seeds(s)
    name_seeds(s)
    ova_seeds(s)
    compressed_seeds(s)
    s.done()


main()
