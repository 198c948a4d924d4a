# SPDX-License-Identifier: Apache-2.0
"""Many images, changed and read for a while; scripts/soak does it for longer."""

import soaking
from fixtures import require_programs

SECONDS = 36


def test_nothing_grows(datastore, mount, tmp_path):
    """Memory and descriptors of the last quarter are those of the second one, and every byte that
    was read is of the one state of its image."""
    require_programs("qemu-img", "qemu-io")
    (tmp_path / "scratch").mkdir()
    store = soaking.Datastore(datastore, soaking.Templates(tmp_path / "scratch"))
    views = mount(datastore, *soaking.OPTIONS)
    samples, total, changes = soaking.soak(views, store, SECONDS)
    assert not soaking.problems_of(samples, total, views), (str(samples), total.counts)
    assert total["good"] > 1000 and total["ESTALE"] > 10, total.counts
    assert min(changes.values()) > 50, changes
    assert max(samples.descriptors) < 512
