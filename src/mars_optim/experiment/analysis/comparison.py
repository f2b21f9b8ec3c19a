"""Which of a pilot's runs are compared: one size, its runs sorted by arm, seed and steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ..plan import Plan
from ..plan.decision import DecisionPlan
from ..plan.sizes import Size
from ..records import Run
from .compared import Comparison, Key
from .rungs import rungs_due


def comparison(plan: Plan, size: Size, runs: Iterable[Run]) -> Comparison:
    """Sort the finished runs of a pilot for one of its sizes."""
    here = tuple(r for r in runs if (r.spec.task, r.spec.training) == (size.task, size.training))
    if not others_due(plan, size, here):
        size = at_first(plan, size)
    wanted = _wanted(plan, size)
    paired = (
        run
        for run in here
        if run.spec.purpose in ("compare", "ladder") and not valueless(run, plan.decision)
    )
    compared = {key: run for run in paired if (key := _key(run)) in wanted}
    rungs = rungs_due(Comparison(plan, size, here, compared, 0, 0))
    wanted = {key for key in wanted if key[2] in rungs}
    if plan.decision.looks == "every-pair" and plan.task.kind != "imported":
        looked_at = _looked_at(plan, compared, wanted)
        wanted = {key for key in wanted if key[1] in looked_at}
        compared = {key: run for key, run in compared.items() if key in wanted}
    lacking = set() if plan.task.kind == "imported" else wanted - compared.keys()
    judged = {plan.comparison.baseline, plan.comparison.candidate}
    undecided = sum(arm in judged for arm, _, _ in lacking)
    return Comparison(plan, size, here, compared, len(lacking), undecided)


def others_due(plan: Plan, size: Size, runs: Iterable[Run]) -> bool:
    """Whether all arms are run: none waits for a go, or one of those that do has a run."""
    others = set(size.arms) - set(plan.comparison.at_first(size.arms))
    return not others or any(
        r.spec.arm_name in others and (r.spec.task, r.spec.training) == (size.task, size.training)
        for r in runs
    )


def at_first(plan: Plan, size: Size) -> Size:
    """A size with the arms only that are run whatever comes out."""
    return replace(size, arms=plan.comparison.at_first(size.arms))


def begun(plan: Plan, seeds: Collection[int]) -> tuple[int, ...]:
    """The plan's seeds up to the last of these, and those of the first look at the least."""
    places = [i + 1 for i, seed in enumerate(plan.comparison.seeds) if seed in seeds]
    return plan.comparison.seeds[: max(plan.first_look, *places, 0)]


def _looked_at(plan: Plan, compared: Collection[Key], wanted: Collection[Key]) -> tuple[int, ...]:
    """The seeds begun, without the last of several looks while its pair is not whole."""
    seeds = begun(plan, {seed for _, seed, _ in compared})
    judged = (plan.comparison.baseline, plan.comparison.candidate)
    whole = all(k in compared for k in wanted if k[1] == seeds[-1] and k[0] in judged)
    return seeds if whole or len(seeds) == plan.first_look else seeds[:-1]


def valueless(run: Run, decision: DecisionPlan) -> bool:
    """Whether a run ended well, but tells nothing of what decides: no number, or no whole curve."""
    if decision.target is not None and run.damaged:
        return True
    return run.outcome is not None and run.outcome.status == "finished" and run.final_loss is None


def _key(run: Run) -> Key:
    return run.spec.arm_name, run.spec.seed, run.spec.steps


def _wanted(plan: Plan, size: Size) -> set[Key]:
    return {
        (arm, seed, size.steps(budget))
        for seed in plan.comparison.seeds
        for arm in size.arms
        for budget in plan.budgets(arm, seed)
    }
