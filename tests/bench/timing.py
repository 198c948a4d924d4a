# SPDX-License-Identifier: Apache-2.0
"""Contestants in turn, round after round, so that a machine that drifts drifts for all of them."""

import statistics
import subprocess
import time


class Failed(Exception):
    """A contestant cannot do what is asked, and why."""


def command(*argv, timeout=180):
    """Runs a program; how long it took, in seconds."""
    argv = [str(word) for word in argv]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{argv[0]} took over {timeout} s") from e
    taken = time.perf_counter() - start
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace").strip()
        raise Failed(f"{argv[0]} exited with {done.returncode}: {text}")
    return taken


def contest(results, part, row, unit, contestants, runs, patience=60):
    """Measures every contestant `runs` times: {name: call that returns the figure}. One that
    fails is out, and the report says why. Each round begins with another one; a round before
    them warms up. Who takes more than `patience` seconds for that is not asked again."""
    names = list(contestants)
    values = {name: [] for name in names}
    for number in range(-1, runs):
        turn = number % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            try:
                value = contestants[name]()
            except (Failed, OSError, subprocess.SubprocessError) as e:
                results.fail(part, row, name, str(e))
                names.remove(name)
                del values[name]
                continue
            if number >= 0:
                values[name].append(value)
            elif time.perf_counter() - start > patience:
                values[name].append(value)
                names.remove(name)
    for name, found in values.items():
        results.add(part, row, name, unit, found)


def ratios(one, other):
    """Round by round, since what was measured at the same time belongs together."""
    return [a / b for a, b in zip(one, other)]


def median(values):
    return statistics.median(values)
