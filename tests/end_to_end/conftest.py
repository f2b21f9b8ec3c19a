"""Small pilots in folders of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_pilot import Pilot


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text enough for a small pilot: the package's own sources in one file."""
    import mars_optim

    sources = sorted(Path(mars_optim.__file__).parent.rglob("*.py"))
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(source.read_text(encoding="utf-8") for source in sources))
    return path


@pytest.fixture(scope="session")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    """A pilot that ran through; its output is kept beside it."""
    pilot = Pilot(tmp_path_factory.mktemp("undisturbed") / "pilot", corpus)
    done = pilot.run()
    assert done.returncode == 0, done.stderr
    (pilot.out / "stdout.txt").write_text(done.stdout)
    (pilot.out / "stderr.txt").write_text(done.stderr)
    return pilot


@pytest.fixture
def new_pilot(corpus: Path, tmp_path: Path) -> Callable[[], Pilot]:
    """Makes a pilot on a fresh folder."""
    return lambda: Pilot(tmp_path / "pilot", corpus)
