"""A plan with a price, and its forecast, for what a budget buys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mars_optim.experiment.pilot.forecast import Forecast
from mars_optim.experiment.pilot.pair_noise import Noise
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.pilot.retries import Timing
from mars_optim.experiment.pilot.worth import Prior
from mars_optim.experiment.plan.cost import CostPlan
from tests.support.pretend import small_plan

PLAN = replace(
    small_plan(arms=("adamw", "mars-adamw"), steps=1000),
    cost=CostPlan(price_per_hour=2.0, planned_hours=5000.0),
)
TIMINGS = {("main", arm): Timing(0.5) for arm in PLAN.arms}
BROAD = Prior(mean=0.0, sd=0.2)


def forecast(
    noise: float | None = 0.03, rates: float | None = 0.01, ratio: float | None = 1.0
) -> Forecast:
    row: dict[str, Any] = dict(ratio=ratio, ratio_low=ratio, ratio_high=ratio)
    row |= dict(seconds=0.5, outside=0.0, state_bytes=8)
    known = 0.0 if noise is None else noise
    return Forecast(
        price=price(PLAN, TIMINGS, workers=1),
        left=None,
        probe=dict.fromkeys(PLAN.arms, row),
        parameters=1,
        tokens_per_step=1,
        noise=Noise(sd=noise, low=known, high=known, pairs=4, source="runs", rates=rates),
        seeds=(),
        published=(),
        timings=TIMINGS,
    )
