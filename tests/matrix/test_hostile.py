# SPDX-License-Identifier: Apache-2.0
"""Every line of the tables in hostile/: one lie in one field, and what must come of it.

An image with damage in it is refused with a reason, or it is shown and exactly the bytes that are
lost cannot be read, in every view. Never a crash, a hang, a mountain of memory, or other bytes.
"""

import os
import struct
import subprocess
import zlib

import hostile_bases
import hostile_table
import pytest
from layout import div_ceil, qcow2_size, stream_overhead, stream_size, vmdk_size
from shapes import SECTOR, UNIT
from stores import SECRET
from tools import NO_IMAGE, OK, REFUSED, parse_info

LIMIT_SECONDS = 10  # of processor time
TIMEOUT = 60  # if it waits for something instead
LIMIT_BYTES = 256 << 20
LIMIT_FILES = 512
SMALL = 8 << 20

CASES = hostile_table.load()

# The fields of formats.md; each has a line in its table.
FIELDS = {
    "qcow2": """magic version backing_file_offset backing_file_size cluster_bits size crypt_method l1_size
        l1_table_offset refcount_table_offset refcount_table_clusters nb_snapshots snapshots_offset
        incompatible_features compatible_features autoclear_features refcount_order header_length
        compression_type padding file
        extension.end extension.length extension.backing_format extension.feature_names extension.bitmaps
        extension.luks extension.data_file extension.unknown
        l1.offset l1.copied l1.reserved l2.offset l2.copied l2.compressed l2.zero l2.reserved
        extended.word extended.allocated extended.zero packed.offset packed.sectors packed.payload
        backing.name backing.file data.file data.name""",
    "snapshots": """nb_snapshots snapshots_offset l1_offset l1_size id_size name_size extra_size disk_size id name
        l1.offset l2.offset l2.copied active.l1 file""",
    "hosted": """magic version flags capacity grainSize descriptorOffset descriptorSize numGTEsPerGT rgdOffset
        gdOffset overHead uncleanShutdown newlines compressAlgorithm padding file
        rgd.entry rgt.entry gd.entry gt.entry grain.lba grain.size grain.payload grain.padding
        marker.gt marker.gd marker.footer marker.eos footer.magic footer.version footer.flags footer.capacity
        footer.grainSize footer.descriptorOffset footer.numGTEsPerGT footer.gdOffset footer.overHead
        footer.newlines footer.compressAlgorithm embedded""",
    "cowd": """magic version flags capacity grain gdOffset gdEntries nextFree parent file gd.entry gt.entry""",
    "sesparse": """magic version capacity grain gtSize flags reserved volatile.offset volatile.size
        journalHeader.offset journalHeader.size journal.offset journal.size gd.offset gd.size gts.offset gts.size
        freeBitmap.offset freeBitmap.size backmap.offset backmap.size grains.offset grains.size
        volatile.magic volatile.replay gd.entry gt.entry file""",
    "descriptor": """first-line version encoding CID parentCID createType parentFileNameHint isNativeSnapshot
        changeTrackPath ddb key comment access sectors type name offset extra extent flat.file newline NUL size
        encrypted""",
    "vhd": """magic features version headerOffset time creator originalSize size geometry type checksum
        savedState reserved header.magic header.next header.table header.version header.entries header.block
        header.checksum header.parentId header.parentName header.locator locator.text bat.entry bitmap file""",
    "vdi": """text magic version length type flags comment mapOffset dataOffset sectorSize size blockSize
        blockExtra blocks allocated uuid uuidState uuidParent uuidParentState map.entry file""",
    "qcow": """magic version backing_file_offset backing_file_size mtime size cluster_bits l2_bits padding
        crypt_method l1_table_offset l1.offset l2.offset l2.compressed packed.offset packed.size packed.payload
        backing.name backing.file file""",
    "qed": """magic cluster_size table_size header_size features compat_features autoclear_features
        l1_table_offset image_size backing_filename_offset backing_filename_size l1.offset l2.offset
        backing.name backing.file file""",
    "parallels": """magic version heads cylinders tracks bat_entries nb_sectors in_use data_off flags ext_off
        bat.entry file""",
    "vhdx": """magic creator header.signature header.checksum header.sequence header.guids header.logGuid
        header.logVersion header.version header.logLength header.logOffset region.signature region.checksum
        region.count region.guid region.offset region.length region.required metadata.signature metadata.count
        item.guid item.offset item.length item.flags block flags size id logical physical
        bat.state bat.reserved bat.offset bitmap.entry bitmap.bits locator.type locator.count locator.offset
        locator.length locator.path locator.linkage parent log.signature log.checksum log.length log.tail
        log.sequence log.count log.guid log.flushed log.last descriptor.signature descriptor.leading
        descriptor.trailing descriptor.offset descriptor.sequence zero.length data.signature data.sequence file""",
    "raw": "magic size suffix",
}  # fmt: skip


