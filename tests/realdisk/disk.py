# SPDX-License-Identifier: Apache-2.0
"""A disk as it is met in the wild: partitions and file systems, full of real files."""

import shutil
import subprocess
from pathlib import Path

from tools import MIB, run

SIZE = 2560 * MIB  # so that split images have two extents
SYSTEM_BYTES = 240 * MIB  # of files in the first partition
DATA_BYTES = 48 * MIB  # and in the second

# start and size of each partition, MiB
SYSTEM = (1, 900)
DATA = (2200, 300)


def package_files():
    """Every file that a package has installed, in the order of the packages' names."""
    packages = run("dpkg-query", "-W", "-f", "${binary:Package}\n").out.split()
    for line in run("dpkg", "-L", *packages).out.splitlines():
        path = Path(line)
        if path.is_file() and not path.is_symlink():
            yield path


def gather(directory, limit, wanted):
    """Copies files of installed packages until they are `limit` bytes; how many they were."""
    total = count = 0
    for path in filter(wanted, package_files()):
        size = path.stat().st_size
        if total + size > limit:
            continue
        target = directory / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        total += size
        count += 1
        if total > limit * 0.98:
            break
    return count


def is_program(path):
    return path.parts[1:2] != ("etc",) and "share" not in path.parts


def is_text(path):
    return "share" in path.parts and path.suffix != ".ko"


def make(disk, scratch):
    """Writes the disk: a partition table and two file systems."""
    with open(disk, "wb") as file:
        file.truncate(SIZE)
    table = "label: gpt\n" + "".join(f"start={s}MiB, size={n}MiB\n" for s, n in (SYSTEM, DATA))
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)

    file_system(disk, scratch / "system", SYSTEM, SYSTEM_BYTES, is_program)
    file_system(disk, scratch / "data", DATA, DATA_BYTES, is_text, "-b", "1024")


def file_system(disk, tree, partition, limit, wanted, *options):
    tree.mkdir()
    count = gather(tree, limit, wanted)
    assert count > 100, f"only {count} files"
    write_ext4(disk, tree, partition, *options)
    shutil.rmtree(tree)


def write_ext4(disk, tree, partition, *options):
    """A file system with the files of the tree, where the partition is."""
    start, size = partition
    place = ["-E", f"offset={start * MIB}", "-d", tree, disk, f"{size}M"]
    run("mke2fs", "-qFt", "ext4", *options, *place, timeout=300)
