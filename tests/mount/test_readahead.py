# SPDX-License-Identifier: Apache-2.0
"""How much the kernel asks for at a time, and ahead of whoever reads."""

import os
from pathlib import Path

import pytest

from fixtures import plain_only
from tools import KIB, MIB


def setting(point):
    device = os.stat(point).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
    return int((bdi / "read_ahead_kb").read_text()) * KIB


def test_what_cp_asks_for(sample):
    assert os.stat(sample.mount / "plain.vmdk").st_blksize == MIB


@pytest.mark.parametrize("args", [[], ["-s"]], ids=["threads", "one-thread"])
def test_ahead(datastore, mount, args):
    """Several requests at a time: the kernel's own setting would be a part of one."""
    (datastore / "a.raw").write_bytes(bytes(MIB))
    views = mount(datastore, args=args)
    assert setting(views.point) == 4 * MIB
    assert views.unmount() == 0


@plain_only  # who unmounts for us does not free what libfuse has of the mount
@pytest.mark.parametrize("options", [["sandbox=off"], ["run_as=nobody"]])
def test_ahead_whoever_serves(datastore, mount, options):
    os.chmod(datastore, 0o755)
    (datastore / "a.raw").write_bytes(bytes(MIB))
    views = mount(datastore, *options)
    assert setting(views.point) == 4 * MIB
