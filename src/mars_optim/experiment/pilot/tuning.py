"""How far the tuning of one size is: what it needs next, and what it has chosen."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from ...errors import UserError
from ..analysis import design
from ..analysis.rate_fit import fit_rate
from ..analysis.trial_scores import losses_of, trial_runs
from ..plan import Arm, Plan, RunSpec
from ..plan.sizes import Size
from ..plan.tuning import Point
from ..records import Run
from ..records.metric import cost
from ..records.trials import AROUND, Trials, best_lr, best_of_others, loss_or_inf, near
from .search import next_lr, next_outward, repeated


def tuning_trials(plan: Plan, runs: Iterable[Run], size: Size | None = None) -> dict[str, Trials]:
    """Final loss by learning rate, for each arm, of the search's finished runs at one size."""
    size = size or plan.sizes()[0]
    trials: dict[str, dict[float, float | None]] = {arm: {} for arm in size.arms}
    for run in runs:
        spec = run.spec
        here = (spec.task, spec.training, spec.seed) == (size.task, size.training, plan.tuning.seed)
        if here and spec.purpose == "tune" and run.outcome and spec.arm_name in trials:
            trials[spec.arm_name][spec.lr] = cost(run, plan.decision)
    return dict(trials)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How far the tuning of one size is.

    Args:
        ready: runs that tuning needs next.
        going: arms that can be tuned.
        runs: tuning runs of each arm as far as they are known.
        chosen: settings that the comparison uses, of the arms that have been tuned.
        trials: of each arm's search.
    """

    ready: tuple[RunSpec, ...]
    going: tuple[str, ...]
    runs: dict[str, int]
    chosen: dict[str, Point]
    trials: dict[str, Trials]

    @property
    def over(self) -> bool:
        """Whether every arm that can be tuned has been."""
        return all(arm in self.chosen for arm in self.going)


def tuning_of(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> Tuning:
    """The tuning of one size, from its finished runs.

    Args:
        plan: of the pilot.
        size: that is tuned.
        data: hash of the data.
        runs: that have finished, of any size.
        given_up: ids of runs that failed too often.
    """
    here = [r for r in runs if (r.spec.task, r.spec.training) == (size.task, size.training)]
    if plan.tuning.by_design:
        return _by_design(plan, size, data, here, given_up)
    return _by_rate(plan, size, data, here, given_up)


def _by_design(
    plan: Plan, size: Size, data: str, here: list[Run], given_up: Collection[str]
) -> Tuning:
    """Equally many trials of every arm; the lowest is chosen."""
    ready, chosen, lost = list[list[RunSpec]](), dict[str, Point](), set[str]()
    trials = tuning_trials(plan, here, size)
    for arm in sorted(size.arms, key=lambda arm: len(trials[arm])):
        tried = trial_runs(here, arm, size.steps(1.0), plan.tuning.seed)
        losses = losses_of(tried, plan.decision)
        made, following = design.trials(plan.tuning, arm, plan.arm[arm], losses)
        specs = [_at(plan, size, data, arm, point) for point in following]
        used = _used(plan, size, arm, here)
        if used:
            chosen[arm] = used
        elif {spec.run_id for spec in specs} & set(given_up):
            lost.add(arm)
        elif specs:
            ready.append(specs)
        else:
            chosen[arm] = min(made, key=lambda point: loss_or_inf(losses[point]))
    in_turn = (spec for round_ in zip_longest(*ready) for spec in round_ if spec)
    return Tuning(
        ready=tuple(in_turn),
        going=tuple(arm for arm in size.arms if arm not in lost),
        runs=dict.fromkeys(size.arms, plan.tuning.trials),
        chosen=chosen,
        trials=trials,
    )


def _at(plan: Plan, size: Size, data: str, arm: str, point: Point) -> RunSpec:
    seed = plan.tuning.seed
    return spec_of(
        plan, size, data, purpose="tune", arm_name=arm, lr=point.lr, seed=seed, arm=point.arm
    )


def _used(plan: Plan, size: Size, arm: str, runs: Iterable[Run]) -> Point | None:
    """The settings of an arm's comparison, where that has begun.

    Raises:
        UserError: where its runs are of several rates, so that none is the pilot's.
    """
    compared = [r.spec for r in runs if r.spec.arm_name == arm]
    found = [
        Point(s.arm, plan.comparison.rate_from(s.lr, s.steps / size.steps(1.0)))
        for s in compared
        if s.purpose in ("compare", "ladder", "trunk")
    ]
    rates = sorted({point.lr for point in found})
    if rates and not math.isclose(rates[0], rates[-1], rel_tol=1e-9):
        told = ", ".join(f"{lr:.4g}" for lr in rates)
        raise UserError(
            f"{arm} has comparison runs of several learning rates (at the common budget {told}): "
            "some are of another pilot or another comparison.lr_exponent; "
            "remove those from runs/, or use another --out"
        )
    return min(found, key=lambda point: point.lr, default=None)


def _by_rate(
    plan: Plan, size: Size, data: str, here: list[Run], given_up: Collection[str]
) -> Tuning:
    """The learning rate alone, each arm's to equal resolution."""
    trials = tuning_trials(plan, here, size)
    begun = {
        r.spec.arm_name for r in here if r.spec.purpose != "tune"
    }  # no search of theirs goes on
    by_trials = sorted(size.arms, key=lambda arm: len(trials[arm]))
    following = {
        arm: None if arm in begun else _trial(plan, size, data, arm, trials[arm])
        for arm in by_trials
    }
    if not any(following.values()):
        following |= _outward(plan, size, data, trials, begun)
    lost = {arm for arm, spec in following.items() if spec and spec.run_id in given_up}
    ready = [spec for arm, spec in following.items() if spec and arm not in lost]
    searched = [arm for arm in size.arms if arm not in lost and not following[arm]]
    done = {r.spec.run_id for r in here} | set(given_up)
    again = {arm: _repeats(plan, size, data, arm, trials[arm]) for arm in searched}
    open_ = {arm: [s for s in again[arm] if s.run_id not in done] for arm in searched}
    return Tuning(
        ready=(*ready, *(s for specs in open_.values() for s in specs)),
        going=tuple(arm for arm in size.arms if arm not in lost),
        runs={arm: _expected(plan, trials[arm], arm not in searched) for arm in size.arms},
        chosen={
            arm: _chosen(plan, size, arm, here, trials[arm]) for arm in searched if not open_[arm]
        },
        trials=trials,
    )


