"""How much each tuned setting matters for a low loss, by Optuna's PED-ANOVA.

From an arm's trials alone: the variance of the density of the best trials over a setting's range,
shared out among the settings (Watanabe et al., 2023).
"""

from __future__ import annotations

import math

from ...errors import UserError, need
from ..plan.tuning import from_one
from .best_of import Tuned

BEST = 0.25
"""Share of an arm's trials that count as its best ones."""
LEAST = 8
"""Trials that did not diverge; with fewer, nothing is told."""


def importances(tuned: Tuned) -> dict[str, float] | None:
    """Share of each setting, in the order of ``over``; None without Optuna or enough trials."""
    try:
        optuna = need("optuna", "tune")
    except UserError:
        return None
    trials = zip(tuned.trials, tuned.found, strict=True)
    finite = [(values, loss) for (values, _), loss in trials if loss is not None]
    moving = [i for i in range(len(tuned.over)) if len({values[i] for values, _ in finite}) > 1]
    if len(finite) < LEAST or len({loss for _, loss in finite}) < 2 or len(moving) < 2:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, scaled = optuna.create_study(), {}
    for i in moving:
        scaled[tuned.over[i]] = _logs(tuned.over[i], [values[i] for values, _ in finite])
    ranges = {
        name: optuna.distributions.FloatDistribution(min(column), max(column))
        for name, column in scaled.items()
    }
    for row, (_, loss) in enumerate(finite):
        params = {name: column[row] for name, column in scaled.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=loss))
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
    )
    return {name: float(found.get(name, 0.0)) for name in tuned.over}


def _logs(name: str, values: list[float]) -> list[float]:
    """A setting as its range is even in it."""
    return [math.log(1 - value if from_one(name) else value) for value in values]
