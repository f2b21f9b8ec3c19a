"""A folder of runs by themselves, written by hand as ``mars train`` leaves them; no training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan, plan_toml
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.files import write_text

ENVIRONMENT = {"torch": "2.13.0", "system": "Linux x86_64", "device": "cpu", "date": "2026-11-24"}
STEP_TOKENS = 512

RECIPE = make_plan(
    {
        "arms": ["adamw", "nadamw", "mars-adamw"],
        "training": {"steps": 100},
        "recipe": {"title": "A small GPT on its own sources", "source": "a paper"},
        "published": {
            "adamw": {"loss": 2.885, "source": "Table 1", "note": "one seed"},
            "nadamw": {"source": "not published", "settings": "ours"},
            "mars-adamw": {"loss": 2.849, "accuracy": 95.29, "source": "Table 1"},
        },
        "ours": {
            "adamw": {
                "loss": 2.9,
                "seeds": 3,
                "machine": "a laptop",
                "date": "2026-11-24",
                "command": "mars train recipe.toml",
            }
        },
    }
)


def write_run(
    out: Path,
    arm: str,
    lr: float,
    seed: int,
    loss: float | None,
    *,
    plan: Plan | None = RECIPE,
    finished: bool = True,
    steps: int = 100,
    seconds: float = 2.0,
    scores: dict[str, float] | None = None,
    **settings: Any,
) -> str:
    """One run; ``loss`` None for one that diverged, ``settings`` of its arm that are other.

    Returns:
        Its id.
    """
    known = plan or RECIPE
    spec = RunSpec(
        purpose="train",
        arm_name=arm,
        arm=replace(known.arm[arm], **settings),
        lr=lr,
        seed=seed,
        steps=steps,
        task=known.task,
        training=known.training,
        data="data",
    )
    writer = RunWriter(out / "runs", spec, ENVIRONMENT)
    for part in (0.25, 0.5, 0.75, 1.0):
        at = dict(step=round(part * steps), tokens=round(part * steps * STEP_TOKENS), seconds=1.0)
        writer.row(**at, loss=(loss or 9.0) + 0.5 / part)
        if loss is not None and part in (0.5, 1.0):
            writer.row(**at, valid_loss=loss + 1.0 - part, **(scores or {}))
    if finished:
        writer.finish(
            Outcome(
                status="diverged" if loss is None else "finished",
                final_loss=loss,
                steps=steps,
                tokens=steps * STEP_TOKENS,
                seconds=seconds,
                parameters=1000,
                state_bytes=12_000 if arm.startswith("mars") else 8000,
            )
        )
    writer.close()
    if plan:
        write_text(writer.path / "plan.toml", plan_toml(plan))
    return spec.run_id


def write_sweep(out: Path, **more: Any) -> None:
    """AdamW with its best rate inside, MARS-AdamW with its best at an edge, three paired seeds."""
    for lr, loss in ((5e-4, 3.2), (1e-3, 3.0), (2e-3, 3.1)):
        write_run(out, "adamw", lr, 1, loss, **more)
    for lr, loss in ((1.5e-3, 3.1), (3e-3, 2.9), (6e-3, 2.8), (1.2e-2, None)):
        write_run(out, "mars-adamw", lr, 1, loss, **more)
    for seed, adamw, mars in ((2, 3.1, 2.95), (3, 2.9, 2.65)):
        write_run(out, "adamw", 1e-3, seed, adamw, **more)
        write_run(out, "mars-adamw", 6e-3, seed, mars, **more)
