"""Forecast before the runs: step times, noise between seeds, memory, seeds needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..analysis.analyse import analyse
from ..analysis.model import Decision
from ..analysis.published import Match, nearest
from ..executors.runnable import load_runnable
from ..plan import Plan
from ..plan.plan_file import differences, load_plan, plan_of
from ..records import read_runs
from ..records.checks import ArmCheck, read_checks
from .agenda import agenda
from .arm_lines import resolve_arms
from .pair_noise import Noise, Seeds, noise_of_runs, seeds_for
from .price import Price, price, remaining
from .retries import Timing
from .short_runs import LEAST_STEPS, SEEDS, lengths_of, seconds_of, short_runs, spec_of
from .standing import clock
from .target_design import job_warnings, target_warnings


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
                lengths = lengths_of(sized)
                took = len(SEEDS) * seconds_of(probes[size.name], lengths)
                say(
                    f"Training {len(SEEDS) * len(lengths)} times for a short while, to "
                    f"measure how far runs differ by chance; about {clock(took)} ..."
                )
                short = short_runs(sized, job, progress)
                cells[size.name] = short.parameters, short.tokens_per_step
            elif plan.target:
                spec = spec_of(sized, job, size.arms[0], SEEDS[0], LEAST_STEPS)
                outcome = job.run(spec, lambda step: None)
                cells[size.name] = outcome.parameters, round(outcome.tokens / max(1, outcome.steps))
    noise = noise_of_runs(plan, out) or short.noise
    min_saving = plan.decision.min_saving
    wanted = [(effect, 0.0)]
    if min_saving > 0:
        wanted.append((max(effect, min(2 * min_saving, 0.9)), min_saving))
    own = probes[plan.sizes()[0].name]
    known = own[plan.comparison.candidate]["ratio"] is not None
    step_seconds = own[plan.comparison.candidate]["seconds"] if known else 0.0
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
        seeds=tuple(seeds_for(plan, noise, *pair) for pair in wanted),
        published=nearest(short.parameters, short.tokens_per_step) if short.parameters else (),
        timings=timings,
        checks=checks,
        target=target_warnings(plan, cells)
        if plan.target
        else job_warnings(plan, short.tokens_per_step, step_seconds),
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


def _verdict(plan: Plan, out: Path) -> Decision | None:
    """The verdict of a finished pilot by its own plan; None if the plan given is another one."""
    path = plan_of(out)
    if not path.exists():
        return None
    changed = differences(plan, load_plan(path))
    if any(not line.startswith(("cost.", "running.")) for line in changed):
        return None
    return analyse(out, forecast=False).verdict.decision
