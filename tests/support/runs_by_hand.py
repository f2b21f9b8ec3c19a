"""A pilot's folder with losses that were written down, not trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.files import write_text
from tests.support.specs import spec_in

PLAN = Plan(
    training=TrainingPlan(steps=100),
    comparison=ComparisonPlan(seeds=(1, 2, 3), ladder=(0.5, 2.0)),
)
STEP_TOKENS = 512
UNIT = 100 * STEP_TOKENS
OFFSET = {1: 0.0, 2: 1.0, 3: -0.5}  # what a seed adds to every loss: pairing takes it away
GAINS = {"mars-adamw": {1: 0.20, 2: 0.25, 3: 0.30}, "nadamw": {1: 0.10, 2: 0.10, 3: 0.13}}


def law(seed: int, log_tokens: float) -> float:
    """The baseline's loss at exp(log_tokens) budget units: a straight line in log tokens."""
    return 3.0 + OFFSET[seed] - 0.5 * log_tokens


def write_run(
    out: Path,
    arm: str,
    loss: float | None,
    *,
    purpose: str = "compare",
    seed: int = 0,
    budget: float = 1.0,
    lr: float = 1e-3,
    finished: bool = True,
    plan: Plan = PLAN,
) -> Path:
    """One run; ``loss`` None for one that diverged halfway."""
    steps = plan.sizes()[0].steps(budget)
    spec = spec_in(plan, purpose, arm, lr, seed, steps, data="data")
    writer = RunWriter(out / "runs", spec, {"python": "3.11"})
    taken = steps if loss is not None else steps // 2
    writer.row(step=taken, tokens=taken * STEP_TOKENS, seconds=1.0, loss=(loss or 9.0) + 0.5)
    if loss is not None:
        writer.row(step=taken, tokens=taken * STEP_TOKENS, seconds=1.0, valid_loss=loss)
    if finished:
        writer.finish(
            Outcome(
                status="finished" if loss is not None else "diverged",
                final_loss=loss,
                steps=taken,
                tokens=taken * STEP_TOKENS,
                seconds=2.0,
                parameters=1000,
                state_bytes={"mars-adamw": 12_000}.get(arm, 8000),
            )
        )
    writer.close()
    return writer.path


def comparison_losses() -> dict[tuple[str, int, float], float]:
    """(arm, seed, budget) -> loss of the whole comparison."""
    losses = {}
    for seed in PLAN.comparison.seeds:
        for budget in (1.0, *PLAN.comparison.ladder):
            losses["adamw", seed, budget] = law(seed, math.log(budget))
        for arm, gains in GAINS.items():
            losses[arm, seed, 1.0] = law(seed, gains[seed])
    return losses


def write_comparison(out: Path, losses: Mapping[tuple[str, int, float], float | None]) -> None:
    """The plan and these runs."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plan.toml", plan_toml(PLAN))
    for (arm, seed, budget), loss in losses.items():
        purpose = "compare" if budget == 1.0 else "ladder"
        write_run(out, arm, loss, purpose=purpose, seed=seed, budget=budget)


def write_tuning(out: Path, arm: str, trials: Mapping[float, float | None]) -> None:
    """Tuning runs of one arm, by learning rate."""
    for lr, loss in trials.items():
        write_run(out, arm, loss, purpose="tune", lr=lr)
