"""Step time and optimizer memory of every arm, interleaved in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from ..optim import MARS
from ..records import Outcome, Plan, RunSpec
from ..tasks import Task
from ..train import build_optimizer, state_bytes

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
    pairs = {}
    for name in plan.arms:
        model = task.build_model(seed=0)
        arm, reading = plan.arm[name], plan.training.reading
        pairs[name] = (model, build_optimizer(model, arm, lr=arm.lr, reading=reading))
    for model, optimizer in pairs.values():
        _seconds(plan, task, model, optimizer, WARMUP)
    times: dict[str, list[float]] = {name: [] for name in plan.arms}
    for _ in range(ROUNDS):
        for name, (model, optimizer) in pairs.items():
            times[name].append(_seconds(plan, task, model, optimizer, STEPS) / STEPS)

    return _results(plan, times, {a: state_bytes(optimizer) for a, (_, optimizer) in pairs.items()})


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


def _seconds(plan: Plan, task: Task, model: nn.Module, optimizer: Optimizer, steps: int) -> float:
    """Of whole steps as the plan trains them: all micro-batches, gradient clip, optimizer."""
    training = plan.training
    device = next(model.parameters()).device
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16")
    start = time.perf_counter()
    for step in range(steps):
        for micro in range(training.accumulation):
            if isinstance(optimizer, MARS) and optimizer.param_groups[0]["correction"] == "exact":
                with optimizer.previous_point(model), bf16:
                    loss = task.loss(model, task.batch(0, step, micro)) / training.accumulation
                    torch.autograd.backward(loss)
            with bf16:
                loss = task.loss(model, task.batch(0, step, micro)) / training.accumulation
            torch.autograd.backward(loss)
        if training.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start
