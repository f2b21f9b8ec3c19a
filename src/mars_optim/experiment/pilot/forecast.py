"""Forecast before the runs: step times, noise between seeds, memory, seeds needed."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..analysis.analyse import analyse
from ..analysis.looks import level_of
from ..analysis.model import Decision
from ..analysis.published import Match, nearest
from ..analysis.stats import pairs_needed, sd_interval
from ..executors.runnable import Runnable, load_runnable
from ..plan import Plan, RunSpec
from ..plan.plan_file import differences, load_plan, plan_of
from ..records import read_runs
from ..records.checks import ArmCheck, read_checks
from ..records.metric import cost_of
from .agenda import agenda
from .arm_lines import resolve_arms
from .price import Price, price, remaining
from .retries import Timing
from .standing import clock
from .target_design import job_warnings, target_warnings

SEEDS = (90001, 90002, 90003, 90004)  # of the short runs; far from those of a pilot
SHARE = 20  # a short run is this part of a whole one
LEAST_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviation of the log token ratio between pairs of runs.

    Args:
        sd: the estimate; None if the short runs do not show it.
        low: lower end of its 80 % interval.
        high: upper end.
        pairs: that it is from.
        source: "runs" (finished pairs of this pilot) or "short runs".
        rates: standard deviation that the choice of the rates adds to the estimate, whatever the
            number of pairs; None where it is not known: before the pilot's own trials.
    """

    sd: float | None
    low: float
    high: float
    pairs: int
    source: str
    rates: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Seeds that show an effect with a chance of 80 %.

    Args:
        effect: share of tokens saved.
        threshold: share that the interval must leave out: 0 to see the effect, or the plan's
            worth to end as go.
        needed: at the noise as estimated; None if more than 200, or if the noise is not known.
        low: at the lower end of the noise.
        high: at its upper end.
    """

    effect: float
    threshold: float
    needed: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """All that ``mars plan`` shows.

    Args:
        price: runs, hours and money.
        left: the same of what has not been run; None if nothing has, or if ``finished``.
        probe: step time, start, evaluation and memory of each arm, as in probe.json.
        parameters: of the model; None if the job does not say.
        tokens_per_step: of one optimizer step.
        noise: between pairs.
        seeds: that effects need.
        timings: by size and arm, from which the price is.
        published: nearest results; empty if the number of parameters is not known.
        checks: what was found in optimizers that arms name, by arm.
        target: what the pilot cannot tell of its target or of the job, a sentence each.
        finished: whether the pilot in the folder has all its runs.
        verdict: of a finished pilot, "go", "no-go" or "not-enough-runs"; None before that, or if
            the plan is not the folder's.
    """

    price: Price
    left: Price | None
    probe: dict[str, Any]
    parameters: int | None
    tokens_per_step: int
    noise: Noise
    seeds: tuple[Seeds, ...]
    published: tuple[Match, ...]
    timings: dict[tuple[str, str], Timing]
    checks: dict[str, ArmCheck] = field(default_factory=dict)
    target: list[str] = field(default_factory=list)
    finished: bool = False
    verdict: Decision | None = None


@dataclass(frozen=True, slots=True)
class _Short:
    """Results of the short runs."""

    noise: Noise
    parameters: int
    tokens_per_step: int


def forecast(
    plan: Plan,
    out: Path,
    *,
    workers: int,
    threads: int,
    effect: float,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Forecast:
    """Measure a little on this machine, in this process, and tell what the pilot will take.

    Args:
        plan: of the pilot.
        out: its folder; finished runs in it tell the noise. Nothing is written there.
        workers: runs at a time.
        threads: for each run.
        effect: share of tokens saved that is to be seen.
        say: takes lines about progress.
        progress: takes the steps of the short runs that are done, and all of them.

    Raises:
        UserError: if the task cannot be loaded, or the effect is no share.
    """
    if not 0 < effect < 1:
        raise UserError(f"--effect {effect:g} must be a share of tokens above 0 and below 1")
    plan = resolve_arms(plan)
    with _kept_if_named() as folder:
        probes, timings, cells = {}, {}, {}
        checks: dict[str, ArmCheck] = {}
        for size in plan.sizes():
            at = f" at size {size.name}" if plan.scale else ""
            say(f"Timing training steps of {', '.join(size.arms)}{at} ...")
            sized = replace(
                plan,
                task=size.task,
                training=size.training,
                scale={},
                arms=size.arms,
                comparison=replace(plan.comparison, ablations=False),
                arm={arm: plan.arm[arm] for arm in size.arms},
            )
            try:
                job = load_runnable(sized, folder / size.name, threads)
            except ValueError as error:  # too few data, or a task of the user's that fails
                raise UserError(str(error)) from None
            checks |= read_checks(folder / size.name, plan.arm)
            probes[size.name] = job.probe()
            for arm, row in probes[size.name].items():
                timings[size.name, arm] = Timing(row["seconds"], row["outside"])
            if size.name == plan.sizes()[0].name:
                lengths = _short_lengths(sized)
                took = len(SEEDS) * _seconds(probes[size.name], lengths)
                say(
                    f"Training {len(SEEDS) * len(lengths)} times for a short while, to "
                    f"measure how far runs differ by chance; about {clock(took)} ..."
                )
                short = _short_runs(sized, job, progress)
                cells[size.name] = short.parameters, short.tokens_per_step
            elif plan.target:
                spec = _spec(sized, job, size.arms[0], SEEDS[0], LEAST_STEPS)
                outcome = job.run(spec, lambda step: None)
                cells[size.name] = outcome.parameters, round(outcome.tokens / max(1, outcome.steps))
    noise = _noise_of_runs(plan, out) or short.noise
    min_saving = plan.decision.min_saving
    wanted = [(effect, 0.0)]
    if min_saving > 0:
        wanted.append((max(effect, min(2 * min_saving, 0.9)), min_saving))
    own = probes[plan.sizes()[0].name]
    done = [r for r in read_runs(out / "runs") if r.outcome and r.spec.data == job.fingerprint]
    finished = bool(done) and agenda(plan, job.fingerprint, done).finished
    left = remaining(plan, done, timings, workers=workers) if done and not finished else None
    return Forecast(
        price=price(plan, timings, workers=workers),
        left=left,
        probe=own,
        parameters=short.parameters or None,
        tokens_per_step=short.tokens_per_step,
        noise=noise,
        seeds=tuple(_seeds(plan, noise, *pair) for pair in wanted),
        published=nearest(short.parameters, short.tokens_per_step) if short.parameters else (),
        timings=timings,
        checks=checks,
        target=target_warnings(plan, cells)
        if plan.target
        else job_warnings(plan, short.tokens_per_step, own[plan.comparison.candidate]["seconds"]),
        finished=finished,
        verdict=_verdict(plan, out) if finished else None,
    )


@contextmanager
def _kept_if_named() -> Iterator[Path]:
    """A folder that is gone afterwards, unless the error names a file in it."""
    folder = Path(tempfile.mkdtemp(prefix="mars-plan-"))
    named = False
    try:
        yield folder
    except UserError as error:
        named = str(folder) in str(error)
        raise
    finally:
        if not named:
            shutil.rmtree(folder, ignore_errors=True)


def _short_lengths(plan: Plan) -> tuple[tuple[str, int], ...]:
    """Arm and steps of the short runs of one seed."""
    steps = max(LEAST_STEPS, plan.training.steps // SHARE, 2 * plan.running.probe_steps)
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    return (baseline, steps // 2), (baseline, steps), (candidate, steps)


def _seconds(probed: Mapping[str, Any], lengths: Sequence[tuple[str, int]]) -> float:
    """Time of runs of these lengths, by what was measured of a step, a start and an evaluation."""
    return sum(
        n * float(probed[arm]["seconds"]) + float(probed[arm]["outside"]) for arm, n in lengths
    )


def _short_runs(plan: Plan, job: Runnable, progress: Callable[[int, int], None]) -> _Short:
    """Pairs of short runs, and the baseline at half their length for the slope of its loss."""
    lengths = _short_lengths(plan)
    done, total = 0, len(SEEDS) * sum(length for _, length in lengths)
    differences, drops = [], []
    for seed in SEEDS:
        losses = []
        for arm, length in lengths:

            def told(step: int, before: int = done) -> None:
                progress(before + step, total)

            outcome = job.run(_spec(plan, job, arm, seed, length), told)
            done += length
            progress(done, total)
            losses.append(cost_of(outcome, plan.decision))
        half, whole, other = losses
        if half is None or whole is None or other is None:
            continue
        drops.append(half - whole)
        differences.append(whole - other)
    slope = statistics.fmean(drops) / math.log(2) if drops else 0.0
    sd = None
    if slope > 0 and len(differences) > 1:
        sd = statistics.stdev(differences) / slope
    low, high = sd_interval(sd, len(differences), 0.8) if sd else (0.0, math.inf)
    return _Short(
        noise=Noise(sd=sd, low=low, high=high, pairs=len(differences), source="short runs"),
        parameters=outcome.parameters,
        tokens_per_step=round(outcome.tokens / max(1, outcome.steps)),
    )


def _spec(plan: Plan, job: Runnable, arm: str, seed: int, steps: int) -> RunSpec:
    return RunSpec(
        purpose="probe",
        arm_name=arm,
        arm=plan.arm[arm],
        lr=plan.arm[arm].lr,
        seed=seed,
        steps=steps,
        task=plan.task,
        training=replace(plan.training, trunk=False),  # with a warm-up of its own length
        data=job.fingerprint,
    )


def _verdict(plan: Plan, out: Path) -> Decision | None:
    """The verdict of a finished pilot by its own plan; None if the plan given is another one."""
    path = plan_of(out)
    if not path.exists():
        return None
    changed = differences(plan, load_plan(path))
    if any(not line.startswith(("cost.", "running.")) for line in changed):
        return None
    return analyse(out, forecast=False).verdict.decision


def _noise_of_runs(plan: Plan, out: Path) -> Noise | None:
    """From the pairs that are finished in ``out``, if there are two or more."""
    try:
        found = analyse(out, forecast=False)
    except UserError:
        return None
    ratio = found.candidate.log_ratio
    same = (found.plan.task, found.plan.training) == (plan.task, plan.training)
    if not same or ratio is None or ratio.n < 2:
        return None
    low, high = sd_interval(ratio.sd, ratio.n, 0.8)
    return Noise(sd=ratio.sd, low=low, high=high, pairs=ratio.n, source="runs", rates=ratio.rates)


def _seeds(plan: Plan, noise: Noise, effect: float, threshold: float) -> Seeds:
    distance = math.log1p(-threshold) - math.log1p(-effect)
    level = partial(level_of, plan.decision)

    def needed(sd: float | None) -> int | None:
        if sd is None or not math.isfinite(sd):
            return None
        return pairs_needed(distance, sd, 0.0, level, rates=noise.rates or 0.0)

    return Seeds(
        effect=effect,
        threshold=threshold,
        needed=needed(noise.sd),
        low=needed(noise.low) if noise.sd is not None else None,
        high=needed(noise.high) if noise.sd is not None else None,
    )
