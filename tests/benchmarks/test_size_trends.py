"""The tables of the ladder of sizes: ratios and trends of a law that is known."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.size_trends import cells_of, difference, longer, noise_of, ratio, report, trend
from benchmarks.study_runs import Row

SIZES = (11_000, 35_000, 119_000, 337_000)
LENGTHS = (3, 12, 48)
SIZE, LENGTH = 0.08, -0.05  # of the log ratio, for each e-fold
POWER = 0.12


def log_ratio(parameters: float, length: float) -> float:
    return 0.2 + SIZE * math.log(parameters / SIZES[0]) + LENGTH * math.log(length / 3)


def row(arm: str, parameters: int, length: int, seed: int = 1) -> Row:
    """AdamW's loss is a power of the tokens; muon's is AdamW's at more tokens."""
    tokens = parameters * length
    more = math.exp(log_ratio(parameters, length)) if arm == "muon" else 1.0
    loss = 9.0 * (tokens * more) ** -POWER + 0.001 * (seed - 1) * (arm == "muon")
    return Row(arm, 16, 2, parameters, tokens, seed, 0.01, loss, "text")


def rows(seeds: int = 1) -> list[Row]:
    every = itertools.product(("adamw", "muon"), SIZES, LENGTHS, range(1, seeds + 1))
    return [row(*one) for one in every]


def test_ratio_of_small_gains_is_read_to_first_order() -> None:
    for cell in cells_of(rows(), "adamw"):
        if cell.arm == "muon":
            size, tokens = cell.place
            assert cell.log_ratio == pytest.approx(log_ratio(size, tokens / size), rel=0.06)


def test_trends_with_size_and_length_are_told_apart() -> None:
    found = trend(cells_of(rows(), "adamw"), "muon")
    assert found is not None
    assert found.size.mean == pytest.approx(SIZE * math.log(10), rel=0.06)
    assert found.length.mean == pytest.approx(LENGTH * math.log(10), rel=0.06)
    assert found.size_alone.mean == pytest.approx((SIZE - LENGTH) * math.log(10), rel=0.06)
    for part in found[:3]:
        assert part.low < part.mean < part.high  # type: ignore[union-attr]


def test_one_length_or_two_cells_tell_no_trend() -> None:
    one = [r for r in rows() if r.tokens == 3 * r.parameters]
    assert trend(cells_of(one, "adamw"), "muon") is None
    two = [r for r in rows() if r.parameters == SIZES[0]][:2] + rows()[12:14]
    assert trend(cells_of(two, "adamw"), "muon") is None


def test_interval_of_a_cell_is_students_t_of_its_pairs() -> None:
    cells = cells_of(rows(3), "adamw")
    cell = next(c for c in cells if c.arm == "muon")
    told = difference(cell, noise_of(cells, cell))
    half = 4.302652729911275 * 0.001 / math.sqrt(3)
    assert told.high - told.mean == pytest.approx(half, rel=1e-9)
    falls = ratio(cell, noise_of(cells, cell))
    assert falls.low < falls.mean < falls.high


def test_a_cell_of_one_pair_takes_the_smaller_sizes_noise() -> None:
    some = [r for r in rows(3) if r.parameters < SIZES[-1] or r.seed == 1]
    cells = cells_of(some, "adamw")
    cell = cells[-1]
    assert (cell.place[0], len(cell.differences)) == (SIZES[-1], 1)
    noise = noise_of(cells, cell)
    assert noise is not None
    assert noise.sd == pytest.approx(0.001)
    alone = [c for c in cells if c.place[0] == SIZES[-1]]
    assert noise_of(alone, cell) is None
    assert "(" not in difference(cell, None).shown()


@pytest.mark.parametrize("count", range(0, 25, 3))
def test_tables_of_an_unfinished_study_are_shown(count: int) -> None:
    answer = {"token_ratio": {"mean": 1.3, "low95": 1.1, "high95": 1.5}}
    foretold = [
        {
            "target": {"parameters": float(SIZES[-1]), "tokens": 3.0 * SIZES[-1]},
            "arms": {"muon": answer, "lion": {"refusal": "one size only"}},
        }
    ]
    text = report(rows()[:count], "adamw", foretold)
    assert "nan" not in text
    if count:
        assert "1.30 (1.10 to 1.50)" in text
        assert "refused: one size only" in text
    else:
        assert text == "no runs yet\n"


def test_change_by_length_is_paired_by_seeds() -> None:
    found = longer(cells_of(rows(3), "adamw"), "muon")
    assert len(found) == len(SIZES) * 2
    for one, other, change in found:
        assert (one[0], round(other[1] / one[1])) == (other[0], 4)
        assert change.mean == pytest.approx(LENGTH * math.log(4), abs=0.02)
        assert change.low < change.mean < change.high
    alone = [r for r in rows(3) if r.seed == 1 or r.tokens != 12 * r.parameters]
    assert longer(cells_of(alone, "adamw"), "muon") == []


def test_short_runs_can_be_left_out_of_the_trend() -> None:
    text = report(rows(), "adamw", trend_from=48 * SIZES[0])
    (line,) = [line for line in text.splitlines() if line.startswith("| muon |")]
    assert line.endswith("| 7 |")
    assert f"| {SIZES[0]:,} | 3 | muon |" in text


def test_a_diverged_run_is_shown_and_is_in_no_trend() -> None:
    some = [r._replace(loss=math.inf) if i == 13 else r for i, r in enumerate(rows())]
    assert "inf" in report(some, "adamw")
    found = trend(cells_of(some, "adamw"), "muon")
    assert found is not None
    assert found.cells == 11
