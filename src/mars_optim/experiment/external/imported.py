"""From runs that exist already to a folder that is analysed like a pilot's own."""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..._version import __version__
from ...errors import UserError, did_you_mean
from ...files import write_text
from ..plan import Arm, Plan, RunSpec
from ..plan.arms import check_arm_name
from ..plan.comparison import LEAST_LADDERS, ComparisonPlan
from ..plan.decision import LOSS
from ..plan.plan_file import load_plan, plan_of, plan_toml
from ..plan.task import ImportedPlan
from ..plan.training import TrainingPlan
from ..plan.tuning import TuningPlan
from ..records import RunWriter
from ..records.metric import cost_of
from .discovery import Found, RunsPlan, find_runs
from .losses import End, Kind
from .recorder import Recorder
from .selection import sorted_by_rate, spacing

DATA = "imported"


def import_runs(source: RunsPlan, folder: Path, out: Path) -> str:
    """Write the runs that ``source`` names into ``out``, with a plan that fits them.

    Args:
        source: which runs, and what is compared.
        folder: from where its paths are reckoned.
        out: folder to write; one that holds trained runs is refused.

    Returns:
        What was read, in a line.

    Raises:
        UserError: if runs cannot be read, or cannot be compared at all.
    """
    source = _with_metric(source)
    measured = [_measured(run, source) for run in find_runs(source, folder)]
    found = [run for run, _ in measured]
    lacks = next((f"; {note}" for _, note in measured if note), "")

    def cost(run: Found) -> float | None:
        return cost_of(_recorded(run, source).outcome(0.0), source.decision)

    _check_once(found)
    plan = plan_for(found, source)
    compared, trials, rest = sorted_by_rate(found, plan.training.steps, plan.comparison.seeds, cost)
    plan = plan_for(compared, source, factor=spacing(found, plan.tuning.factor))
    _clear(out)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    for path in (out / "plan.toml", out / "runs" / "plan.toml"):
        write_text(path, plan_toml(plan))
    for run in compared:
        _write(run, "compare" if run.steps == plan.training.steps else "ladder", source, plan, out)
    for run in trials:
        _write(run, "tune", source, plan, out)
    seeds = ", ".join(map(str, sorted({run.seed for run in compared})))
    budgets = ", ".join(map(str, sorted({run.steps for run in compared})))
    others = f"; {len(trials)} more are trials of other learning rates" if trials else ""
    if rest:
        others += f"; {len(rest)} of other rates and lengths are left out, such as {rest[0].source}"
    return (
        f"Read {len(compared)} runs of {', '.join(plan.arms)}: seeds {seeds}; {budgets} steps, "
        f"compared at {plan.training.steps}{others}{lacks}."
    )


def _with_metric(source: RunsPlan) -> RunsPlan:
    """The metric that decides is one of those that are read."""
    metric, columns = source.decision.metric, source.columns
    if metric in (LOSS, *columns.scores):
        return source
    return replace(source, columns=replace(columns, scores=(*columns.scores, metric)))


def plan_for(found: Iterable[Found], source: RunsPlan, *, factor: float = 2.0) -> Plan:
    """The plan that these runs would have followed.

    The common budget is the one at which most seeds have both baseline and candidate (of equals
    the longest); the baseline's other budgets are its ladder. Where only some seeds have all of
    these, all pairs are read off the mean ladder of those (``comparison.ladder_seeds``).

    Args:
        found: the runs.
        source: what is compared.
        factor: between neighbouring learning rates.

    Raises:
        UserError: if an arm to be compared has no runs, or no seed has a run of both.
    """
    runs = {(run.arm, run.seed, run.steps) for run in found}
    arms = sorted({arm for arm, _, _ in runs}, key=lambda a: (a != source.baseline, a))
    for role in ("baseline", "candidate"):
        name = getattr(source, role)
        if name not in arms:
            hint = did_you_mean(name, arms) or f"; there are {', '.join(arms)}"
            raise UserError(f"no run is of {role} = {name!r}{hint}; set {role}")
    steps = {s for _, _, s in runs}
    pairs = {
        s: sorted(
            {seed for _, seed, at in runs if at == s}
            & {seed for arm, seed, at in runs if (arm, at) == (source.baseline, s)}
            & {seed for arm, seed, at in runs if (arm, at) == (source.candidate, s)}
        )
        for s in steps
    }
    unit = max(steps, key=lambda s: (len(pairs[s]), s))
    if not pairs[unit]:
        raise UserError(
            f"no seed has runs of both {source.baseline} and {source.candidate} with equally "
            "many steps: there are no pairs to compare"
        )
    rungs = {(seed, s) for arm, seed, s in runs if arm == source.baseline and s != unit}
    ladder = sorted({s for _, s in rungs})
    with_rungs = [seed for seed in pairs[unit] if {(seed, s) for s in ladder} <= rungs]
    some = LEAST_LADDERS <= len(with_rungs) < len(pairs[unit])
    seeds = sorted(pairs[unit], key=lambda seed: seed not in with_rungs) if some else pairs[unit]
    return Plan(
        arms=tuple(arms),
        task=ImportedPlan(runs=", ".join([*source.files, *source.charts]) or "files"),
        training=TrainingPlan(steps=unit),
        tuning=TuningPlan(seed=max(seed for _, seed, _ in runs) + 1, factor=factor),
        comparison=ComparisonPlan(
            baseline=source.baseline,
            candidate=source.candidate,
            seeds=tuple(seeds),
            ladder=tuple(s / unit for s in ladder),
            ladder_seeds=len(with_rungs) if some else 0,
        ),
        decision=source.decision,
        cost=source.cost,
        target=source.target,
        arm={arm: Arm(optimizer="external") for arm in arms},
    )


