"""Step time, start, evaluation and memory of every arm, interleaved in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from typing import Any

from ..plan import ExecutionOptions, Plan, RunSpec
from ..records import Outcome
from ..tasks import Task
from ..training import (
    Gradients,
    alone,
    build_optimizer,
    evaluation_steps,
    parallelize,
    state_bytes,
    wants_closure,
)

ROUNDS = 15
STEPS = 4  # in a row, per arm and round
WARMUP = 3
COMMAND_ROUNDS = 3
COMMAND_SHARE = 20  # a short run of a command is this part of a whole one,
COMMAND_SECONDS = 1.0  # or as many steps as take this long, if these are more
CLEAR = 5.0  # times their own spread that longer runs must take longer than the short ones


def probe(plan: Plan, task: Task) -> dict[str, Any]:
    """Time whole training steps of all arms in turn, so that a noisy machine is noisy for all.

    Returns:
        For each arm ``seconds`` (median per step), ``ratio`` to the baseline with its quartiles
        ``ratio_low`` and ``ratio_high`` over the rounds, ``state_bytes``, the number of
        ``rounds``, and what a whole run takes besides its steps: ``outside`` seconds in all, for
        its start and ``evaluations`` of ``evaluation`` seconds each.
    """
    ranks, arms, starts = alone(), {}, []
    for name in plan.arms:
        begun = time.perf_counter()
        model = parallelize(task.build_model(seed=0), ranks, ExecutionOptions())
        arm, convention = plan.arm[name], plan.training.convention
        optimizer = build_optimizer(model.bare, arm, lr=arm.lr, convention=convention, name=name)
        closure = wants_closure(arm)
        arms[name] = Gradients(task, model, optimizer, plan.training, ranks, 0, closure)
        starts.append(time.perf_counter() - begun)
        _seconds(arms[name], WARMUP)
    times: dict[str, list[float]] = {name: [] for name in plan.arms}
    for _ in range(ROUNDS):
        for name, steps in arms.items():
            times[name].append(_seconds(steps, STEPS) / STEPS)
    start = statistics.median(starts)  # the first one's is a process's, not a run's
    outside = {name: _evaluations(plan, task, steps, start) for name, steps in arms.items()}
    memory = {a: state_bytes(steps.optimizer) for a, steps in arms.items()}
    return _results(plan, times, memory, outside)


def _evaluations(plan: Plan, task: Task, steps: Gradients, start: float) -> dict[str, float]:
    """Time of the evaluations of a whole run."""
    training, model = plan.training, steps.parallelized.bare
    begun = time.perf_counter()
    with steps.autocast():
        evaluate = getattr(task, "scores", task.evaluate)
        evaluate(model, training.eval_tokens)
    seconds = time.perf_counter() - begun
    tokens = task.batch_tokens * training.accumulation
    sparing = plan.decision.target is None
    count = len(evaluation_steps(training, training.steps, tokens, sparing=sparing))
    return {"outside": start + count * seconds, "evaluation": seconds, "evaluations": count}


def probe_command(plan: Plan, run: Callable[[RunSpec], tuple[Outcome, bool]]) -> dict[str, Any]:
    """Time short runs of all arms in turn, by the seconds of their steps alone.

    What a run takes beyond these is its start, its evaluations and its end. Of a command that
    neither tells nor shows them, longer runs are made, too: what does not grow with the steps is
    the start. Where they take no clearly longer, the time of a step is not known.

    Args:
        plan: of the pilot.
        run: carries out one run; whether the seconds of the outcome are those of its steps alone
            is the second thing it returns.

    Returns:
        As :func:`probe`, without ``evaluation``. The ratios are None where the arm's or the
        baseline's step time is not known; ``seconds`` is a guess then.
    """
    tried = _rounds(plan, _enough(plan, run), run)
    timed = all(t.timed for tries in tried.values() for t in tries)
    unknown: set[str] = set()
    found = {arm: _inside(tries) for arm, tries in tried.items()}
    if not timed:
        longer = _rounds(plan, _longer(plan, tried[plan.comparison.baseline], run), run)
        found = {arm: _by_length(tries, longer[arm]) for arm, tries in tried.items()}
        unknown = {arm for arm, tries in tried.items() if not _clearly(tries, longer[arm])}
    times = {arm: seconds for arm, (seconds, _) in found.items()}
    outside = {arm: {"outside": max(0.0, start)} for arm, (_, start) in found.items()}
    memory = {arm: tries[-1].state_bytes for arm, tries in tried.items()}
    return _results(plan, times, memory, outside, unknown)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A short run of a command: its seconds by the clock, and those of its steps, if known."""

    whole: float
    inside: float
    timed: bool
    steps: int
    state_bytes: int


