"""Plan of the study: model, arms, lengths and rates, from ``plan.toml`` beside this file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars_optim.experiment.plan import ARMS, Arm, ExecutionOptions, RunSpec
from mars_optim.experiment.plan.table import Number, Whole, from_dict, option, table
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.plan.training import LEAST_STEPS, TrainingPlan

from ..output import UserError

PLAN = Path(__file__).with_name("plan.toml")
BASE = "adamw"
"""The arm that the others are compared with: torch's own, fused."""
BASES = (BASE, "adamw-90-99")
"""The same with a beta2 of 0.99, which is better on texts in tokens (docs/results.md)."""
NEVER = 1e9
"""Minutes between checkpoints: one is written only where the time limit cuts a run."""


@table
class Design:
    """Lengths, rates, seeds, and what is timed."""

    long_steps: Whole = option(3072, "of the runs that are compared", ge=LEAST_STEPS)
    short_steps: Whole = option(614, "of those that find the rates", ge=LEAST_STEPS)
    rates: tuple[Number, ...] = option((1e-3, 2e-3, 4e-3), "every arm's, a constant factor apart")
    most_rates: Whole = option(5, "of an arm, whose lowest loss may lie at an end", ge=2)
    horizon_exponent: Number = option(-0.32, "of the best rate over the tokens", ge=-2.0, le=0.0)
    seeds: Whole = option(8, "of the long runs, at most", ge=1)
    late: tuple[str, ...] = option((), "arms that begin when the others have early_seeds seeds")
    early_seeds: Whole = option(2, "long runs of an arm before any arm has more", ge=1)
    timed: tuple[str, ...] = option((BASE,), "arms whose steps are timed")
    rounds: Whole = option(7, "of the timing", ge=2)
    turn: Whole = option(10, "steps in a row of one arm, in a round", ge=1)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All that decides which runs there are and what they are.

    Args:
        task: the model and its batches.
        training: how runs are trained; ``steps`` is the long runs'.
        execution: how they are carried out.
        design: lengths, rates, seeds.
        arms: compared, in the order of the runs; the first is the base.
    """

    task: GptPlan
    training: TrainingPlan
    execution: ExecutionOptions
    design: Design
    arms: dict[str, Arm]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @property
    def factor(self) -> float:
        """Between neighbouring rates."""
        return self.design.rates[1] / self.design.rates[0]

    def spec(self, name: str, lr: float, seed: int, steps: int, data: str) -> RunSpec:
        """One run of an arm; seed 0 is for the short ones."""
        purpose = "tune" if steps == self.design.short_steps else "compare"
        training = dataclasses.replace(self.training, steps=self.design.long_steps)
        arm = self.arms[name]
        return RunSpec(
            purpose=purpose,
            arm_name=name,
            arm=arm,
            lr=lr,
            seed=seed,
            steps=steps,
            task=self.task,
            training=training,
            data=data,
        )


def load(*, rehearse: bool = False, path: Path = PLAN) -> StudyPlan:
    """The study's plan, or the tiny one that rehearses it.

    Raises:
        UserError: if the rates are no equal grid, or an arm is not known.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    small = data.pop("rehearsal", {}) if rehearse else {}
    parts = {name: {**data[name], **small.get(name, {})} for name in data if name != "rehearsal"}
    design = from_dict(Design, parts["design"], "design")
    _check_grid(design.rates)
    _check_late(design.late, parts["arms"])
    # the data are known by their content, so that their folder may move
    task = from_dict(GptPlan, {**parts["task"], "corpus": "text"}, "task")
    execution = {"checkpoint_minutes": NEVER, "telemetry": False, **parts["execution"]}
    return StudyPlan(
        task,
        from_dict(TrainingPlan, parts["training"], "training"),
        from_dict(ExecutionOptions, execution, "execution"),
        design,
        {name: _arm(name, dict(given)) for name, given in parts["arms"].items()},
    )


def timed_arms(plan: StudyPlan) -> dict[str, Arm]:
    """The arms whose steps are timed, the base first."""
    names = dict.fromkeys((BASE, *plan.design.timed))
    return {name: plan.arms.get(name) or _arm(name, {"like": name}) for name in names}


def _arm(name: str, given: dict[str, Any]) -> Arm:
    like = given.pop("like", None)
    if like not in ARMS:
        raise UserError(f"arms.{name}.like = {like!r} must be one of {', '.join(ARMS)}")
    return from_dict(Arm, {**dataclasses.asdict(ARMS[like]), **given}, f"arms.{name}")


def _check_late(late: tuple[str, ...], arms: Iterable[str]) -> None:
    unknown = sorted(set(late) - set(arms))
    if unknown:
        raise UserError(f"design.late = {list(late)}: no arms of the plan: {', '.join(unknown)}")


def _check_grid(rates: tuple[float, ...]) -> None:
    factors = [b / a for a, b in itertools.pairwise(rates) if a > 0]
    equal = all(math.isclose(f, factors[0], rel_tol=1e-6) for f in factors)
    if len(rates) < 2 or len(factors) < len(rates) - 1 or not equal or factors[0] <= 1:
        raise UserError(f"design.rates = {list(rates)} must rise by one constant factor")
