# SPDX-License-Identifier: Apache-2.0
"""Adds up JUnit files: a line for each suite, and one of all counts at the end.

The exit status is 1 where a test failed, where none ran, and with CI=true where one of a suite
that mounts was skipped.
"""

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

MOUNTING = ("mount", "mount-address", "mount-thread", "realdisk", "guest", "newer")


def count(path):
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    totals = [0, 0, 0]
    ok = True
    for path in sorted(Path(sys.argv[1]).glob("*.xml")):
        counts = count(path)
        totals = [a + b for a, b in zip(totals, counts)]
        print(f"{path.stem:16} {counts[0]:6} {counts[1]:6} failed {counts[2]:6} skipped")
        if counts[2] and path.stem in MOUNTING and os.environ.get("CI") == "true":
            print(f"{path.stem}: nothing may be skipped in CI")
            ok = False
        ok = ok and counts[1] == 0
    skips = f", {totals[2]} skipped" if totals[2] else ""
    print(f"\n{totals[0]} passed, {totals[1]} failed{skips}")
    return 0 if ok and totals[0] > 0 else 1


sys.exit(main())
