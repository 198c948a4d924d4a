# SPDX-License-Identifier: Apache-2.0
import os
from types import SimpleNamespace

import pytest

import images
from fixtures import *  # noqa: F401,F403
from fixtures import SANITIZER, has_feature, mounter, require_programs


def pytest_configure(config):
    config.addinivalue_line("markers", "plain: not of a program that is built with a sanitizer")
    config.addinivalue_line("markers", "feature(name): of a program that is built with it")
    config.addinivalue_line("markers", "lacks(name): of a program that is built without it")


def can_run(item):
    if SANITIZER and item.get_closest_marker("plain"):
        return False
    needs, lacks = item.get_closest_marker("feature"), item.get_closest_marker("lacks")
    if needs and not has_feature(needs.args[0]):
        return os.environ.get("IMGFS_NEWER") == "1"
    return not (lacks and has_feature(lacks.args[0]))


def pytest_collection_modifyitems(config, items):
    """What a sanitizer cannot run, or what libfuse is too old for, is left out, not skipped: the
    other runs have it. scripts/newer is the one for a newer libfuse, where nothing may lack."""
    kept = [item for item in items if can_run(item)]
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
