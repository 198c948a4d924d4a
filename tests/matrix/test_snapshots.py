# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots of a qcow2 against two ways in which qemu-img gets at them: `convert -l`, and
`snapshot -a` on a copy of the image.

The first forgets how large the disk was: it gives a snapshot the size that the disk has now, so
only what both have of it is compared. The second gives it its own size.
"""

import shutil

import pytest
import shapes
import sources
from tools import REFUSED, assert_same, first_difference, qemu_img

CASES = [
    (variant.name, shape)
    for variant, shape in sources.cases()
    if variant.name.startswith("qcow2-at-snapshot") and shape in (shapes.TAIL, shapes.FRAG)
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def stored(request, tmp):
    return sources.make(tmp, *request.param)


@pytest.fixture
def raw(viewcat, stored, tmp):
    viewcat.of(stored, "copy", "raw", tmp / "raw")
    return tmp / "raw"


def same_as_far_as_both_go(one, other):
    both = min(one.stat().st_size, other.stat().st_size)
    at = first_difference(one, other)
    return at is None or at >= both


def test_it_is_what_qemu_img_goes_back_to(stored, raw, tmp):
    shutil.copytree(stored.root, tmp / "copy")
    qemu_img("snapshot", "-a", "then", stored.file.name, cwd=tmp / "copy")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", stored.file.name, tmp / "theirs", cwd=tmp / "copy")
    assert_same(raw, tmp / "theirs")
    assert_same(raw, stored.expected)


def test_it_is_what_qemu_img_converts(stored, raw, tmp):
    qemu_img("convert", "-l", "snapshot.name=then", "-O", "raw", stored.file.name, tmp / "theirs", cwd=stored.root)
    assert same_as_far_as_both_go(raw, tmp / "theirs")


def test_it_is_not_the_active_state(stored, raw, tmp):
    """Else the tests above would show nothing."""
    qemu_img("convert", "-f", "qcow2", "-O", "raw", stored.file.name, tmp / "active", cwd=stored.root)
    assert not same_as_far_as_both_go(raw, tmp / "active")


def test_the_active_state_is_as_ever(viewcat, stored, tmp):
    qemu_img("convert", "-f", "qcow2", "-O", "raw", stored.file.name, tmp / "theirs", cwd=stored.root)
    viewcat.run(stored.root, stored.file.name, "copy", "raw", tmp / "ours", options=stored.options)
    assert_same(tmp / "ours", tmp / "theirs")


def test_those_that_are_not_there(viewcat, stored):
    for name in ("now", "THEN", "then ", "2", ""):
        done = viewcat.run(stored.root, f"{stored.file.name}//{name}", "info", expect=REFUSED)
        assert done.stderr.startswith("refused: ENOENT: it has no snapshot ")
    done = viewcat.run(stored.root, stored.path, "info")
    assert done.stdout.startswith("format qcow2\n")


def test_other_formats_have_none(viewcat, tmp):
    """Some have ways of their own to keep an older state, which are files, not tables."""
    for name in ("raw", "vmdk-sparse", "vdi-static"):
        (tmp / name).mkdir()
        stored = sources.make(tmp / name, name, shapes.TAIL)
        done = viewcat.run(stored.root, f"{stored.path}//then", "info", expect=REFUSED)
        assert done.stderr == "refused: ENOENT: it has no snapshot 'then'\n"
