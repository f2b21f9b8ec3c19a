"""One run of a plan, for folders that are written by hand."""

from __future__ import annotations

from mars_optim.experiment.pilot.tuning import spec_of
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
    return spec_of(
        plan,
        size or plan.sizes()[0],
        data,
        purpose=purpose,
        arm_name=arm,
        lr=lr,
        seed=seed,
        steps=steps,
        arm=settings,
    )
