"""Results that cannot be what they seem, on which no decision rests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..plan.decision import LOSS
from .arm_model import ArmResult, Curve
from .model import Finding, Verdict

SPREAD = 1e-6
"""Spread of the pairs' differences, relative to the loss: below, they differ by rounding only."""

_DIGITS = 7
"""Digits of a loss that two different runs hardly share by chance."""


@dataclass(frozen=True, slots=True)
class _Result:
    arm: str
    seed: int
    loss: float
    curve: Curve | None


def refusal(baseline: ArmResult, candidate: ArmResult, missing: int) -> Verdict | None:
    """The verdict on results that are no evidence; None if they are.

    Args:
        baseline: the arm in use today.
        candidate: the arm that is judged.
        missing: runs of the two that have not finished.
    """
    found = untrusted(baseline, candidate)
    if not found:
        return None
    return Verdict(
        decision="not-enough-runs",
        findings=tuple(found),
        reasons=(Finding("reason.goes-on"),) if missing else (),
        pairs_needed=None,
        trusted=False,
    )


def untrusted(baseline: ArmResult, candidate: ArmResult) -> list[Finding]:
    """Reasons why these results are no evidence, for or against the candidate.

    Runs that are the same run under two seeds or two arms (the job ignores what should tell them
    apart); pairs that all differ by one number, which no training does; a baseline that diverged
    in all its runs; a candidate that diverged only where the baseline did, too.

    Args:
        baseline: the arm in use today.
        candidate: the arm that is judged.
    """
    if gone := _diverged(baseline, candidate):
        return [gone]
    if stuck := [_one_loss(arm) for arm in (baseline, candidate) if _ignores_rate(arm)]:
        return stuck
    rising = candidate.target is None and candidate.slope is None
    if candidate.log_ratio is not None and candidate.regret and rising:
        return [Finding("trust.rising-ladder", dict(baseline=baseline.name))]
    results = [*_results(baseline), *_results(candidate)]
    same = [pair for i, a in enumerate(results) for b in results[:i] if (pair := _same(b, a))]
    found = _alike(same, results)
    if found or candidate.diverged or candidate.log_ratio is None:
        return found  # no decision rests on the spread
    return _without_spread(baseline, candidate)


def _diverged(baseline: ArmResult, candidate: ArmResult) -> Finding | None:
    lost = [{s.seed for s in arm.seeds if s.loss is None} for arm in (baseline, candidate)]
    if baseline.seeds and len(lost[0]) == len(baseline.seeds):
        both = bool(candidate.seeds) and len(lost[1]) == len(candidate.seeds)
        values: dict[str, str | int | float] = dict(
            baseline=baseline.name, candidate=candidate.name, runs=len(baseline.seeds)
        )
        return Finding(f"trust.{'both' if both else 'baseline'}-diverged", values)
    if lost[1] and lost[1] <= lost[0]:
        values = dict[str, str | int | float](
            baseline=baseline.name, candidate=candidate.name, seeds=_seeds(lost[1])
        )
        return Finding("trust.same-seeds-diverged", values)
    return None


def _ignores_rate(arm: ArmResult) -> bool:
    """Whether three rates or more gave one loss."""
    losses = {t.loss for t in arm.trials}
    if len({t.lr for t in arm.trials}) < 3 or len(losses) > 1:
        return False
    loss = losses.pop()
    # a share of few examples may be the same by chance
    return loss is not None and (arm.metric == LOSS or not _is_coarse(loss))


def _one_loss(arm: ArmResult) -> Finding:
    rates = {t.lr for t in arm.trials}
    return Finding("trust.equal-rates", dict(arm=arm.name, trials=len(rates)))


def _results(arm: ArmResult) -> list[_Result]:
    curves = {curve.seed: curve for curve in arm.curves}
    return [
        _Result(arm.name, s.seed, s.loss, curves.get(s.seed))
        for s in arm.seeds
        if s.loss is not None
    ]


def _same(a: _Result, b: _Result) -> tuple[_Result, _Result] | None:
    """The two, if their losses are equal and not just rounded to the same few digits."""
    if a.loss != b.loss:
        return None
    apart = a.curve and b.curve and _points(a.curve) != _points(b.curve)
    return None if apart and _is_coarse(a.loss) else (a, b)


def _points(curve: Curve) -> tuple[object, object]:
    return curve.train, curve.valid


def _is_coarse(loss: float) -> bool:
    """Whether a loss has so few digits, decimal or binary, that runs share it by chance."""
    digits = repr(abs(loss)).partition("e")[0].replace(".", "").strip("0")
    return len(digits) < _DIGITS or (math.frexp(loss)[0] * 2**12).is_integer()


def _alike(same: list[tuple[_Result, _Result]], results: list[_Result]) -> list[Finding]:
    """One finding an arm whose seeds are alike, and one for two arms that are."""
    found = []
    for arm in dict.fromkeys(r.arm for r in results):
        mine = [r for r in results if r.arm == arm]
        if len(mine) > 1 and len({r.loss for r in mine}) == 1:
            seeds = {r.seed for r in mine}
        else:
            seeds = {r.seed for pair in same if pair[0].arm == pair[1].arm == arm for r in pair}
        if seeds:
            found.append(Finding("trust.equal-seeds", dict(arm=arm, seeds=_seeds(seeds))))
    between = [(a, b) for a, b in same if a.arm != b.arm]
    equal = [(a, b) for a, b in between if a.seed == b.seed] or between
    paired = [(a, b) for a in results for b in results if a.arm < b.arm and a.seed == b.seed]
    if len(paired) > 1 and all(a.loss == b.loss for a, b in paired):
        equal = paired
    if equal:
        arms = sorted({r.arm for r in equal[0]}, key=[r.arm for r in results].index)
        seeds = {r.seed for pair in equal for r in pair}
        values = dict(arm=arms[0], other=arms[1], seeds=_seeds(seeds))
        found.append(Finding("trust.equal-arms", values))
    return found


def _without_spread(baseline: ArmResult, candidate: ArmResult) -> list[Finding]:
    pairs = [s for s in candidate.seeds if s.difference is not None and s.loss is not None]
    differences = [s.difference for s in pairs if s.difference is not None]
    size = max((abs(s.loss) for s in pairs if s.loss is not None), default=0.0)
    if candidate.target is not None:  # of times, not of what the runs end with
        differences, size = [s.log_ratio for s in pairs if s.log_ratio is not None], 1.0
    if (
        len(pairs) < 2
        or len(differences) < 2
        or max(differences) - min(differences) > SPREAD * size
    ):
        return []
    values: dict[str, str | int | float] = dict(
        candidate=candidate.name,
        baseline=baseline.name,
        difference=differences[0],
        seeds=_seeds({s.seed for s in pairs}),
    )
    return [Finding("trust.no-spread", values)]


def _seeds(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
