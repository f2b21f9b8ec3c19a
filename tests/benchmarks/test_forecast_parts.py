"""Parts of a forecast's width, taken away from its draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.forecast_parts import PARTS, Surprise, of_world, parts
from benchmarks.simulated_forecasts import World
from mars_optim.experiment.scaling.forecast import posterior
from mars_optim.experiment.scaling.table import table
from tests.support.scaling_worlds import SIZES, rows


@pytest.mark.slow
def test_the_bend_beyond_counts_beyond_the_largest_size_only() -> None:
    known = table(rows({"arm": 0.2}, lengths=(1.0, 2.0)), "base")
    inside, outside = (SIZES[1], 40 * SIZES[1]), (4 * SIZES[-1], 80 * SIZES[-1])
    found = parts(known, posterior(known), [inside, outside])
    assert set(found) == set(PARTS)
    widths = {name: np.ptp(np.quantile(x, (0.025, 0.975), axis=0), axis=0)[:, 0]
              for name, x in found.items()}  # fmt: skip
    assert widths["no bend beyond"][0] == pytest.approx(widths["all"][0])
    assert widths["no bend beyond"][1] < widths["bend beyond halved"][1] < widths["all"][1]
    assert (widths["no luck"] < widths["all"]).all()


@pytest.mark.slow
def test_surprises_move_the_truth_and_not_the_law() -> None:
    design = (0.001, 2, 2, 2)
    plain, bent = (
        of_world(World.draw("same gain", np.random.default_rng(1)), design,
                 np.random.default_rng(2), surprise)
        for surprise in (Surprise(), Surprise(bend=0.5))
    )  # fmt: skip
    assert [a.ends for a in plain["all"]] == [a.ends for a in bent["all"]]
    moved = [abs(a.truth - b.truth) for a, b in zip(plain["all"], bent["all"], strict=True)]
    assert min(moved) > 0.01
