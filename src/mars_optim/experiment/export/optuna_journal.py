"""The trials of a tuning by design as Optuna's own storage, for optuna-dashboard and the like.

It is made anew from the runs each time, whole or not at all. What a pilot tries next is computed
from its runs too (:mod:`..analysis.design`), never from this file.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

from ...errors import UserError, need
from ..analysis import Analysis, ArmResult
from ..analysis.best_of import Tuned
from ..plan.tuning import from_one

JOURNAL = "optuna.log"
"""In the pilot's folder."""


def write_journal(analysis: Analysis, out: Path) -> Path | None:
    """Write a study for each arm, by its name: its trials in order, and their values.

    A value is the loss, the metric that decides or the tokens to the target; a trial that missed
    the target has the user attribute ``reached`` false, and one that diverged has failed.

    Args:
        analysis: of the pilot.
        out: its folder.

    Returns:
        The file; None where Optuna is not installed or the rate alone is tuned.
    """
    arms = {arm.name: arm for arm in analysis.arms if arm.tuned}
    try:
        optuna = need("optuna", "tune") if arms else None
    except UserError:
        return None
    if optuna is None:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder) / JOURNAL
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        storage = optuna.storages.JournalStorage(backend)
        for name, arm in arms.items():
            up = arm.sign < 0 and arm.target is None
            study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize" if up else "minimize"
            )
            study.add_trials(_trials(optuna, arm))
        os.replace(path, out / JOURNAL)
    return out / JOURNAL


def _trials(optuna: Any, arm: ArmResult) -> list[Any]:
    tuned = arm.tuned
    assert tuned is not None
    columns = list(zip(*(values for values, _ in tuned.trials), strict=True))
    ranges = {
        name: optuna.distributions.FloatDistribution(
            min(column), max(column), log=min(column) > 0 and not from_one(name)
        )
        for name, column in zip(tuned.over, columns, strict=True)
    }
    return [_trial(optuna, tuned, i, ranges) for i in range(len(tuned.trials))]


def _trial(optuna: Any, tuned: Tuned, i: int, ranges: dict[str, Any]) -> Any:
    values, end = tuned.trials[i]
    found, reached = tuned.found[i], tuned.reached
    if reached is not None:
        end = None if found is None else math.exp(found)
    return optuna.trial.create_trial(
        params=dict(zip(tuned.over, values, strict=True)),
        distributions=ranges,
        value=end,
        state=optuna.trial.TrialState.FAIL if end is None else optuna.trial.TrialState.COMPLETE,
        user_attrs={} if reached is None else {"reached": reached[i]},
    )