_Run = Callable[[RunSpec], tuple[Outcome, bool]]


def _try(plan: Plan, name: str, steps: int, run: _Run) -> _Tried:
    begun = time.perf_counter()
    outcome, timed = run(_short(plan, name, steps))
    whole = time.perf_counter() - begun
    taken = max(1, outcome.steps)
    return _Tried(whole, outcome.seconds, timed, taken, outcome.state_bytes)


def _rounds(plan: Plan, steps: int, run: _Run) -> dict[str, list[_Tried]]:
    tried: dict[str, list[_Tried]] = {name: [] for name in plan.arms}
    for _ in range(COMMAND_ROUNDS):
        for name in plan.arms:
            tried[name].append(_try(plan, name, steps, run))
    return tried


def _enough(plan: Plan, run: _Run) -> int:
    """Steps of a short run: more of them where they take next to no time."""
    whole = plan.training.steps
    steps = plan.running.probe_steps or max(10, whole // COMMAND_SHARE)
    tried = _try(plan, plan.comparison.baseline, steps, run)
    if not tried.timed or tried.inside >= COMMAND_SECONDS:
        return steps
    seconds = max(tried.inside / tried.steps, 1e-9)
    return max(steps, min(whole, math.ceil(COMMAND_SECONDS / seconds)))


def _longer(plan: Plan, short: list[_Tried], run: _Run) -> int:
    """Steps of a run that takes clearly longer than the short ones, as these differ among them."""
    wholes = [t.whole for t in short]
    steps, clearly = short[0].steps, CLEAR * (max(wholes) - min(wholes))
    most = max(2 * steps, plan.training.steps)
    while steps < most:
        steps = min(4 * steps, most)
        tried = _try(plan, plan.comparison.baseline, steps, run)
        if tried.whole - statistics.median(wholes) > clearly:
            break
    return steps


def _inside(tries: list[_Tried]) -> tuple[list[float], float]:
    """Seconds of a step in each try, and what a run takes besides."""
    start = statistics.median(t.whole - t.inside for t in tries)
    return [t.inside / t.steps for t in tries], start


def _by_length(short: list[_Tried], longer: list[_Tried]) -> tuple[list[float], float]:
    """As :func:`_inside`, by what grows with the steps."""
    whole, steps = statistics.median(t.whole for t in short), short[0].steps
    times = [max(t.whole - whole, 1e-3 * t.whole) / max(1, t.steps - steps) for t in longer]
    return times, whole - steps * statistics.median(times)


def _clearly(short: list[_Tried], longer: list[_Tried]) -> bool:
    """Whether the longer runs took longer by more than runs of one length differ."""
    wholes = [[t.whole for t in tries] for tries in (short, longer)]
    spread = max(max(times) - min(times) for times in wholes)
    return min(wholes[1]) - max(wholes[0]) > spread


def _short(plan: Plan, name: str, steps: int) -> RunSpec:
    return RunSpec(
        purpose="probe",
        arm_name=name,
        arm=plan.arm[name],
        lr=plan.arm[name].lr,
        seed=plan.tuning.seed,
        steps=steps,
        task=plan.task,
        training=replace(plan.training, trunk=False),  # with a warm-up of its own length
        data="",
    )


def _results(
    plan: Plan,
    times: dict[str, list[float]],
    memory: dict[str, int],
    outside: dict[str, dict[str, float]],
    unknown: Set[str] = frozenset(),
) -> dict[str, Any]:
    baseline = plan.comparison.baseline
    base = times[baseline]
    results: dict[str, Any] = {}
    for name in plan.arms:
        ratios = [t / b for t, b in zip(times[name], base, strict=True)]
        known = not {name, baseline} & unknown
        low, middle, high = statistics.quantiles(ratios, n=4) if known else (None,) * 3
        results[name] = {
            "seconds": statistics.median(times[name]),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
            "state_bytes": memory[name],
            "rounds": len(ratios),
            **outside[name],
        }
    return results


def _seconds(steps: Gradients, count: int) -> float:
    """Seconds of whole steps as the plan trains them: micro-batches, gradient clip, optimizer."""
    start = time.perf_counter()
    for step in range(count):
        _, norm = steps.make(step)
        steps.update(step)
        steps.optimizer.zero_grad()
    float(norm)  # waits for the device
    return time.perf_counter() - start
