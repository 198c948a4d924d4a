# SPDX-License-Identifier: Apache-2.0
"""Chooses the corpus to keep: choose.py CONTROL DIRECTORY BYTES.

CONTROL is what libFuzzer's set_cover_merge writes: which edges of the program each input reaches.
Of all inputs, those that reach the most that is new for their size are put into DIRECTORY, as
long as it does not grow beyond BYTES. What is there and has a name of words, not the hash that
libFuzzer gives, was put there by a person and stays.
"""

import hashlib
import heapq
import re
import shutil
import sys
from pathlib import Path

OVERHEAD = 200  # bytes: a file costs something by itself


def is_hash(name):
    return re.fullmatch("[0-9a-f]{40}", name) is not None


def read_control(path):
    """{input: the edges that it reaches}"""
    lines = Path(path).read_text().splitlines()
    count = int(lines[0])
    names = [Path(line) for line in lines[2 : 2 + count]]
    reached = {}
    for line in lines[2 + count :]:
        kind, index, *edges = line.split()
        if kind == "FT":
            reached[names[int(index)]] = set(edges)
    return reached


def choose(reached, limit):
    """(inputs, the edges that they reach). What an input adds can only become less, so a figure
    that is still the best after it has been brought up to date is the best of all."""
    sizes = {path: path.stat().st_size + OVERHEAD for path in reached}
    heap = [(-len(edges) / sizes[path], path) for path, edges in reached.items()]
    heapq.heapify(heap)
    chosen, covered, used = [], set(), 0
    while heap:
        _, path = heapq.heappop(heap)
        gain = reached[path] - covered
        now = -len(gain) / sizes[path]
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, path))
        elif gain and used + sizes[path] <= limit:
            chosen.append(path)
            covered |= gain
            used += sizes[path]
    return chosen, covered


def main():
    control, directory, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    reached = read_control(control)
    chosen, covered = choose(reached, limit)
    kept = directory.with_name(directory.name + ".new")
    kept.mkdir()
    for path in directory.iterdir():
        if not is_hash(path.name):
            shutil.copyfile(path, kept / path.name)
    for path in chosen:
        shutil.copyfile(path, kept / hashlib.sha1(path.read_bytes()).hexdigest())
    shutil.rmtree(directory)
    kept.rename(directory)
    edges = len(set().union(*reached.values()))
    print(f"{directory.name}: {len(chosen)} inputs, which reach {len(covered)} of {edges} edges")


main()
