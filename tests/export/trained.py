"""A GPT's run with weights, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim.records import ARMS, Outcome, Plan, RunSpec, RunWriter
from mars_optim.records.plan_file import make_plan
from mars_optim.tasks import GPT

SIZES = dict(context=24, layers=3, width=24, heads=3)


def plan_of(**task: Any) -> Plan:
    """The built-in plan with another task, whose corpus is not there any more."""
    given = {"corpus": '"gone"', **SIZES, **task}
    return make_plan({}, tuple(f"task.{key}={value}" for key, value in given.items()))


def write_trained(
    out: Path, state: dict[str, Tensor] | None, *, seed: int = 1, plan: Plan | None = None
) -> Path:
    """The folder of a finished run, below ``out / "runs"``; without weights for ``state`` None."""
    plan = plan or plan_of()
    spec = RunSpec(
        stage="train",
        arm_name="adamw",
        arm=ARMS["adamw"],
        lr=1e-3,
        seed=seed,
        steps=20,
        task=plan.task,
        training=plan.training,
        data="0" * 64,
    )
    writer = RunWriter(out / "runs", spec, {})
    writer.row(step=10, tokens=100, seconds=1.0, loss=5.0, lr=1e-3, grad_norm=1.0)
    writer.row(step=20, tokens=200, seconds=2.0, valid_loss=4.0, bits_per_byte=5.77)
    writer.finish(
        Outcome(
            status="finished",
            final_loss=4.0,
            steps=20,
            tokens=200,
            seconds=2.0,
            parameters=1,
            state_bytes=8,
        )
    )
    if state is not None:
        torch.save(state, writer.path / "weights.pt")
    return writer.path


def gpt(vocabulary: int = 256, **sizes: int) -> GPT:
    """A GPT none of whose parameters is 0 or 1, as after training."""
    torch.manual_seed(0)
    model = GPT(vocabulary=vocabulary, **{**SIZES, **sizes})
    for p in model.parameters():
        nn.init.normal_(p, mean=float(p.ndim == 1), std=0.3)
    return model
