"""The records in benchmarks/data, and the tables that are made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.forecast_records import METHODS, Answer, answers, designs
from benchmarks.public_records import marin, observed, read_off
from benchmarks.public_runs import few_seeds, small_sizes


def test_a_ratio_is_read_off_a_power_law_beyond_its_last_rung() -> None:
    tokens = np.array([1e9, 2e9, 4e9, 8e9])
    ladder = dict(zip(tokens.tolist(), (2 + 300 * tokens**-0.3).tolist(), strict=True))
    loss = 2 + 300 * (8e9 * 1.3) ** -0.3
    assert read_off(ladder, loss, 8e9) == pytest.approx(math.log(1.3), abs=1e-6)
    assert read_off(ladder, 1.9, 8e9) == math.inf


def test_the_score_is_the_width_and_more_where_it_misses() -> None:
    inside, outside = (Answer((-2.0, -1.0, 0.0, 1.0, 2.0), truth) for truth in (0.5, 3.0))
    assert inside.score(0.95) == 4.0
    assert outside.score(0.95) == pytest.approx(4 + 2 / 0.05)
    assert outside.score(0.8) == pytest.approx(2 + 2 / 0.2 * 2)


def test_the_designs_leave_cells_of_every_arm_out() -> None:
    rows = marin()
    arms = {row.arm for row in rows}
    for keep in designs(rows).values():
        left = [row for row in rows if not keep(row)]
        assert {row.arm for row in left} == arms == {row.arm for row in rows if keep(row)}


def test_the_plain_rivals_forecast_every_cell() -> None:
    rows = marin()
    keep = designs(rows)["largest size"]
    for method in ("same ratio", "line in log N"):
        found = answers(rows, "adamw", keep, method)
        assert len(found) == 24
        assert all(np.all(np.diff(a.ends) > 0) for a in found)
    assert set(METHODS) == {"joint law", "same ratio", "line in log N", "law per arm"}


def test_muon_is_ahead_of_adamw_in_every_cell_of_the_record() -> None:
    ratios = observed(marin(), "adamw")
    assert all(1.05 < math.exp(v) < 1.7 for (arm, _, _), v in ratios.items() if arm == "muon")


def test_small_pilots_and_few_seeds_are_tables() -> None:
    assert small_sizes().count("\n") == 9
    assert few_seeds(50).count("\n") == 3
