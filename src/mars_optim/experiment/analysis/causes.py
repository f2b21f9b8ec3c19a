"""Parts of the effect: paired differences between arms that differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Plan
from ..plan.arms import ablation_name
from .arm_model import ArmResult
from .choice import in_tokens
from .looks import interval, p_value
from .model import Contrast, Part
from .stats import Interval, holm


def parts(plan: Plan, arms: Mapping[str, ArmResult]) -> tuple[Part, ...]:
    """The candidate's effect, cut into its settings, its correction and its clip.

    The way is fixed (settings, then correction, then clip): another order would share out
    differently what two of them do together.
    """
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    plain = ablation_name(candidate, "plain")
    unclipped = candidate if not plan.arm[candidate].clip else ablation_name(candidate, "no-clip")
    way = [("settings", baseline, plain), ("correction", plain, unclipped)]
    if unclipped != candidate:
        way.append(("clip", unclipped, candidate))
    found = []
    for cause, before, after in way:
        if before not in arms or after not in arms:
            continue
        between = paired(arms[after], arms[before], plan)
        if between is not None:
            found.append(Part(cause=cause, before=before, after=after, log_ratio=between))
    return tuple(found)


def contrasts(plan: Plan, arms: Mapping[str, ArmResult]) -> tuple[Contrast, ...]:
    """Every other arm against the baseline, and the candidate against each of them.

    The verdict rests on one interval, named in the plan before the runs, so it needs no
    adjustment. These are the others: Holm's method keeps the chance that any of them is called an
    effect by noise alone at a single test's.
    """
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    others = [name for name in arms if name not in (baseline, candidate)]
    pairs = [(name, baseline) for name in others] + [(candidate, name) for name in others]
    known = []
    for arm, against in pairs:
        between = paired(arms[arm], arms[against], plan)
        if between is not None and between.n > 1:
            bound = _bound(arms[arm], arms[against])
            p = None if bound else p_value(between, plan.decision)
            known.append((arm, against, between, bound, p))
    adjusted = iter(holm([p for *_, p in known if p is not None]))
    return tuple(
        Contrast(
            arm=arm,
            against=against,
            log_ratio=between,
            bound=bound,
            p=p,
            p_holm=None if p is None else next(adjusted),
        )
        for arm, against, between, bound, p in known
    )


def _bound(after: ArmResult, before: ArmResult) -> str:
    """Bound on a difference whose terms may be bounds."""
    opposite = {"at least": "at most", "at most": "at least"}
    bounds = after.seed_bounds | {opposite[bound] for bound in before.seed_bounds}
    return bounds.pop() if len(bounds) == 1 else "unknown" if bounds else ""


def paired(after: ArmResult, before: ArmResult, plan: Plan) -> Interval | None:
    """Interval of the difference in log tokens, over the seeds that both have.

    None if they share no seed. The baseline's own log ratio is 0 on its own ladder.
    """
    with_it = {s.seed: s.log_ratio for s in after.pairs}
    without = {s.seed: s.log_ratio for s in before.pairs}
    if before.role == "baseline":
        without = dict.fromkeys(with_it, 0.0)
    pairs = [(value, without.get(seed)) for seed, value in sorted(with_it.items())]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    measured = interval(differences, plan.decision)
    return in_tokens(measured, after, before)