def _expected(plan: Plan, trials: Trials, going_on: bool) -> int:
    """Tuning runs of one arm, at least."""
    search = max(plan.tuning.trials, len(trials) + 1) if going_on else len(trials)
    return min(search, plan.tuning.max_trials) + len(plan.tuning.more_seeds) * AROUND


def _chosen(plan: Plan, size: Size, arm: str, runs: list[Run], trials: Trials) -> Point:
    """The rate of an arm's comparison: as it began, else the lowest point of the fit."""
    if used := _used(plan, size, arm, runs):
        rounded = plan.comparison.lr_exponent != 0.0
        return Point(used.arm, near(trials, used.lr)) if rounded else used
    mine = [r for r in runs if r.spec.arm_name == arm and r.spec.purpose == "tune"]
    found = [(r.spec.lr, r.spec.seed, cost(r, plan.decision)) for r in mine]
    fit = fit_rate(found, plan.tuning.factor)
    return Point(plan.arm[arm], fit.best if fit else best_lr(trials))


def _repeats(plan: Plan, size: Size, data: str, arm: str, trials: Trials) -> list[RunSpec]:
    """The trials around an arm's lowest point, on the further tuning seeds."""
    if not plan.tuning.more_seeds or len(trials) < 2:
        return []
    rates = repeated(plan.arm[arm].lr, plan.tuning.factor, trials)
    return [
        spec_of(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=seed)
        for seed in plan.tuning.more_seeds
        for lr in rates
    ]


def _trial(plan: Plan, size: Size, data: str, arm: str, trials: Trials) -> RunSpec | None:
    """The arm's next run of the search; None when that is over."""
    if len(trials) >= plan.tuning.max_trials:
        return None
    lr = next_lr(plan.arm[arm].lr, plan.tuning.factor, trials, plan.tuning.trials)
    if lr is None:
        return None
    return spec_of(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=plan.tuning.seed)


def _outward(
    plan: Plan, size: Size, data: str, trials: Mapping[str, Trials], begun: Collection[str]
) -> dict[str, RunSpec]:
    """A run of the first arm that seems to have learned at no rate tried; empty if none does.

    One at a time, so that the order in which runs finish does not matter. An arm whose comparison
    has begun keeps its rate.
    """
    for arm in size.arms:
        if arm in begun or not 0 < len(trials[arm]) < plan.tuning.max_trials:
            continue
        default, factor = plan.arm[arm].lr, plan.tuning.factor
        lr = next_outward(default, factor, trials[arm], best_of_others(trials, arm))
        if lr is not None:
            seed = plan.tuning.seed
            return {arm: spec_of(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=seed)}
    return {}


def spec_of(
    plan: Plan,
    size: Size,
    data: str,
    *,
    purpose: str,
    arm_name: str,
    lr: float,
    seed: int,
    steps: int | None = None,
    arm: Arm | None = None,
    branches: tuple[int, ...] = (),
    trunk: str = "",
) -> RunSpec:
    """A run of the pilot; ``steps`` in place of one budget's, and ``arm`` of the plan's."""
    return RunSpec(
        purpose=purpose,
        arm_name=arm_name,
        arm=arm or plan.arm[arm_name],
        lr=lr,
        seed=seed,
        steps=size.steps(1.0) if steps is None else steps,
        task=size.task,
        training=size.training,
        data=data,
        branches=branches,
        trunk=trunk,
    )
