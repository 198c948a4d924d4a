# SPDX-License-Identifier: Apache-2.0
"""What was measured, as records that the report and the charts are made of."""

import json
import sys
import time

from timing import median


class Results:
    def __init__(self, settings):
        self.settings = settings
        self.records, self.failures, self.memory = [], [], []
        self.start = time.monotonic()

    def say(self, text):
        print(f"{time.monotonic() - self.start:6.0f} s  {text}", file=sys.stderr, flush=True)

    def add(self, part, row, contestant, unit, values, **more):
        """`values` in the order of the rounds; `more` goes to the record as it is."""
        record = {"part": part, "row": row, "contestant": contestant, "unit": unit}
        self.records.append({**record, "values": list(values), **more})
        middle, low, high = median(values), min(values), max(values)
        self.say(f"{part}: {row}, {contestant}: {middle:.4g} {unit} ({low:.4g}..{high:.4g})")

    def fail(self, part, row, contestant, message):
        self.failures.append(
            {"part": part, "row": row, "contestant": contestant, "message": message}
        )
        self.say(f"{part}: {row}, {contestant} is out: {message}")

    def remember(self, part, contestant, what, idle, end, peak):
        """Memory of a process, KiB: before the first request, when it ends, and the most of it."""
        self.memory.append(
            {"part": part, "contestant": contestant, "what": what}
            | {"idle": idle, "end": end, "peak": peak}
        )

    def of(self, part, row=None, contestant=None):
        return [
            r
            for r in self.records
            if r["part"] == part
            and row in (None, r["row"])
            and contestant in (None, r["contestant"])
        ]

    def one(self, part, row, contestant):
        found = self.of(part, row, contestant)
        return found[0]["values"] if found else None

    def rows(self, part):
        return list(dict.fromkeys(r["row"] for r in self.records if r["part"] == part))

    def contestants(self, part):
        return list(dict.fromkeys(r["contestant"] for r in self.records if r["part"] == part))

    def save(self, path, machine):
        whole = {"machine": machine, "settings": self.settings.name, "runs": self.settings.runs}
        whole |= {"records": self.records, "failures": self.failures, "memory": self.memory}
        path.write_text(json.dumps(whole, indent=1) + "\n")
