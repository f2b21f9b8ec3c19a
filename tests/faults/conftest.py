"""Pilots of a pretended job, in real processes, that can be hurt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hurt import Pilot


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[Pilot]:
    """A pilot on a fresh folder; what is left of it ends with the test."""
    made = Pilot(tmp_path / "pilot")
    yield made
    made.end()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    """A pilot that nothing happened to."""
    made = Pilot(tmp_path_factory.mktemp("undisturbed") / "pilot")
    done = made.run()
    assert done.returncode == 0, done.stderr + done.stdout
    return made
