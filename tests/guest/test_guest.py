# SPDX-License-Identifier: Apache-2.0
"""A virtual machine whose disk is a view reads what is in the source, all of it."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures import require, require_programs
from kernel import BUSYBOX, NoKernel, initramfs, kernel
from tools import MIB, pattern, run, sha256

BOOT_SECONDS = 240
START = MIB  # of the partition


@pytest.fixture(scope="module")
def boot(tmp_path_factory):
    """boot(PATH, FORMAT, DRIVE OPTION…, write=False): what the guest said, as a dictionary."""
    require_programs("qemu-system-x86_64")
    require(BUSYBOX.exists(), "busybox-static")
    directory = tmp_path_factory.mktemp("guest")
    try:
        vmlinuz, modules = kernel()
    except NoKernel as e:
        require(False, f"a kernel for the guest ({e})")
    initramfs(directory / "initramfs", Path(__file__).with_name("init"), modules)

    def run_guest(path, image_format, *drive, write=False):
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-reboot"]
        argv += ["-display", "none", "-serial", "stdio", "-kernel", vmlinuz]
        argv += ["-initrd", directory / "initramfs"]
        argv += ["-append", "console=ttyS0 quiet panic=-1" + " imgfs.write" * write]
        options = ["if=none", "id=disk", f"format={image_format}", *drive]
        argv += ["-drive", ",".join([f"file={path}", *options])]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        done = run(*argv, check=False, timeout=BOOT_SECONDS)
        said = done.out + done.err
        facts = dict(re.findall(r"^guest: (\w+) ?(.*?)(?:  -)?\r?$", said, re.MULTILINE))
        assert done.returncode == 0 and "done" in facts, said[-4000:]
        return facts

    return run_guest


class Disk:
    """The disk of a guest, its files known, and the same disk in a datastore in three formats."""

    def __init__(self, directory):
        self.datastore, self.files = directory / "datastore", directory / "files"
        self.datastore.mkdir()
        self.raw = directory / "disk.raw"
        self.make_files()
        with open(self.raw, "wb") as file:
            file.truncate(48 * MIB)
        table = f"label: dos\nstart={START // 512}, type=83\n"
        subprocess.run(["sfdisk", "-q", self.raw], input=table, text=True, check=True)
        run("mke2fs", "-qt", "ext4", "-E", f"offset={START}", "-d", self.files, self.raw, "46M")

        run("cp", "--sparse=always", self.raw, self.datastore / "plain.raw")
        self.convert("web.qcow2", "-c", "-O", "qcow2")
        self.convert("app.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized")

    def make_files(self):
        (self.files / "programs").mkdir(parents=True)
        for name in ("bash", "ls", "tar"):
            shutil.copy(f"/bin/{name}", self.files / "programs" / name)
        for number in range(40):
            (self.files / f"file{number}").write_bytes(pattern(number, 200_000 + 997 * number))

    def convert(self, name, *options):
        run("qemu-img", "convert", "-f", "raw", *options, self.raw, self.datastore / name)

    def files_digest(self):
        """What the guest computes over the files: the checksum of the list of their checksums."""
        paths = [path for path in self.files.rglob("*") if path.is_file()]
        names = sorted(f"./{path.relative_to(self.files)}" for path in paths)
        lines = "".join(f"{sha256(self.files / name)}  {name}\n" for name in names)
        return hashlib.sha256(lines.encode()).hexdigest()

    def expect(self, facts):
        assert facts["bytes"] == str(self.raw.stat().st_size)
        assert facts["disk"] == sha256(self.raw)
        assert facts["files"] == self.files_digest()


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    require_programs("mke2fs", "sfdisk", "qemu-img")
    return Disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def views(module_mount, disk):
    return module_mount(disk.datastore)


def test_the_guest_itself(boot, disk):
    """A plain file gives the checksums that are known, so what differs below is the view's."""
    disk.expect(boot(disk.raw, "raw", "readonly=on"))


@pytest.mark.parametrize(
    "name", ["plain.qcow2", "plain.vmdk", "web.raw", "web.vmdk", "app.qcow2", "app.raw"]
)
def test_guest_reads_a_view(boot, disk, views, name):
    disk.expect(boot(views / name, name.rpartition(".")[2], "readonly=on"))


def test_guest_writes_above_a_view(boot, disk, views):
    """A view is a base like any other: what the guest writes goes to the layer above it."""
    before = sha256(views / "app.qcow2")
    facts = boot(views / "app.qcow2", "qcow2", "snapshot=on", write=True)
    disk.expect(facts)
    assert facts["wrote"] == "the guest was here"
    assert sha256(views / "app.qcow2") == before
