"""One run of a plan by itself: which it is, and what is known of it before its first step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UserError, did_you_mean
from ..plan import Arm, Plan, RunSpec
from ..plan.any_arm import is_any
from ..plan.plan import EXTERNAL
from ..records import read_runs
from ..tasks import Task
from ..training import arm_groups

PURPOSE = "train"
FLOPS_PER_PARAMETER = 6  # and token: forward and backward of a matrix product


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEstimate:
    """Estimate of a run before its first step.

    Args:
        parameters: of the model.
        tokens: of the whole run.
        flops: of its matrix products, about: six per parameter and token.
        optimizer: which parameters get what, in a line.
        seconds: that it will take, from a finished run of the same model here; None without one.
    """

    parameters: int
    tokens: int
    flops: float
    optimizer: str
    seconds: float | None


def single_spec(plan: Plan, data: str, *, arm: str | None, lr: float | None, seed: int) -> RunSpec:
    """The run of one arm of a plan, at its own budget.

    Args:
        plan: of which it is.
        data: hash of its data.
        arm: name; None for the plan's candidate.
        lr: peak learning rate; None for the arm's.
        seed: of initialisation and batches.
    """
    name = arm or plan.comparison.candidate
    return RunSpec(
        purpose=PURPOSE,
        arm_name=name,
        arm=plan.arm[name],
        lr=plan.arm[name].lr if lr is None else lr,
        seed=seed,
        steps=plan.training.steps,
        task=plan.task,
        training=plan.training,
        data=data,
    )


def check_choice(plan: Plan, *, arm: str | None, lr: float | None, seed: int) -> None:
    """See that there can be such a run, before anything is loaded.

    Raises:
        UserError: naming what does not go.
    """
    if plan.task.kind in EXTERNAL:
        raise UserError(
            f"task.kind = {plan.task.kind!r} trains in another program: `mars train` needs a "
            "model and batches in Python; `mars pilot` runs commands"
        )
    if arm is not None and arm not in plan.arms:
        hint = did_you_mean(arm, plan.arms) or f"; it has {', '.join(plan.arms)}"
        raise UserError(f"--arm {arm} is not an arm of this plan{hint}")
    name = arm or plan.comparison.candidate
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and is_any(plan.arm[name].optimizer):
        raise UserError(
            f"arm.{name}.optimizer = {plan.arm[name].optimizer!r} runs in one process, and "
            f"{processes} were started: start one, without torchrun"
        )
    if lr is not None and not lr > plan.training.min_lr:
        raise UserError(
            f"--lr {lr:g} must be above training.min_lr = {plan.training.min_lr:g}"
            if lr > 0
            else f"--lr {lr:g} must be above 0"
        )
    if seed < 0:
        raise UserError(f"--seed {seed} must be at least 0")
    corpus = getattr(plan.task, "corpus", "stdlib")
    if corpus != "stdlib" and not Path(corpus).exists():
        raise UserError(
            f"task.corpus = {corpus!r} does not exist: `mars prepare --out {corpus}` writes "
            "such a folder; if the data lie elsewhere, --set task.corpus=FOLDER"
        )


def look_ahead(spec: RunSpec, task: Task, out: Path) -> RunEstimate:
    """Estimate of a run before its first step.

    Args:
        spec: of the run.
        task: loaded.
        out: folder whose finished runs tell the time.
    """
    with torch.device("meta" if spec.task.kind != "python" else "cpu"):
        model = task.build_model(spec.seed)
    parameters = sum(p.numel() for p in model.parameters())
    tokens = spec.steps * spec.training.accumulation * task.batch_tokens
    return RunEstimate(
        parameters=parameters,
        tokens=tokens,
        flops=float(FLOPS_PER_PARAMETER) * parameters * tokens,
        optimizer=optimizer_line(model, spec),
        seconds=_seconds(spec, out),
    )


def optimizer_line(model: nn.Module, spec: RunSpec) -> str:
    """Which parameters get what, in a line: ``84.9 M in 48 matrices: mars adamw, lr ...; ...``."""
    if is_any(spec.arm.optimizer):
        return _of_class(model, spec)
    groups = arm_groups(model, spec.arm, lr=spec.lr, convention=spec.training.convention)
    parts = []
    for group in groups:
        tensors = [p for _, p in group["params"]]
        count = sum(p.numel() for p in tensors)
        plural = {"matrix": "matrices"}.get(group["kind"], group["kind"] + "s")
        kind = group["kind"] if len(tensors) == 1 else plural
        parts.append(f"{_short(count)} in {len(tensors)} {kind}: {_method(group, spec.arm)}")
    return "; ".join(parts)


def _of_class(model: nn.Module, spec: RunSpec) -> str:
    """Lines on a class that the arm names: its parameters and its arguments."""
    arm, count = spec.arm, sum(p.numel() for p in model.parameters() if p.requires_grad)
    given = {
        "all": f"{_short(count)}, all parameters in one group",
        "groups": f"{_short(count)} in groups, embeddings and vectors without decay",
        "matrices": "matrices, and AdamW for the others",
    }[arm.parameters]
    options = "".join(f", {key} {value}" for key, value in arm.options.items())
    schedule = ", by its own schedule" if arm.own_schedule else ""
    return f"{given}: {arm.optimizer}, lr {spec.lr:g}{options}{schedule}"


def _method(group: dict[str, Any], arm: Arm) -> str:
    plain = not group["gamma"] and not group["clip"]
    name = arm.optimizer if arm.optimizer != "mars" else group["rule"]
    if arm.optimizer == "mars" and not plain:
        name = f"MARS {name} {group['correction']} gamma {group['gamma']:g}"
        name += f" clip {group['clip']:g}" if group["clip"] else ""
    betas = " ".join(f"{beta:g}" for beta in group["betas"])
    return f"{name}, lr {group['lr']:g}, betas {betas}, decay {group['weight_decay']:g}"


def _short(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g}"


def _seconds(spec: RunSpec, out: Path) -> float | None:
    """Seconds of the last finished run of this task and arm, scaled to this one's steps."""
    runs = [r for r in read_runs(out / "runs") if r.work]
    alike = [r for r in runs if _work(r.spec) == _work(spec)]
    if not alike or alike[-1].outcome is None:
        return None
    return alike[-1].outcome.seconds / alike[-1].work * spec.steps


def _work(spec: RunSpec) -> tuple[Any, ...]:
    return spec.task, spec.training.accumulation, spec.training.precision, spec.arm_name
