"""What one run of a plan is, for folders that are written by hand."""

from __future__ import annotations

from mars_optim.experiment.plan import Arm, Plan, RunSpec
from mars_optim.experiment.plan.sizes import Size


def spec_in(
    plan: Plan,
    purpose: str,
    arm: str,
    lr: float,
    seed: int,
    steps: int,
    *,
    size: Size | None = None,
    settings: Arm | None = None,
    data: str = "0" * 64,
) -> RunSpec:
    """A run of the plan; ``size`` in place of its own, ``settings`` in place of the arm's."""
    return RunSpec(
        purpose=purpose,
        arm_name=arm,
        arm=settings or plan.arm[arm],
        lr=lr,
        seed=seed,
        steps=steps,
        task=(size or plan).task,
        training=(size or plan).training,
        data=data,
    )
