# SPDX-License-Identifier: Apache-2.0
"""A Linux kernel and an initramfs for a guest that reads its disk and says what it read.

The kernel comes out of Debian's package, unpacked and not installed; only the kernel and the
modules that the guest loads are kept.
"""

import gzip
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"
CACHE = Path(os.environ.get("IMGFS_TEST_CACHE", "/var/cache/imgfs-tests"))
BUSYBOX = Path("/bin/busybox")

# The guest has nothing that could load a module when another one asks for it by name
WANTED = ["virtio_pci", "virtio_blk", "ext4"]
OPTIONAL = ["crc32c_generic", "crc32c_cryptoapi"]


class NoKernel(Exception):
    """There is none in the cache and the package cannot be fetched."""


def kernel():
    """The kernel, and its modules in the order in which they are loaded."""
    directory = next(iter(sorted(CACHE.glob("linux-image-*/"), reverse=True)), None)
    if not directory:
        directory = fetch()
    return directory / "vmlinuz", sorted((directory / "modules").iterdir())


def fetch():
    """Puts the kernel and its modules in the cache; the directory of them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as scratch:
        scratch = Path(scratch)
        package = download(scratch)
        command(scratch, "dpkg", "-x", package, "tree")
        result = scratch / "result"
        (result / "modules").mkdir(parents=True)
        shutil.copy(next((scratch / "tree/boot").glob("vmlinuz-*")), result / "vmlinuz")
        for number, (name, body) in enumerate(load_order(scratch / "tree")):
            (result / "modules" / f"{number:02}-{name}.ko").write_bytes(body)
        return result.rename(CACHE / package.name.rpartition("_")[0].replace("%3a", ":"))


def command(directory, *argv):
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise NoKernel(done.stderr.strip() or f"{argv[0]} failed")
    return done.stdout


def download(directory):
    """Fetches the package; once more with a fresh list where the list at hand is none or old."""
    for again in (False, True):
        try:
            if again:
                command(directory, "apt-get", "update", "-qq")
            command(directory, "apt-get", "download", "-qq", real_package(directory))
            return next(directory.glob("*.deb"))
        except NoKernel:
            if again:
                raise


def real_package(directory):
    """The package that the metapackage stands for today."""
    depends = command(directory, "apt-cache", "depends", PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        raise NoKernel(f"{PACKAGE} stands for no package")
    return found[1]


def load_order(tree):
    """(name, body) of the modules wanted and of what they need, what is needed first."""
    paths = {
        re.sub(r"\.ko(\.\w+)?$", "", path.name).replace("-", "_"): path
        for path in tree.glob("**/modules/**/*.ko*")
    }
    order = {}

    def add(name):
        if name in order or name not in paths:
            return
        body = module_body(paths[name])
        for needed in module_needs(body):
            add(needed)
        order[name] = body

    for name in OPTIONAL + WANTED:
        add(name)
    return order.items()


def module_body(path):
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    return path.read_bytes()


def module_needs(body):
    found = re.search(rb"\0depends=([^\0]*)\0", body)
    names = found[1].decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def initramfs(path, init, modules):
    """busybox, the modules, and /init, as the cpio archive that the kernel unpacks."""
    archive = bytearray()
    number = 0

    def add(name, mode, body=b""):
        nonlocal number
        number += 1
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
        archive.extend(b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0")
        archive.extend(bytes(-len(archive) % 4) + body)
        archive.extend(bytes(-len(archive) % 4))

    for directory in ("bin", "dev", "proc", "sys", "disk", "modules"):
        add(directory, stat.S_IFDIR | 0o755)
    add("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes())
    for module in modules:
        add(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes())
    add("init", stat.S_IFREG | 0o755, init.read_bytes())
    add("TRAILER!!!", 0)
    path.write_bytes(gzip.compress(bytes(archive), 1))