@pytest.fixture(scope="module")
def sanitized(viewcat):
    with open(viewcat.binary, "rb") as file:
        return b"__asan_init" in file.read()


def write_sparsely(path, data):
    """Zeros of large files are holes; small files have none, for a hole is nothing occupied."""
    if len(data) <= SMALL:
        path.write_bytes(data)
        return
    with open(path, "wb") as file:
        file.truncate(len(data))
        for at in range(0, len(data), UNIT):
            if data[at : at + UNIT].count(0) != len(data[at : at + UNIT]):
                file.seek(at)
                file.write(data[at : at + UNIT])


def survey(viewcat, tmp, case, base, sanitized):
    """One process that reads everything there is: (status, stdout, stderr)."""
    policy = case.policy
    options = ("-r", policy) if policy else ()
    limits = ["prlimit", f"--cpu={LIMIT_SECONDS}", f"--nofile={LIMIT_FILES}", "--core=0"]
    if not sanitized:  # whose shadow takes terabytes of addresses
        limits.append(f"--as={LIMIT_BYTES}")
    argv = [*limits, viewcat.binary, *options, tmp / "store", base.path, "survey", tmp / "out"]
    done = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        timeout=TIMEOUT, close_fds=False,
    )  # fmt: skip
    for trouble in ("runtime error:", "Sanitizer", "ssertion"):
        assert trouble not in done.stderr, done.stderr
    return done


# ---- judging a refusal ----


def judge_refusal(expected, done):
    assert done.returncode == REFUSED, f"not refused: {done.stdout}{done.stderr}"
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    word, errno, reason = line.split(": ", 2)
    errno = {"EOPNOTSUPP": "ENOTSUP"}.get(errno, errno)
    assert word == "refused" and errno in expected.errnos, line
    assert hostile_table.re.search(expected.reason, reason), line
    assert reason.isprintable() and 10 < len(reason) < 400, line


# ---- judging what is shown ----


class Survey:
    """What viewcat printed, by view."""

    def __init__(self, text):
        infos, self.read, self.bad = [], {}, {}
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            if kind in ("read", "bad"):
                view, start, end, *errno = rest.split()
                getattr(self, kind).setdefault(view, []).append((int(start), int(end)))
                assert kind == "read" or errno == ["EIO"], line
            elif kind != "hole":
                infos.append(line)
        self.info = parse_info("\n".join(infos))


def merged(ranges):
    out = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def by_sectors(ranges, limit):
    """As the survey sees them."""
    return merged(
        (start // SECTOR * SECTOR, min(div_ceil(end, SECTOR) * SECTOR, limit)) for start, end in ranges
    )  # fmt: skip


def common(some, others):
    both = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return merged((start, end) for start, end in both if start < end)


def outside(start, end, ranges):
    """The parts of [start, end) that are in none of the ranges."""
    for low, high in ranges:
        if start < low:
            yield start, min(low, end)
        start = max(start, high)
    if start < end:
        yield start, end


def judge_bytes(tmp, found, view, at, length, expected, lost):
    """`length` bytes of the view at `at` are `expected` and zeros, except for what is lost."""
    asked = merged((max(s - at, 0), min(e - at, length)) for s, e in found.read.get(view, ()))
    bad = common(by_sectors(lost, length), asked)
    seen = [(max(s - at, 0), min(e - at, length)) for s, e in found.bad.get(view, ()) if s < at + length and e > at]
    assert merged(seen) == bad, f"{view}: {seen} cannot be read, expected {bad}"
    with open(tmp / "out" / view, "rb") as file:
        for start, end in asked:
            for low, high in outside(start, end, bad):
                got = os.pread(file.fileno(), high - low, at + low).ljust(high - low, b"\0")
                want = bytes(expected[low:high]).ljust(high - low, b"\0")
                if got != want:
                    wrong = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), len(got))
                    raise AssertionError(f"{view}: byte {low + wrong} of the disk is not what it should be")


def judge_compact(tmp, found, view, disk):
    units = sorted(disk.units)
    size = found.info.views[view]
    size_of = {"qcow2": qcow2_size, "vmdk": vmdk_size}[view]
    if disk.size <= 1 << 40:
        assert size == size_of(disk.size, units), f"the size of the {view} view"
    start = size - UNIT * len(units)
    content, lost = bytearray(), []
    for place, unit in enumerate(units):
        content += bytes(disk.data[unit * UNIT : (unit + 1) * UNIT]).ljust(UNIT, b"\0")
        for low, high in disk.lost:
            low, high = max(low, unit * UNIT), min(high, (unit + 1) * UNIT)
            if low < high:
                move = (place - unit) * UNIT
                lost.append((low + move, high + move))
    assert all(end > start for _, end in found.bad.get(view, ())), f"metadata of the {view} view cannot be read"
    judge_bytes(tmp, found, view, start, len(content), content, merged(lost))


