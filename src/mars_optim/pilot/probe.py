"""Step time, start, evaluation and memory of every arm, interleaved in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..records import Engine, Outcome, Plan, RunSpec
from ..tasks import Task
from ..train import (
    Gradients,
    alone,
    build_optimizer,
    evaluation_steps,
    spread,
    state_bytes,
)

ROUNDS = 15
STEPS = 4  # in a row, per arm and round
WARMUP = 3
COMMAND_ROUNDS = 3
COMMAND_SHARE = 20  # a short run of a command is this part of a whole one


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
        model = spread(task.build_model(seed=0), ranks, Engine())
        arm, reading = plan.arm[name], plan.training.reading
        optimizer = build_optimizer(model.bare, arm, lr=arm.lr, reading=reading)
        arms[name] = Gradients(task, model, optimizer, plan.training, ranks, seed=0)
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
    """What the evaluations of a whole run take."""
    training, model = plan.training, steps.spread.bare
    begun = time.perf_counter()
    with steps.autocast():
        evaluate = getattr(task, "scores", task.evaluate)
        evaluate(model, training.eval_tokens)
    seconds = time.perf_counter() - begun
    tokens = task.batch_tokens * training.accumulation
    count = len(evaluation_steps(training, training.steps, tokens, sparing=True))
    return {"outside": start + count * seconds, "evaluation": seconds, "evaluations": count}


def probe_command(plan: Plan, run: Callable[[RunSpec], tuple[Outcome, bool]]) -> dict[str, Any]:
    """Time short runs of all arms in turn, by the seconds that they themselves report.

    What a run takes beyond these is its start, its evaluations and its end. A command that reports
    none also runs at twice the length: what does not grow with the steps is its start.

    Args:
        plan: of the pilot.
        run: carries out one run; whether it has reported seconds is the second thing it returns.

    Returns:
        As :func:`probe`, without ``evaluation``.
    """
    steps = max(10, plan.training.steps // COMMAND_SHARE)
    tried: dict[str, list[_Tried]] = {name: [] for name in plan.arms}
    for _ in range(COMMAND_ROUNDS):
        for name in plan.arms:
            tried[name].append(_try(plan, name, steps, run))
    times, outside, memory = {}, {}, {}
    for name, rounds in tried.items():
        start = statistics.median(t.whole - t.told for t in rounds)
        inside = [t.told for t in rounds]
        if not all(t.reported for t in rounds):
            whole = statistics.median(t.whole for t in rounds)
            start = _start(whole, _try(plan, name, 2 * steps, run).whole)
            inside = [max(t.whole - start, 1e-3 * t.whole) for t in rounds]
        times[name] = [i / t.steps for i, t in zip(inside, rounds, strict=True)]
        outside[name] = {"outside": max(0.0, start)}
        memory[name] = rounds[-1].state_bytes
    return _results(plan, times, memory, outside)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A short run of a command: its seconds by our clock and by its own, if it has told any."""

    whole: float
    told: float
    reported: bool
    steps: int
    state_bytes: int


def _try(
    plan: Plan, name: str, steps: int, run: Callable[[RunSpec], tuple[Outcome, bool]]
) -> _Tried:
    begun = time.perf_counter()
    outcome, reported = run(_short(plan, name, steps))
    whole = time.perf_counter() - begun
    taken = max(1, outcome.steps)
    return _Tried(whole, min(whole, outcome.seconds), reported, taken, outcome.state_bytes)


def _start(once: float, twice: float) -> float:
    """What does not grow with the steps, of a run and one of twice its steps."""
    return min(once, max(0.0, 2 * once - twice))


def _short(plan: Plan, name: str, steps: int) -> RunSpec:
    return RunSpec(
        stage="probe",
        arm_name=name,
        arm=plan.arm[name],
        lr=plan.arm[name].lr,
        seed=plan.tuning.seed,
        steps=steps,
        task=plan.task,
        training=plan.training,
        data="",
    )


def _results(
    plan: Plan,
    times: dict[str, list[float]],
    memory: dict[str, int],
    outside: dict[str, dict[str, float]],
) -> dict[str, Any]:
    base = times[plan.comparison.baseline]
    results = {}
    for name in plan.arms:
        ratios = [t / b for t, b in zip(times[name], base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
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
    """Of whole steps as the plan trains them: all micro-batches, gradient clip, optimizer."""
    start = time.perf_counter()
    for step in range(count):
        _, norm = steps.make(step)
        steps.optimizer.step()
        steps.optimizer.zero_grad()
    float(norm)  # waits for the device
    return time.perf_counter() - start
