"""Step time and optimizer memory of every arm, interleaved in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from ..records import Engine, Outcome, Plan, RunSpec
from ..tasks import Task
from ..train import Gradients, alone, build_optimizer, spread, state_bytes

ROUNDS = 15
STEPS = 4  # in a row, per arm and round
WARMUP = 3
COMMAND_ROUNDS = 3
COMMAND_SHARE = 20  # a short run of a command is this part of a whole one


def probe(plan: Plan, task: Task) -> dict[str, Any]:
    """Time whole training steps of all arms in turn, so that a noisy machine is noisy for all.

    Returns:
        For each arm ``seconds`` (median per step), ``ratio`` to the baseline with its quartiles
        ``ratio_low`` and ``ratio_high`` over the rounds, ``state_bytes``, and the number of
        ``rounds``.
    """
    ranks, arms = alone(), {}
    for name in plan.arms:
        model = spread(task.build_model(seed=0), ranks, Engine())
        arm, reading = plan.arm[name], plan.training.reading
        optimizer = build_optimizer(model.bare, arm, lr=arm.lr, reading=reading)
        arms[name] = Gradients(task, model, optimizer, plan.training, ranks, seed=0)
        _seconds(arms[name], WARMUP)
    times: dict[str, list[float]] = {name: [] for name in plan.arms}
    for _ in range(ROUNDS):
        for name, steps in arms.items():
            times[name].append(_seconds(steps, STEPS) / STEPS)

    return _results(plan, times, {a: state_bytes(steps.optimizer) for a, steps in arms.items()})


def probe_command(plan: Plan, run: Callable[[RunSpec], Outcome]) -> dict[str, Any]:
    """Time short runs of all arms in turn, by the seconds that they themselves report.

    Args:
        plan: of the pilot.
        run: carries out one run; where it reports no seconds, starting up counts too.

    Returns:
        As :func:`probe`.
    """
    times: dict[str, list[float]] = {name: [] for name in plan.arms}
    memory: dict[str, int] = {}
    for _ in range(COMMAND_ROUNDS):
        for name in plan.arms:
            spec = RunSpec(
                stage="probe",
                arm_name=name,
                arm=plan.arm[name],
                lr=plan.arm[name].lr,
                seed=plan.tuning.seed,
                steps=max(10, plan.training.steps // COMMAND_SHARE),
                task=plan.task,
                training=plan.training,
                data="",
            )
            outcome = run(spec)
            times[name].append(outcome.seconds / max(1, outcome.steps))
            memory[name] = outcome.state_bytes
    return _results(plan, times, memory)


def _results(plan: Plan, times: dict[str, list[float]], memory: dict[str, int]) -> dict[str, Any]:
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
