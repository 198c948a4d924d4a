# SPDX-License-Identifier: Apache-2.0
"""Processes that work on one mount at the same time, and numbers that they share."""

import errno
import mmap
import multiprocessing
import os
import time
import traceback

_fork = multiprocessing.get_context("fork")


class Numbers:
    """64-bit numbers in memory that forked processes share. One writes each of them, many read;
    an aligned store is seen whole."""

    def __init__(self, count):
        self._memory = mmap.mmap(-1, 8 * count)
        self._view = memoryview(self._memory).cast("Q")

    def __getitem__(self, index):
        return self._view[index]

    def __setitem__(self, index, value):
        self._view[index] = value


def _run(work, stop, pipe, arguments):
    try:
        pipe.send((True, work(stop, *arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    os._exit(0)


class Crew:
    """Each member is a process that runs work(stop, ARGUMENT…) until stop.is_set(), and returns
    what it found. An exception in one of them is the test's."""

    def __init__(self):
        self.stop = _fork.Event()
        self._members = []

    def add(self, work, *arguments):
        ours, theirs = _fork.Pipe(duplex=False)
        process = _fork.Process(target=_run, args=(work, self.stop, theirs, arguments))
        process.start()
        theirs.close()
        self._members.append((process, ours))

    def wait_for(self, index, seconds):
        """Until the member has ended by itself, or failed."""
        assert self._members[index][1].poll(seconds), "it takes too long"

    def someone_ended(self):
        return any(pipe.poll() for _process, pipe in self._members)

    def finish(self, seconds=60):
        """Stops all and gives back what they returned, in order. Whoever does not stop hangs in
        the mount, which is what must not happen."""
        self.stop.set()
        limit = time.monotonic() + seconds
        results, failures = [], []
        for process, pipe in self._members:
            if not pipe.poll(max(limit - time.monotonic(), 0)):
                failures.append(f"a reader hangs; it is in {where(process.pid)}")
                process.kill()
            else:
                try:
                    good, result = pipe.recv()
                except EOFError:
                    good, result = False, f"a process died, exit status {process.exitcode}"
                (results if good else failures).append(result)
            process.join(10)
        self._members = []
        assert not failures, "\n".join(failures)
        return results

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        for process, _pipe in self._members:
            process.join(5)
            process.kill()
            process.join(10)


def where(pid):
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
            return file.read()
    except OSError:
        return "nowhere"


class Tally:
    """What came of the tries of one reader: how many were good, the others by their errno, and
    how long the longest took."""

    def __init__(self):
        self.counts = {}
        self.longest = 0.0

    def attempt(self, call):
        """What call returns; None where it failed with an errno."""
        start = time.monotonic()
        try:
            result, name = call(), "good"
        except OSError as e:
            result, name = None, errno.errorcode[e.errno]
        self.longest = max(self.longest, time.monotonic() - start)
        self.counts[name] = self.counts.get(name, 0) + 1
        return result

    def __add__(self, other):
        total = Tally()
        total.longest = max(self.longest, other.longest)
        for counts in (self.counts, other.counts):
            for name, count in counts.items():
                total.counts[name] = total.counts.get(name, 0) + count
        return total

    def __getitem__(self, name):
        return self.counts.get(name, 0)


def read_exactly(fd, size, offset):
    """A read that meets an error on its way returns what it has: the next call tells the error.
    An end of the file before its end is a failure."""
    body = b""
    while len(body) < size:
        more = os.pread(fd, size - len(body), offset + len(body))
        assert more, f"the file ended at {offset + len(body)}, before {offset + size}"
        body += more
    return body


def stamp_of(body):
    """The byte that all of them are; the bytes where they differ."""
    return body[0] if body == body[:1] * len(body) else sorted(set(body))


def stamped(number, size):
    """A file of one byte over and over, never zero: a hole is never taken for data."""
    return bytes([number % 255 + 1]) * size

