"""Arms of several tables, paired by seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.length_pairs import main
from benchmarks.output import UserError
from benchmarks.study_runs import Row, append


def write(path: Path, arm: str, place: float, level: float) -> None:
    """A parabola in octaves about ``place``, three seeds a tenth apart."""
    for octave in range(1, 6):
        for seed in (1, 2, 3):
            loss = level + 0.1 * seed + 0.02 * (octave - place) ** 2
            append(path, Row(arm, 64, 2, 1000, 512, seed, 1e-3 * 2.0**octave, loss, "data"))


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, arm, place, level in zip(paths, "ab", (3.3, 2.8), (2.0, 1.95), strict=True):
        write(path, arm, place, level)
    return list(map(str, paths))


def test_arms_of_two_tables_are_paired(
    tables: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*tables, "--tokens", "512", "--less", "a"])
    assert "| b | 0.008 | 2.1500 | -0.0500 (-0.0500 to -0.0500), n=3 |" in capsys.readouterr().out
    main([*tables, "--tokens", "512", "--less", "a", "--grid"])  # 0.02 (0.2^2 - 0.3^2) less
    assert "| b | 0.008 | 2.1508 | -0.0510 (-0.0510 to -0.0510), n=3 |" in capsys.readouterr().out


def test_an_arm_that_is_in_no_table_is_named(tables: list[str]) -> None:
    with pytest.raises(UserError, match="--less c: the arms with 512 tokens are a, b"):
        main([*tables, "--tokens", "512", "--less", "c"])
