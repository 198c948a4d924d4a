# SPDX-License-Identifier: Apache-2.0
"""run.py [--quick] [--output DIRECTORY] IMGFS PASSTHROUGH [PART...]: measures, and reports."""

import argparse
import importlib
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import charts
import machine
import mounting
import report
from prepare import Images
from results import Results
from servers import Place
from settings import MIB, PARTS, Settings, quick


def arguments():
    parser = argparse.ArgumentParser(prog="bench", usage="bench [--quick] [--disk MIB] [PART...]")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--disk", type=int, metavar="MIB", help="of files that are on the disk")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("imgfs")
    parser.add_argument("passthrough")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    given = parser.parse_intermixed_args()
    for part in given.parts:
        if part not in PARTS:
            parser.error(f"no part {part}; there are: {', '.join(PARTS)}")
    return given


def clean(directory):
    """Whatever a part that failed has left mounted."""
    for info in reversed(mounting.all_mounts()):
        if info.point.startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", info.point], capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)


def measure(given, settings, results):
    failed = False
    images = Images(given.output, settings, results)
    for part in given.parts or settings.parts:
        directory = Path(tempfile.mkdtemp(prefix="work-", dir=given.output))
        try:
            place = Place(directory, given.imgfs, given.passthrough, results)
            importlib.import_module(f"part_{part}").run_part(place, images, settings)
        except Exception as e:  # the other parts are measured all the same
            results.fail(part, "all that is not in the tables", "this benchmark", repr(e))
            failed = True
        finally:
            clean(directory)
    return failed


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given.output = given.output.resolve()
    given.output.mkdir(parents=True, exist_ok=True)
    settings = quick() if given.quick else Settings()
    if given.disk:
        settings.disk_bytes = given.disk * MIB
    results = Results(settings)
    words = ["sudo scripts/bench", *(["--quick"] if given.quick else [])]
    words += ["--disk", str(given.disk)] if given.disk else []
    words += given.parts
    about = machine.describe(given.imgfs, given.output, " ".join(words))
    failed = measure(given, settings, results)

    results.save(given.output / "results.json", about)
    drawn = charts.draw(results, given.output)
    report.write(given.output / "results.md", results, about, drawn)
    print("\n".join(report.headline_table(results)))
    print(f"{given.output}/results.md has all of it; so have results.json and {', '.join(drawn)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
