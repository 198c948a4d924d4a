# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest

import images
from fixtures import *  # noqa: F401,F403
from fixtures import SANITIZER, mounter, require_programs


def pytest_configure(config):
    config.addinivalue_line("markers", "plain: not of a program that is built with a sanitizer")


def pytest_collection_modifyitems(config, items):
    """What a sanitizer cannot run is left out, not skipped: the other runs have it."""
    kept = [item for item in items if not (SANITIZER and item.get_closest_marker("plain"))]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    require_programs("qemu-img")
    return images.Disk(tmp_path_factory.mktemp("disk") / "disk.raw")


@pytest.fixture(scope="session")
def sample(imgfs, disk, tmp_path_factory):
    """The sample disk as every source, mounted: .disk, .datastore, .mount. Not to be changed."""
    base = tmp_path_factory.mktemp("sample")
    datastore = base / "datastore"
    datastore.mkdir()
    images.fill(datastore, disk)
    for mount in mounter(imgfs, base):
        yield SimpleNamespace(disk=disk, datastore=datastore, mount=mount(datastore))


@pytest.fixture
def datastore(tmp_path):
    directory = tmp_path / "datastore"
    directory.mkdir()
    return directory
