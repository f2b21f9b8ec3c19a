"""Arms of several tables, paired by seed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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


def test_all_arms_may_be_read_at_one_rate(
    tables: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*tables, "--tokens", "512", "--less", "a", "--rate", "0.016"])
    # 0.02 (1.2^2 - 0.7^2) - 0.05
    assert "| b | 0.016 | 2.1788 | -0.0310 (-0.0310 to -0.0310), n=3 |" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the arms with 512 tokens at 0.5 are none"):
        main([*tables, "--tokens", "512", "--less", "a", "--rate", "0.5"])


def test_an_arm_that_is_in_no_table_is_named(tables: list[str]) -> None:
    with pytest.raises(UserError, match="--less c: the arms with 512 tokens are a, b"):
        main([*tables, "--tokens", "512", "--less", "c"])


def test_arms_without_seed_1_and_diverged_runs_are_told(
    tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "c.csv"
    append(more, Row("late", 64, 2, 1000, 512, 2, 0.008, 2.0, "data"))
    for seed, loss in ((1, 2.0), (2, math.inf)):
        append(more, Row("lost", 64, 2, 1000, 512, seed, 0.008, loss, "data"))
    main([*tables, str(more), "--tokens", "512", "--less", "a", "--grid"])
    said = capsys.readouterr()
    assert said.err == "left out, since seed 1 was not run: late\n"
    assert "| lost | 0.008 | inf | -0.1018 +inf |" in said.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "other"}, "different tasks: data is data and other"),
        ({"width": 99}, "different tasks: width is 64 and 99"),
        ({"arm": "a", "loss": 9.0}, "a at 0.008, seed 1, 512 tokens has two losses, 2.10"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(
    tables: list[str], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    row = Row("c", 64, 2, 1000, 512, 1, 0.008, 2.0, "data")
    append(tmp_path / "c.csv", row._replace(**change))
    with pytest.raises(UserError, match=words):
        main([*tables, str(tmp_path / "c.csv"), "--tokens", "512", "--less", "a"])


def test_a_wall_beside_the_best_rate_is_no_parabola(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "a.csv"
    for arm, right in (("plain", 2.02), ("walled", 3.1)):
        for rate, loss in ((0.004, 2.05), (0.008, 2.0), (0.016, right)):
            for seed in (1, 2):
                append(table, Row(arm, 64, 2, 1000, 512, seed, rate, loss + 0.1 * seed, "data"))
    main([str(table), "--tokens", "512", "--less", "plain"])
    assert "| walled | 0.008 | 2.1500 |" in capsys.readouterr().out