RECORD, HEADER, HALF, CHECKSUM = 129 * SECTOR, 19, UNIT // 2, 65560


def stream_record(unit, data):
    """A grain as a streamOptimized view has it, in a zlib stream of two stored blocks."""
    blocks = b"".join(
        struct.pack("<BHH", last, HALF, HALF ^ 0xFFFF) + data[last * HALF :][:HALF] for last in (0, 1)
    )
    stream = b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(data))
    return (struct.pack("<QI", unit * 128, len(stream)) + stream).ljust(RECORD, b"\0")


def lost_of_record(unit, disk):
    """What cannot be read of it: the bytes that are lost, in either half, and then its checksum."""
    lost = []
    for half in (0, 1):
        start = unit * UNIT + half * HALF
        for low, high in disk.lost:
            low, high = max(low, start), min(high, start + HALF)
            if low < high:
                move = HEADER + half * (HALF + 5) - start
                lost.append((low + move, high + move))
    return lost + [(CHECKSUM, CHECKSUM + 4)] if lost else lost


def judge_stream(tmp, found, disk):
    """The records of the first table's grains, which are all of a small disk."""
    view, units = "vmdk-stream", sorted(disk.units)
    if disk.size <= 1 << 40:
        assert found.info.views[view] == stream_size(disk.size, units)
    content, lost = bytearray(), []
    for place, unit in enumerate(unit for unit in units if unit // 512 == units[0] // 512):
        data = bytes(disk.data[unit * UNIT : (unit + 1) * UNIT]).ljust(UNIT, b"\0")
        content += stream_record(unit, data)
        lost += [(low + place * RECORD, high + place * RECORD) for low, high in lost_of_record(unit, disk)]
    start = stream_overhead(disk.size) * SECTOR
    judge_bytes(tmp, found, view, start, len(content), content, merged(lost))


def judge_disk(tmp, disk, done, path):
    assert done.returncode == OK, f"exit status {done.returncode}: {done.stderr}"
    found = Survey(done.stdout)
    info = found.info
    assert info.size == info.views["raw"] == disk.size
    assert disk.alone is None or info.standalone == disk.alone
    assert {"qcow2", "vmdk"} - set(info.views) == disk.absent
    judge_bytes(tmp, found, "raw", 0, disk.size, disk.data, merged(disk.lost))
    for view in sorted({"qcow2", "vmdk"} & set(info.views)):
        if info.standalone and info.format == view:
            whole = (tmp / "store" / path).read_bytes()
            assert info.views[view] == len(whole)
            judge_bytes(tmp, found, view, 0, len(whole), whole, [])
        else:
            judge_compact(tmp, found, view, disk)
    if "vmdk-stream" in set(info.views) - info.as_is:
        judge_stream(tmp, found, disk)


# ---- the tests ----


def judge_case(viewcat, tmp, case, sanitized):
    base = hostile_bases.BASES[case.base_name]()
    space = hostile_table.Workspace(base)
    for change in case.changes:
        space.apply(change)
    if base.finish:
        base.finish(space)
    for directory in ("store", "out"):
        (tmp / directory).mkdir()
    (tmp / "secret.raw").write_bytes(SECRET.ljust(UNIT, b"\0"))
    for name, data in space.files.items():
        write_sparsely(tmp / "store" / name, data)

    expected = hostile_table.expectation(case, space)
    done = survey(viewcat, tmp, case, base, sanitized)
    assert SECRET[:20].decode() not in done.stdout + done.stderr
    if expected is None:
        assert done.returncode == NO_IMAGE, done.stdout + done.stderr
    elif isinstance(expected, hostile_table.Refusal):
        judge_refusal(expected, done)
    else:
        judge_disk(tmp, expected, done, base.path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(viewcat, tmp, case, sanitized):
    judge_case(viewcat, tmp, case, sanitized)


@pytest.mark.parametrize("name", hostile_bases.BASES)
def test_base(viewcat, tmp, name, sanitized):
    """Without a lie everything is as the bases say: what the cases show is the lie's doing."""
    expected = hostile_bases.UNCHANGED.get(name, "same")
    judge_case(viewcat, tmp, hostile_table.Case("base", 0, name, [name], [], expected, ""), sanitized)


def test_tables_are_whole():
    assert len(CASES) >= 300
    assert {case.base_name for case in CASES} == set(hostile_bases.BASES)
    for table, fields in FIELDS.items():
        named = {name for case in CASES if case.table == table for name in case.fields}
        assert set(fields.split()) - named == set(), f"{table}.table says nothing about these"
        assert named - set(fields.split()) == set(), f"fields of {table}.table that no format has"
