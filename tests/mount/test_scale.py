# SPDX-License-Identifier: Apache-2.0
"""Many images, and huge ones: what costs must follow what is there, not what could be."""

import os
import resource
import time

import pytest

import images
from fixtures import LARGER, SLOWER, require
from tools import GIB, KIB, MIB, TIB, VIEWS, check, compare, data_ranges, pattern, run


def seconds(*command):
    start = time.monotonic()
    out = run(*command).out
    return time.monotonic() - start, out.count("\n")


def memory(mount):
    """Resident memory of the process, KiB."""
    with open(f"/proc/{mount.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def descriptors(mount):
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


@pytest.fixture(scope="module")
def crowds(tmp_path_factory):
    base = tmp_path_factory.mktemp("crowd")
    for count in (1000, 4000, 10_000):
        images.populate(base / f"of{count}", count)
    return base


def test_ten_thousand_images(crowds, mount):
    """Listing is a matter of a second, cold and warm; and an idle mount stays small."""
    views = mount(crowds / "of10000")
    taken, lines = seconds("ls", views.point)
    assert lines == 30_000
    assert taken < 5 * SLOWER, f"ls took {taken:.1f} s"
    taken, lines = seconds("ls", "-l", views.point)
    assert lines == 30_001
    assert taken < 15 * SLOWER, f"ls -l took {taken:.1f} s"
    taken, _ = seconds("ls", views.point)
    assert taken < 3 * SLOWER, f"the second ls took {taken:.1f} s"
    assert descriptors(views) < 512
    assert memory(views) < 64 * KIB * LARGER, f"{memory(views)} KiB"


def test_listing_is_not_quadratic(crowds, mount):
    """Four times the images, about four times the time."""

    def listing(count):
        """The best of three mounts, each cold."""
        times = []
        for _ in range(3):
            views = mount(crowds / f"of{count}")
            times.append(seconds("ls", "-l", views.point)[0])
            views.unmount()
        return min(times)

    few, many = listing(1000), listing(4000)
    assert many < 10 * max(few, 0.1), f"{few:.2f} s for 1,000, {many:.2f} s for 4,000"


def test_looking_one_up_does_not_cost_the_others(crowds, mount):
    """A lookup in a large directory without a listing before it."""
    views = mount(crowds / "of10000")
    start = time.monotonic()
    for number in range(0, 5000, 50):
        assert (views / f"vm{number:05}.raw").read_bytes()[0] == 7
    assert time.monotonic() - start < 5


def test_many_at_once(crowds, mount):
    """More views open than the process may have files."""
    views = mount(crowds / "of1000")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    fds = []
    failed = 0
    try:
        for name in views.names():
            try:
                fds.append(os.open(views / name, os.O_RDONLY))
            except OSError:
                failed += 1
        assert len(fds) > 300
        assert descriptors(views) < 512
        for fd in fds[:: len(fds) // 50]:
            assert len(os.pread(fd, 512, 0)) == 512
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if failed:
        views.expect_log("cannot be opened now")
    for name in views.names()[:20]:
        assert len((views / name).read_bytes()) > 0


# ---- huge disks ----

HUGE = 8 * TIB


@pytest.fixture(scope="module")
def huge(module_mount, tmp_path_factory):
    """Sparse disks of 8 TiB whose last sectors hold something, as raw and as qcow2."""
    datastore = tmp_path_factory.mktemp("huge")
    try:
        images.sparse_file(datastore / "disk.raw", HUGE, (0, b"begin"), (HUGE - 512, b"E" * 512))
    except OSError as e:
        require(False, f"a file system with files of 8 TiB ({e})")
    images.create(datastore / "thin.qcow2", "8T")
    run(
        *("qemu-io", "-c", "write -P 66 0 64k", "-c", "write -P 67 5T 64k"),
        *("-c", f"write -P 69 {HUGE - 512} 512", datastore / "thin.qcow2"),
    )
    return module_mount(datastore)


@pytest.mark.parametrize("name", [f"{s}.{v}" for s in ("disk", "thin") for v in VIEWS])
def test_the_end_of_a_huge_disk_is_near(huge, name):
    """Size, blocks, the last byte, a byte in the middle, the holes: each at once."""
    start = time.monotonic()
    st = os.stat(huge / name)
    with open(huge / name, "rb", buffering=0) as file:
        assert len(os.pread(file.fileno(), 1, st.st_size - 1)) == 1
        assert len(os.pread(file.fileno(), 1, st.st_size // 2)) == 1
        ranges = data_ranges(huge / name)
    taken = time.monotonic() - start
    assert taken < 2, f"{taken:.1f} s"
    assert st.st_size > 0 and st.st_blocks * 512 < 2 * GIB
    assert 0 < len(ranges) < 100
    if name.endswith(".raw"):
        assert st.st_size == HUGE
        with open(huge / name, "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 1000, HUGE - 512) == b"E" * 512


def test_a_huge_view_is_right(huge, tmp_path):
    copy = tmp_path / "copy.qcow2"
    run("cp", huge / "disk.qcow2", copy)
    check(copy, "qcow2")
    compare(copy, "qcow2", huge.source / "disk.raw")


def test_memory_stays_small_over_huge_disks(huge):
    assert memory(huge) < 128 * KIB * LARGER, f"{memory(huge)} KiB"


def test_a_long_chain(datastore, mount):
    """Sixteen layers are the limit, and each is still asked only once."""
    name = "web-0.qcow2"
    images.create(datastore / name, "16M")
    run("qemu-io", "-c", "write -P 100 0 1M", datastore / name)
    for layer in range(1, 16):
        above = f"web-{layer}.qcow2"
        images.create(datastore / above, "16M", "-b", name, "-F", "qcow2")
        run("qemu-io", "-c", f"write -P {layer} {layer}M 64k", datastore / above)
        name = above
    views = mount(datastore, "references=datastore")
    body = (views / "web-15.raw").read_bytes()
    assert body[0] == 100
    assert [body[layer * MIB] for layer in range(1, 16)] == list(range(1, 16))


def test_memory_of_a_full_disk(datastore, mount):
    """Reading much more than the cache holds does not grow the process by it."""
    body = b"".join(pattern(number, 512) * 2 for number in range(1024))  # it packs by half
    with open(datastore.with_name("full"), "wb") as file:
        for number in range(192):
            file.write(body[number:] + body[:number])
    run(
        *("qemu-img", "convert", "-c", "-W", "-f", "raw", "-O", "qcow2"),
        *("-o", "compression_type=zstd", datastore.with_name("full"), datastore / "full.qcow2"),
    )
    assert (datastore / "full.qcow2").stat().st_size < 130 * MIB
    views = mount(datastore, "cache_size=8M")
    for view in ("raw", "vmdk"):
        run("cp", views / f"full.{view}", "/dev/null")
    assert memory(views) < 64 * KIB * LARGER, f"{memory(views)} KiB"


# ---- disks that are mapped from end to end ----


def test_a_full_disk_costs_one_pass_over_its_tables(datastore, mount):
    """The first stat of a view of 4 TiB reads its tables, 512 MiB, and no more: not a multiple of
    the time that reading them takes. The second is for nothing, and memory stays small."""
    try:
        images.write_full_qcow2(datastore / "full.qcow2", 4 * TIB)
    except OSError as e:
        require(False, f"a file system with files of 4 TiB ({e})")
    start = time.monotonic()
    with open(datastore / "full.qcow2", "rb", buffering=0) as file:
        for offset in range(0, 512 * MIB, MIB):
            os.pread(file.fileno(), MIB, offset)
    once = time.monotonic() - start
    views = mount(datastore, "cache_size=8M")
    start = time.monotonic()
    st = os.stat(views / "full.raw")
    first = time.monotonic() - start
    assert (st.st_size, st.st_blocks) == (4 * TIB, 4 * TIB // 512)
    assert not (views / "full.vmdk").exists()  # more than 2 TiB of data
    start = time.monotonic()
    with open(views / "full.raw", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1, 4 * TIB - 1) == b"\0"
    assert time.monotonic() - start < 1
    assert first < (20 * once + 1) * SLOWER, f"{first:.1f} s, and one pass {once:.1f} s"
    assert memory(views) < 64 * KIB * LARGER, f"{memory(views)} KiB"
