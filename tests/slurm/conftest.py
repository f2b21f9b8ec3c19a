"""A real cluster for these tests, where they are asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, missing_programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them, unless asked for."""
    if os.environ.get("MARS_TEST_SLURM"):
        return
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason="starts a SLURM cluster: make test-slurm"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One node on loopback, without accounting."""
    assert not missing_programs(), f"not installed: {', '.join(missing_programs())}"
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets are in it
    try:
        with Cluster(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
