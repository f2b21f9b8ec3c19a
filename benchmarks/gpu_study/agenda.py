"""Which run is next, and at which rate: a function of what is finished, and of nothing else.

First every arm's short runs on one and the same grid of rates; an arm whose lowest loss lies at an
end of it gets one rate more beyond that end. Then long runs, seed by seed, all arms of a seed
before the next one's. Late arms begin, in the same order, when the others have their early seeds;
what is left of the seeds comes after, for all.

A long run's rate is the one with the least expected regret by the package's fit over the short runs
(`rate_fit`), times (long / short) ** horizon_exponent, the same for every arm: the best rate falls
with the tokens to the power -0.32 under AdamW (Bjorck et al. 2025, arXiv 2409.19913) and under an
orthogonalising rule (arXiv 2603.28743).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mars_optim.experiment.analysis.rate_fit import Observation, fit_rate
from mars_optim.experiment.plan import RunSpec

from .plan import StudyPlan

MOST_TRIES = 2
"""Most tries of a run that fails."""
SHORT_SEED = 0

Rows = Mapping[str, Mapping[str, Any]]
"""Facts of each run, by its name."""


def next_run(plan: StudyPlan, data: str, rows: Rows) -> RunSpec | None:
    """The first run that is not settled; None when all are.

    Args:
        plan: of the study.
        data: fingerprint of the text.
        rows: of the runs so far.
    """
    design = plan.design
    first = [name for name in plan.arms if name not in design.late]
    late = [name for name in plan.arms if name in design.late]
    few = min(design.early_seeds, design.seeds)
    for names, seeds in ((first, few), (late, few), (list(plan.arms), design.seeds)):
        for spec in _stage(plan, names, seeds, data, rows):
            if not settled(rows.get(spec.run_id)):
                return spec
    return None


def _stage(
    plan: StudyPlan, names: Sequence[str], seeds: int, data: str, rows: Rows
) -> Iterator[RunSpec]:
    """Short runs of these arms, then their long runs; the first that is not settled counts."""
    for name in names:
        for lr in wanted_rates(plan, short_losses(plan, name, data, rows)):
            yield plan.spec(name, lr, SHORT_SEED, plan.design.short_steps, data)
    rates = long_rates(plan, data, rows)
    for seed in range(1, seeds + 1):
        for name in names:
            if name in rates:
                yield plan.spec(name, rates[name], seed, plan.design.long_steps, data)


def settled(row: Mapping[str, Any] | None) -> bool:
    """Whether a run has come to an end, or failed as often as it may."""
    if row is None:
        return False
    return row["status"] in ("finished", "diverged") or row["tries"] >= MOST_TRIES


def short_losses(plan: StudyPlan, name: str, data: str, rows: Rows) -> dict[float, float | None]:
    """An arm's settled short runs, by rate; None for one without a loss."""
    grid, factor = plan.design.rates, plan.factor
    most = plan.design.most_rates
    lower = [_rounded(grid[0] / factor**i) for i in range(most, 0, -1)]
    higher = [_rounded(grid[-1] * factor**i) for i in range(1, most + 1)]
    losses: dict[float, float | None] = {}
    for lr in (*lower, *grid, *higher):
        row = rows.get(plan.spec(name, lr, SHORT_SEED, plan.design.short_steps, data).run_id)
        if row is not None and settled(row):
            losses[lr] = row.get("final_loss")
    return losses


def wanted_rates(plan: StudyPlan, losses: Mapping[float, float | None]) -> list[float]:
    """The rates at which an arm's short runs are made, as far as its losses tell."""
    rates = list(plan.design.rates)
    while all(lr in losses for lr in rates) and len(rates) < plan.design.most_rates:
        lowest = min(rates, key=lambda lr: _or_infinite(losses[lr]))
        if lowest == rates[-1]:
            rates.append(_rounded(rates[-1] * plan.factor))
        elif lowest == rates[0]:
            rates.insert(0, _rounded(rates[0] / plan.factor))
        else:
            break
    return rates


def fitted_rate(losses: Mapping[float, float | None], factor: float) -> float | None:
    """Best rate of the short runs; None where fewer than two rates have a loss."""
    trials: list[Observation] = [(lr, SHORT_SEED, loss) for lr, loss in sorted(losses.items())]
    fit = fit_rate(trials, factor)
    return None if fit is None else fit.best


def long_rates(plan: StudyPlan, data: str, rows: Rows) -> dict[str, float]:
    """The rate of each arm's long runs; arms whose short runs tell none are left out."""
    longer = plan.design.long_steps / plan.design.short_steps
    scale = longer**plan.design.horizon_exponent
    found = {n: fitted_rate(short_losses(plan, n, data, rows), plan.factor) for n in plan.arms}
    return {name: _rounded(lr * scale) for name, lr in found.items() if lr is not None}


def _rounded(lr: float) -> float:
    """To three digits, so that a run has the same name on every machine."""
    return float(f"{lr:.3g}")


def _or_infinite(loss: float | None) -> float:
    return math.inf if loss is None else loss
