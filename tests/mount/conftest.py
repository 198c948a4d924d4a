# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest

import images
from fixtures import *  # noqa: F401,F403
from fixtures import mounter, require_programs


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
