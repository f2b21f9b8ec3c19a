"""Learning rates that a canary tries are reached, and decide something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mars_optim.experiment.canary.continued as module
from mars_optim.errors import UserError
from mars_optim.experiment.canary import CanarySettings, canary
from mars_optim.experiment.canary.continued import lr_factor, multiple, ramp_within
from mars_optim.experiment.records import read_runs
from tests.support.continued_lines import QUICK, Lines, read, saved_run


def test_canary_tunes_lr_of_both_arms_on_a_separate_data_order(
    tmp_path: Path,
) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt"))
    settings = CanarySettings(**{**QUICK, "steps": 60}, lr_scales=(0.5, 1.0, 200.0))
    result = canary(Lines(), checkpoint, tmp_path, settings)
    data = json.loads((tmp_path / "canary.json").read_text())
    assert {len(trials) for trials in data["lr_trials"].values()} == {3}
    for arm, trials in data["lr_trials"].items():
        best = min(trials, key=trials.__getitem__)
        assert result.scales[arm] == float(best) < 200.0
    tuned = [r for r in read_runs(tmp_path / "runs") if r.spec.seed == 0]
    assert len(tuned) == 7
    for run in tuned:  # all come down to zero
        falls = run.rows[-1]["lr"] < 0.2 * max(row["lr"] for row in run.rows)
        assert falls or run.spec.arm_name == "adamw-history"


def test_canary_lr_ramps_up_holds_and_falls_to_zero() -> None:
    factors = [lr_factor(i, 100, decay=0.25, scale=3.0, ramp=20) for i in range(100)]
    assert factors[0] == pytest.approx(1.1)
    assert factors[19:75] == [3.0] * 56
    assert factors[75:] == pytest.approx([3.0 * k / 26 for k in range(25, 0, -1)])
    assert [lr_factor(i, 10, decay=0.0, scale=1.0, ramp=5) for i in range(10)] == [1.0] * 10


def test_a_ramp_leaves_half_of_the_steps_to_the_rate_itself(tmp_path: Path) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt", beta2=0.999))
    settings = CanarySettings(**{**QUICK, "steps": 60, "seeds": (1, 2)}, lr_scales=(4.0,))
    result = canary(Lines(), checkpoint, tmp_path, settings)
    runs = [r for r in read_runs(tmp_path / "runs") if r.spec.arm_name != "adamw-history"]
    for run in runs:
        rates = [row["lr"] for row in run.rows]
        assert max(rates) == pytest.approx(0.04)
        assert sum(rate == pytest.approx(0.04) for rate in rates) >= 60 * 0.75 / 2 - 1
    assert "a ramp of 2000 steps" in result.advice[1]
    assert "This canary's ramp had 22 steps" in result.advice[2]


@pytest.mark.parametrize("decay", [0.0, 0.25, 1.0])
def test_every_rate_is_reached_whatever_the_decay(decay: float) -> None:
    settings = CanarySettings(steps=50, decay=decay)
    for whole in (1, 40, 2000):
        ramp = ramp_within(whole, settings)
        assert 1 <= ramp <= whole
        factors = [lr_factor(i, 50, decay=decay, scale=4.0, ramp=ramp) for i in range(50)]
        assert max(factors) == (pytest.approx(4.0 * 50 / 51) if decay == 1.0 else 4.0)


def test_weights_decay_as_before_in_every_step_of_the_ramp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    step = module.Continuations._step

    def watched(self: Any, seed: int, at: int, model: Any, optimizer: Any) -> Any:
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["weight_decay"]))
        return step(self, seed, at, model, optimizer)

    monkeypatch.setattr(module.Continuations, "_step", watched)
    checkpoint = read(saved_run(tmp_path / "c.pt"))
    settings = CanarySettings(**{**QUICK, "steps": 60, "seeds": (1, 2)}, lr_scales=(4.0,))
    result = canary(Lines(), checkpoint, tmp_path, settings)
    mars = seen[100 + 60 : 100 + 120]
    assert all(lr * decay == pytest.approx(0.01 * 0.1) for lr, decay in mars[:45])
    assert mars[44] == pytest.approx((0.04, 0.025))
    assert [decay for _, decay in mars[45:]] == pytest.approx([0.025] * 15)
    assert multiple(0, scale=4.0, ramp=22) == pytest.approx(mars[0][0] / 0.01)
    assert "4 times AdamW's learning rate (0.04 now) and weight decay 0.025" in result.advice[0]
    assert "divide the weight decay by the multiple reached" in result.advice[1]


@pytest.mark.parametrize("scales", [(1.0, 2.0), (1.0, 1.0), (1.0, 2.0, 2.0), (1.0, 2.0, 4.0, 1.0)])
def test_rates_that_can_decide_nothing_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="must be one value, or three or more different ones"):
        CanarySettings(lr_scales=scales)
