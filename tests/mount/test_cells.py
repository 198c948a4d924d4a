# SPDX-License-Identifier: Apache-2.0
"""Every cell of the README's table of sources and views: one cp, and the disk is there."""

import os

import pytest

import cells
from fixtures import require_programs
from tools import run

COLUMNS = cells.column_names()
ROWS = [(key, row) for row in cells.table()[1] for key in cells.keys_of(row)]


def view_in(mount, key, source, view):
    """Where the view of the source is, beneath the mount."""
    directory = mount.point / source.parent.name if source.parent.suffix == ".ova" else mount.point
    stem = source.name.split(".")[0] + ("@before" if key == "snapshot" else "")
    return directory / f"{stem}.{view}"


@pytest.mark.parametrize("key,row", ROWS, ids=[key.replace(" ", "-") for key, _ in ROWS])
def test_a_row(datastore, mount, disk, tmp_path, key, row):
    require_programs("7z", "vmdkinfo", "vhdiinfo", "qcowinfo", "qemu-img")
    source = cells.ROWS[key](datastore, disk)
    options = cells.OPTIONS.get(key, [])
    views = mount(datastore, "views=" + ":".join(COLUMNS), *options)
    for number, view in enumerate(COLUMNS):
        path = view_in(views, key, source, view)
        out = tmp_path / path.name
        run("cp", path, out)
        if view == "flat.vmdk":
            extent = f"{path.name[: -len('.vmdk')]}-flat.vmdk"
            run("cp", path.with_name(extent), tmp_path / extent)
        as_is = out.read_bytes() == cells.original(source).read_bytes()
        if row[1 + number] == "as is":
            assert as_is
        cells.judge(out, view, disk)
        if not as_is:
            cells.second(out, view, disk)
        os.unlink(out)


def test_the_table_names_every_view_and_source(imgfs):
    lines = run(imgfs, "--help").out.splitlines()
    of = {line.split(":")[0].strip(): line.split(":")[1].split() for line in lines if ":    " in line
          or line.startswith("    views:") or line.startswith("    sources:")}
    assert set(COLUMNS) == set(of["views"]) == set(cells.COLUMNS)
    assert {key for key, _ in ROWS} == set(cells.ROWS)
    text = " ".join(row[0] for row in cells.table()[1]).lower()
    for source in of["sources"]:
        assert {"qcow": "qcow1"}.get(source, source) in text, source
    assert all(cell in ("yes", "as is") for _, row in ROWS for cell in row[1:])
