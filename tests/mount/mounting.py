# SPDX-License-Identifier: Apache-2.0
"""A mount of imgfs: starts it, knows when it is there, and ends it whatever happens."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

START_SECONDS = 30
STOP_SECONDS = 30

# Words that a log line has only when something is wrong, unless the test said that it would be
TROUBLE = re.compile(r"error|sanitizer|assert|leak|fatal|overflow|use-after|core dumped", re.I)


def ordinary_signals():
    """nohup(1) and shells leave some of them ignored, and so does then what they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class DidNotMount(Exception):
    def __init__(self, status, log):
        super().__init__(f"exit status {status}: {log}")
        self.status, self.log = status, log


class MountInfo:
    """One line of /proc/self/mountinfo."""

    def __init__(self, line):
        left, _, right = line.partition(" - ")
        fields = left.split()
        self.point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4])
        self.flags = set(fields[5].split(","))
        self.type, self.source, self.super_options = right.split(maxsplit=2)
        self.source = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), self.source)


def all_mounts():
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [MountInfo(line) for line in file.read().rstrip("\n").split("\n")]


def mounted_at(point):
    """The topmost mount at a path, or None."""
    point = os.path.abspath(point)
    found = [info for info in all_mounts() if info.point == point]
    return found[-1] if found else None


class Mount:
    def __init__(self, imgfs, source, point, options=(), args=(), log=None, expect=(), env=None):
        self.source, self.point = Path(source), Path(point)
        self.log_path = Path(log)
        self.expected = list(expect)
        self.argv = [str(imgfs), "-f", *args]
        for option in options:
            self.argv += ["-o", option]
        self.argv += [str(source), str(point)]
        self.env = {**os.environ, **(env or {})}
        self.process = None
        self.works = False

    def start(self):
        """To the first answer, with everything listed and so looked at once."""
        self.start_unseen()
        os.listdir(self.point)
        self.works = True

    def start_unseen(self):
        """To the mount; no image has been looked at."""
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                preexec_fn=ordinary_signals,
            )
        limit = time.monotonic() + START_SECONDS
        while not mounted_at(self.point):
            if self.process.poll() is not None:
                raise DidNotMount(self.process.returncode, self.log())
            assert time.monotonic() < limit, f"not mounted in time: {self.log()}"
            time.sleep(0.005)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_events(self):
        """The lines of the log but the one that says how the process is confined."""
        return [line for line in self.log().splitlines() if not line.startswith("imgfs: confined: ")]

    def log_lines(self, pattern):
        return [line for line in self.log().splitlines() if re.search(pattern, line)]

    def expect_log(self, pattern):
        """Lines that match are no trouble."""
        self.expected.append(pattern)

    def __truediv__(self, name):
        return self.point / name

    def names(self, directory=""):
        return sorted(os.listdir(self.point / directory))

    def unmount(self):
        """umount(8), then the end of the process; the exit status of both."""
        done = subprocess.run(["umount", self.point], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return self.wait()

    def wait(self, seconds=STOP_SECONDS):
        return self.process.wait(timeout=seconds)

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self):
        """Ends the mount, gracefully if it can be; what was wrong with it, a list of texts."""
        problems = []
        if mounted_at(self.point):
            if subprocess.run(["umount", self.point], capture_output=True).returncode != 0:
                problems.append(f"{self.point} was still in use at the end")
                subprocess.run(["umount", "-l", self.point], capture_output=True)
        try:
            status = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            status = self.process.wait()
            problems.append("imgfs did not end after umount")
        if mounted_at(self.point):
            subprocess.run(["umount", "-l", self.point], capture_output=True)
            problems.append("imgfs ended and left its mount behind")
        if self.works and status != 0:
            problems.append(f"exit status {status}")
        trouble = [
            line
            for line in self.log().splitlines()
            if TROUBLE.search(line) and not any(re.search(p, line) for p in self.expected)
        ]
        if trouble:
            problems.append("in the log:\n" + "\n".join(trouble[:40]))
        return problems