def _measured(run: Found, source: RunsPlan) -> tuple[Found, str]:
    """With its number of steps, and what it lacks; see that it has a result after the last one."""
    check_arm_name(run.arm)
    try:
        recorder = _recorded(run, source)
        recorder.finish()
        recorder.check_result()
    except UserError as error:
        text = str(error)
        raise UserError(text if run.source in text else f"{run.source}: {text}") from None
    if recorder.broken:
        if not run.steps:
            raise UserError(
                f"{run.source} diverged ({recorder.broken}), and its planned number of steps "
                f"is not known: {_SAY_STEPS}"
            )
        return run, ""
    note = f"; {recorder.unclear}" if recorder.unclear else ""
    metric = source.decision.metric
    name, result = "validation loss" if metric == LOSS else metric, recorder.result(metric)
    if result is None or not math.isfinite(result[1]):
        what = name if metric == LOSS else "metric, or name it in decision.metric"
        raise UserError(
            f"{run.source}: {recorder.no_result(metric, 0)}; under columns, name the {what}{note}"
        )
    step = result[0]
    if note and not run.steps:
        raise UserError(f"{run.source}{note}, or {_SAY_STEPS}")
    steps = run.steps or _last_step(recorder)
    if not steps - 1 <= step <= steps:
        raise UserError(
            f"{run.source}: its last {name} is of step {step}, not {steps}: only whole "
            f"runs can be compared; leave it out{note}"
            + ("" if run.steps else f", or {_SAY_STEPS} where rows go on after the last")
        )
    lacks = [recorder.untrained] if recorder.untrained else []
    if recorder.no_tokens:
        way = 'name that column in columns.tokens, or set it to "" and columns.tokens_per_step'
        lacks.append(f"{run.source}: {recorder.no_tokens}: {way}")
    if name := recorder.uncounted:
        way = f'name another column in columns.{name}, or set it to ""'
        lacks.append(f"{run.source}: {recorder.told_apart(name)}: {way}")
    return replace(run, steps=run.steps or step), "; ".join(lacks)


_SAY_STEPS = "put {steps} in the pattern or names, or steps = under [[run]]"


def _last_step(recorder: Recorder) -> int:
    """Last step of a run without a known length: where its losses, or places for them, end."""
    return max(recorder.step, *recorder.empty.values(), 0)


def _recorded(
    run: Found, source: RunsPlan, write: Callable[..., None] = lambda **row: None
) -> Recorder:
    """All rows of a run, taken."""
    blank: set[Kind] = {("none", "bad"), ("bad", "none"), ("bad", "bad")} if run.gaps else set()
    recorder = Recorder(source.columns, run.steps, write, end=End(blank=blank))
    for row in run.rows:
        recorder.add(row)
    return recorder


def _check_once(found: Iterable[Found]) -> None:
    runs: dict[tuple[str, int, int, float], Found] = {}
    for run in found:
        first = runs.setdefault((run.arm, run.seed, run.steps, run.lr), run)
        if first is not run:
            raise UserError(
                f"{first.source} and {run.source} are both {run.arm}, seed {run.seed}, "
                f"{run.steps} steps, with the same or no known learning rate: leave one out, "
                "or put {lr} in the pattern or names"
            )


def _write(run: Found, purpose: str, source: RunsPlan, plan: Plan, out: Path) -> None:
    spec = RunSpec(
        purpose=purpose,
        arm_name=run.arm,
        arm=plan.arm[run.arm],
        lr=run.lr,
        seed=run.seed,
        steps=run.steps,
        task=plan.task,
        training=plan.training,
        data=DATA,
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    writer = RunWriter(
        out / "runs", spec, {"date": today, "mars_optim": __version__, "imported": run.source}
    )
    writer.finish(_recorded(run, source, writer.row).outcome(0.0))
    writer.close()


def _clear(out: Path) -> None:
    if not plan_of(out).exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"--out {out} holds other files: use another folder")
        return
    if load_plan(plan_of(out)).task.kind != "imported":
        raise UserError(f"--out {out} holds a pilot that was trained: use another folder")
    shutil.rmtree(out / "runs")
