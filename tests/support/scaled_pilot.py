"""A pilot of several sizes and lengths whose losses follow a known law, with a target beyond."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.plan.sizes import SizePlan
from mars_optim.experiment.plan.target import TargetPlan
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.files import write_text

STEP_TOKENS = 20_000
PARAMETERS = {64: 1_000_000, 128: 4_000_000, 256: 16_000_000}  # by width
GAINS = {"adamw": 0.0, "nadamw": 0.1, "mars-adamw": 0.2}  # in log tokens, at the smallest size

SCALED = Plan(
    training=TrainingPlan(steps=1000),
    comparison=ComparisonPlan(seeds=(1, 2, 3), ladder=(0.5, 2.0)),
    scale={
        "mid": SizePlan(width=128, steps=4000),
        "large": SizePlan(width=256, steps=16000),
        "long": SizePlan(steps=8000),
    },
    target=TargetPlan(parameters=6.4e7, tokens=1.28e9, batch=1e5),
)
"""20 tokens per parameter at three sizes, 160 at the smallest; the target has four times more."""

ONE_SIZE = replace(SCALED, scale={"long": SizePlan(steps=4000), "longer": SizePlan(steps=16000)})
"""Three lengths of one size."""


def loss(parameters: float, tokens: float, ahead: float) -> float:
    """The law's."""
    floor = 1.8 + 0.5 * (parameters / 1e7) ** -0.33
    return floor + 0.4 * (tokens * math.exp(ahead) / 2e8) ** -0.3


def write_scaled(
    out: Path,
    plan: Plan = SCALED,
    *,
    noise: float = 0.001,
    fade: float = 0.2,
    lost: frozenset[tuple[str, int]] = frozenset(),
    recorded: bool = True,
    data: str = "data",
) -> Path:
    """All runs of the comparison; ``fade`` shrinks gains as a power of size.

    Args:
        out: the pilot's folder.
        plan: of it.
        noise: of each run's loss.
        fade: see above.
        lost: arm and seed of runs that diverge, at the plan's own size.
        recorded: whether runs tell their parameters, and tokens other than their steps.
        data: hash of the text.
    """
    rng = np.random.default_rng(0)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plan.toml", plan_toml(plan))
    for size in plan.sizes():
        parameters = PARAMETERS[getattr(size.task, "width", 64)]
        for seed in plan.comparison.seeds:
            for arm in size.arms:
                budgets = (1.0, *plan.ladder) if arm == plan.comparison.baseline else (1.0,)
                for budget in budgets:
                    steps = size.steps(budget)
                    ahead = GAINS[arm] * (parameters / 1e6) ** -fade
                    end = loss(parameters, steps * STEP_TOKENS, ahead) + 0.02 * seed
                    spec = RunSpec(
                        purpose="compare" if budget == 1.0 else "ladder",
                        arm_name=arm,
                        arm=plan.arm[arm],
                        lr=1e-3,
                        seed=seed,
                        steps=steps,
                        task=size.task,
                        training=size.training,
                        data=data,
                    )
                    writer = RunWriter(out / "runs", spec, {"python": "3.11"})
                    is_lost = (arm, seed) in lost and size.name == "main"
                    final = None if is_lost else end + float(rng.normal(0, noise))
                    tokens = steps * (STEP_TOKENS if recorded else 1)
                    writer.row(step=steps, tokens=tokens, seconds=1.0, valid_loss=final)
                    writer.finish(
                        Outcome(
                            status="diverged" if is_lost else "finished",
                            final_loss=final,
                            steps=steps,
                            tokens=tokens,
                            seconds=2.0,
                            parameters=parameters if recorded else 0,
                            state_bytes=8 * parameters,
                        )
                    )
    return out
