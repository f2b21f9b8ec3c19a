"""Parts of a forecast's width, taken away from its draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.forecast_parts import PARTS, VALLEY, Surprise, of_world, parts
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


@pytest.mark.parametrize(("tuned", "mean"), [("", 0.0), ("grid", VALLEY / 12), ("fit", 0.0)])
def test_a_grid_leaves_rates_beside_the_best(tuned: str, mean: float) -> None:
    rng = np.random.default_rng(3)
    rises = [Surprise(tuned=tuned).luck(1e-6, rng) for _ in range(4000)]
    assert min(rises) >= 0.0
    # offsets are uniform on +- half an octave: the mean of VALLEY octaves^2 is VALLEY / 12
    assert np.mean(rises) == pytest.approx(mean, rel=0.05, abs=1e-6)


def test_noisy_trials_cost_even_a_fit_something() -> None:
    rng = np.random.default_rng(4)
    assert np.mean([Surprise(tuned="fit").luck(0.01, rng) for _ in range(500)]) > 1e-4
