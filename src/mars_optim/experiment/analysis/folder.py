"""From a folder of runs by themselves, as ``mars train`` makes them, to what a report shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..plan import Arm, Plan
from ..plan.arms import ARMS
from ..plan.plan_file import load_plan
from ..plan.recipe import Ours, Published
from ..plan.table import concerned
from ..plan.task import what_is_trained
from ..records import Run, read_runs
from ..records.run import damaged_runs
from ..records.trials import at_edge, most_used_lr
from .arm_model import ArmResult, Role, SeedResult, Trial
from .arm_results import bytes_per_parameter, curve, mean_scores, role_of
from .choice import noise_of, regret_of, with_choice
from .rate_fit import Noise, fit_rate
from .stats import t_interval

CONFIDENCE = 0.95
FACTOR = 2.0
"""Between neighbouring rates of a sweep: by it the fit tells how far off the best may be."""
NAME_OF_PLAN = "plan.toml"  # beside a run's manifest: what it was made from


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Runs that may be compared: one task, data, schedule and number of steps.

    Args:
        title: of the recipe; empty without one.
        task: what was trained, in a few words.
        source: of the recipe.
        arms: compared, the baseline first; their ``log_ratio`` is None, for there is no ladder.
        seconds: of training, the mean over an arm's seeds, by arm.
        published: by arm.
        ours: as the recipe tells, by arm.
        changed: where the runs depart from the recipe.
        unit_tokens: of one run.
        parameters: of the model.
        steps: of one run.
        runs: that finished.
        unfinished: ids of those that did not.
        environment: of the last run.
    """

    title: str
    task: str
    source: str
    arms: tuple[ArmResult, ...]
    seconds: Mapping[str, float]
    published: Mapping[str, Published]
    ours: Mapping[str, Ours]
    changed: tuple[str, ...]
    unit_tokens: int
    parameters: int
    steps: int
    runs: int
    unfinished: tuple[str, ...]
    environment: Mapping[str, Any]

    @property
    def baseline(self) -> ArmResult:
        """That the others are compared with."""
        return next(a for a in self.arms if a.role == "baseline")

    @property
    def best(self) -> ArmResult | None:
        """The arm with the lowest mean loss; None if all diverged."""
        finished = [a for a in self.arms if a.mean_loss is not None]
        return min(finished, key=lambda a: a.mean_loss or 0.0, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that a folder of runs holds.

    Args:
        experiments: the one with the most runs first.
        unfinished: ids of runs that belong to no experiment yet.
        damaged: folders whose manifest cannot be read.
    """

    experiments: tuple[Experiment, ...]
    unfinished: tuple[str, ...]
    damaged: tuple[str, ...]


def survey(out: Path) -> Survey:
    """Read the runs below ``out`` and sort them into experiments.

    Raises:
        UserError: if none has finished.
    """
    runs = read_runs(out / "runs")
    sorted_runs: dict[Any, list[Run]] = {}
    for run in runs:
        sorted_runs.setdefault(_key(run), []).append(run)
    done = [group for group in sorted_runs.values() if any(r.outcome for r in group)]
    if not done:
        under_way = f" ({len(runs)} under way or stopped)" if runs else ""
        raise UserError(
            f"{out} holds no finished run yet{under_way}; `mars train RECIPE.toml --out {out}` "
            "makes them"
        )
    done.sort(key=len, reverse=True)
    waiting = [g for g in sorted_runs.values() if not any(r.outcome for r in g)]
    return Survey(
        experiments=tuple(experiment(group) for group in done),
        unfinished=tuple(r.spec.run_id for group in waiting for r in group),
        damaged=tuple(path.name for path in damaged_runs(out / "runs")),
    )


def _key(run: Run) -> tuple[Any, ...]:
    """Runs of one key have losses that may be compared."""
    return run.spec.task, run.spec.training, run.spec.steps, run.spec.data


def experiment(runs: Iterable[Run]) -> Experiment:
    """The numbers of runs that may be compared, at least one of them finished."""
    runs = tuple(runs)
    finished = [r for r in runs if r.outcome]
    plans = {r.spec.run_id: plan for r in finished if (plan := _plan_of(r))}
    plan = next(iter(plans.values()), None)
    labels = arm_labels(finished)
    by_arm: dict[str, list[Run]] = {}
    for run in finished:
        by_arm.setdefault(labels[run.spec.run_id], []).append(run)
    baseline = _baseline(by_arm, plan)
    order = _order(by_arm, plan, baseline)
    chosen = {name: _chosen(by_arm[name]) for name in order}
    base = {r.spec.seed: r.final_loss for r in chosen[baseline]}
    candidate = plan.comparison.candidate if plan else "mars-adamw"
    noise = noise_of({(n, r.spec.seed): r.final_loss for n in order for r in chosen[n]})
    roles = {name: role_of(name, baseline, candidate) for name in order}
    arms = {n: _arm(n, by_arm[n], chosen[n], base, roles[n], noise) for n in order}
    known = {name: plans.get(by_arm[name][0].spec.run_id, plan) for name in order}
    first = finished[0].outcome
    assert first is not None
    return Experiment(
        title=plan.recipe.title if plan else "",
        task=what_is_trained(finished[0].spec.task),
        source=plan.recipe.source if plan else "",
        arms=tuple(with_choice(arms, baseline).values()),
        seconds={n: statistics.fmean(_seconds(r) for r in chosen[n]) for n in order},
        published=_told(known, by_arm, "published"),
        ours=_told(known, by_arm, "ours"),
        changed=tuple(dict.fromkeys(t for n in order for t in _changes(known[n], by_arm[n][0]))),
        unit_tokens=max(r.outcome.tokens for r in finished if r.outcome),
        parameters=first.parameters,
        steps=finished[0].spec.steps,
        runs=len(finished),
        unfinished=tuple(r.spec.run_id for r in runs if not r.outcome),
        environment=finished[-1].environment,
    )


def arm_labels(runs: Iterable[Run]) -> dict[str, str]:
    """Run id -> name of its arm; where one name has several settings, with those that differ."""
    settings: dict[str, list[Arm]] = {}
    runs = tuple(runs)
    for run in runs:
        known = settings.setdefault(run.spec.arm_name, [])
        if _without_lr(run.spec.arm) not in map(_without_lr, known):
            known.append(run.spec.arm)
    return {
        r.spec.run_id: r.spec.arm_name + _difference(r.spec.arm, settings[r.spec.arm_name])
        for r in runs
    }


def _without_lr(arm: Arm) -> tuple[Any, ...]:
    """A run's own rate counts, not where its arm's tuning would start."""
    return tuple(
        getattr(arm, f.name)
        for f in fields(arm)
        if f.name != "lr" and f.compare and concerned(f, arm)
    )


def _difference(arm: Arm, all_of_name: list[Arm]) -> str:
    keys = [
        f.name
        for f in fields(Arm)
        if f.name != "lr"
        and f.compare
        and len({getattr(other, f.name) for other in all_of_name}) > 1
    ]
    values = ", ".join(f"{key} {_show(getattr(arm, key))}" for key in keys)
    return f" ({values})" if values else ""


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plan_of(run: Run) -> Plan | None:
    """The plan that the run was made from, if it is there and this version can read it."""
    try:
        return load_plan(run.path / NAME_OF_PLAN)
    except UserError:
        return None


def _baseline(arms: Iterable[str], plan: Plan | None) -> str:
    names = list(arms)
    wanted = plan.comparison.baseline if plan else "adamw"
    return wanted if wanted in names else names[0]


def _order(arms: Iterable[str], plan: Plan | None, baseline: str) -> list[str]:
    """The baseline, then as in the plan, or as the arms are known."""
    known = list(plan.arms if plan else ARMS)

    def place(name: str) -> tuple[bool, int, str]:
        bare = name.split(" (")[0]
        return name != baseline, known.index(bare) if bare in known else len(known), name

    return sorted(arms, key=place)


def _chosen(runs: list[Run]) -> list[Run]:
    """The runs at an arm's learning rate: the one with most seeds, then of the lowest loss."""
    by_lr: dict[float, list[Run]] = {}
    for run in runs:
        by_lr.setdefault(run.spec.lr, []).append(run)
    lr = most_used_lr({lr: [r.final_loss for r in mine] for lr, mine in by_lr.items()})
    return sorted(by_lr[lr], key=lambda r: r.spec.seed)


def trials_of(runs: Iterable[Run]) -> tuple[Trial, ...]:
    """Learning rate by learning rate, the mean loss over the seeds that every rate has.

    If the rates have no seed in common, over the seeds that each has. None where one diverged.
    """
    by_lr: dict[float, dict[int, float | None]] = {}
    for run in runs:
        by_lr.setdefault(run.spec.lr, {})[run.spec.seed] = run.final_loss
    shared = set.intersection(*(set(losses) for losses in by_lr.values()))
    trials = []
    for lr, losses in sorted(by_lr.items()):
        values = [loss for seed, loss in losses.items() if not shared or seed in shared]
        finite = [loss for loss in values if loss is not None]
        whole = len(finite) == len(values)
        trials.append(Trial(lr=lr, loss=statistics.fmean(finite) if whole else None))
    return tuple(trials)


def _arm(
    name: str,
    runs: list[Run],
    chosen: list[Run],
    base: Mapping[int, float | None],
    role: Role,
    noise: Noise | None,
) -> ArmResult:
    trials, lr = trials_of(runs), chosen[0].spec.lr
    fit = fit_rate([(r.spec.lr, r.spec.seed, r.final_loss) for r in runs], FACTOR, noise)
    tried = {t.lr: t.loss for t in trials}
    seeds = tuple(_seed(run, base.get(run.spec.seed)) for run in chosen)
    differences = [s.difference for s in seeds if s.difference is not None]
    paired = t_interval(differences, CONFIDENCE) if differences else None
    return ArmResult(
        name=name,
        role=role,
        arm=chosen[0].spec.arm,
        lr=lr,
        trials=trials,
        at_edge=len(trials) > 1 and at_edge(tried),
        seeds=seeds,
        loss_difference=None if role == "baseline" else paired,
        log_ratio=None,
        diverged=sum(s.loss is None for s in seeds),
        step_time=None,
        bytes_per_parameter=bytes_per_parameter(chosen[0].outcome),
        curves=tuple(curve(run) for run in chosen),
        scores=mean_scores(chosen),
        regret=regret_of(fit, lr),
        best_range=fit.low_high(CONFIDENCE) if fit else None,
    )


def _seed(run: Run, base: float | None) -> SeedResult:
    loss = run.final_loss
    difference = None if loss is None or base is None else loss - base
    return SeedResult(
        seed=run.spec.seed, loss=loss, difference=difference, reading=None, log_ratio=None
    )


def _seconds(run: Run) -> float:
    assert run.outcome is not None
    return run.outcome.seconds


def _changes(plan: Plan | None, run: Run) -> list[str]:
    """Where an arm's runs depart from the recipe."""
    concerned = ("task.", "training.", f"arm.{run.spec.arm_name}.")
    return [text for text in (plan.recipe.changed if plan else ()) if text.startswith(concerned)]


def _told(
    plans: Mapping[str, Plan | None], by_arm: Mapping[str, list[Run]], table: str
) -> dict[str, Any]:
    """The recipe's words on each arm, under the name that it has here."""
    found = {}
    for name, plan in plans.items():
        entries = getattr(plan, table) if plan else {}
        if (entry := entries.get(by_arm[name][0].spec.arm_name)) is not None:
            found[name] = entry
    return found
