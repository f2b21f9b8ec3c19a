"""The tuning seed as a pair: the losses that the fits of its trials give at the chosen rates.

Each trial is a run of the tuning seed, and the fit of an arm's trials (:mod:`.rate_fit`) says what
that seed ends with at the rate of the comparison. Its noise is not that of one run. Student's
interval of normal values with unequal variances holds with at least its confidence from 92 % on
(Ibragimov and Müller 2010, after Bakirov and Székely 2005), so the pair counts as any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .choice import fit_of

if TYPE_CHECKING:
    from .compared import Comparison


def losses(at: Comparison, arm: str) -> tuple[float, float] | None:
    """Losses of the baseline and of an arm on the tuning seed, at the rates of the comparison.

    Returns:
        None without a comparison or without a fit of both, and where the plan does not ask for it.
    """
    if not at.plan.trials_pair or arm == at.plan.comparison.baseline:
        return None
    both = [_loss(at, name) for name in (at.plan.comparison.baseline, arm)]
    return None if None in both else (both[0], both[1])  # type: ignore[return-value]


def _loss(at: Comparison, arm: str) -> float | None:
    unit = at.size.steps(1.0)
    rates = (r.spec.lr for (name, _, n), r in at.compared.items() if (name, n) == (arm, unit))
    lr, fit = next(rates, None), fit_of(at, arm)
    return fit.loss(lr) if fit and lr else None
