# SPDX-License-Identifier: Apache-2.0
"""Memory of servers, which fork as they like and are found by their mount point."""

import os
from pathlib import Path


def fields(pid):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def processes():
    """{pid: (parent, command line)} of all that are there."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                found[int(entry)] = int(fields(entry)["PPid"]), [os.fsdecode(w) for w in words]
            except (OSError, KeyError):
                continue  # it has ended meanwhile
    return found


def servers_of(point):
    """Processes that have the mount point as a word or in one, and their children."""
    point, everyone = str(point), processes()
    found = {pid for pid, (_, words) in everyone.items() if any(point in w for w in words)}
    return found | {pid for pid, (parent, _) in everyone.items() if parent in found}


def memory(pids):
    """KiB now and at the most, of all of them together."""
    now = most = 0
    for pid in pids:
        try:
            status = fields(pid)
            now += int(status["VmRSS"].split()[0])
            most += int(status["VmHWM"].split()[0])
        except (OSError, KeyError):
            continue
    return now, most
