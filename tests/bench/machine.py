# SPDX-License-Identifier: Apache-2.0
"""On what, and with what, was measured."""

import os
import platform
import re
import subprocess
from pathlib import Path

PACKAGES = (
    *("libfuse3-3", "qemu-utils", "qemu-system-common", "nbdkit", "libnbd-bin", "xmount"),
    *("libvmdk-utils", "libqcow-utils", "fio", "coreutils"),
)


def output(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return done.stdout.strip()


def processor():
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def debian():
    found = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    return found[1] if found else "?"


def describe(imgfs, directory, command):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    tree = Path(__file__).resolve().parent.parent.parent
    ours = Path(imgfs).resolve().is_relative_to(tree)
    version = output(imgfs, "--version").partition("\n")[0]
    commit = output("git", "-C", tree, "-c", "safe.directory=*", "describe", "--always", "--dirty")
    packages = output("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES).splitlines()
    return {
        "processor": f"{processor()}, {os.cpu_count()} processors, {memory} GiB of memory",
        "system": f"{debian()}, Linux {os.uname().release}",
        "file system": output("findmnt", "-no", "FSTYPE", "-T", directory),
        "imgfs": f"{version} ({commit if ours else imgfs})",
        "versions": ", ".join(packages),
        "load before": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
        "command": command,
    }
