"""The step of each rule, timed in whole training steps on the study's own model.

``gamma="auto"`` does more in each tenth step: a turn of ten has its share of that.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch.optim.optimizer import Optimizer

from mars_optim.experiment.tasks import Task
from mars_optim.experiment.training import Gradients, alone, build_optimizer, parallelize
from mars_optim.experiment.training.speed import Clock

from ..clock import Spread
from .plan import BASE, StudyPlan, timed_arms
from .runs import device_answers, reason

WARM_UP = 4  # steps; a MARS looks once at its correction in the third
LR = 1e-9  # all rules step one and the same model, which hardly moves

Turn = Callable[[int], tuple[float, float]]
"""So many training steps: their seconds, and the optimizer's in them."""


def time_rules(plan: StudyPlan, task: Task, say: Callable[[str], None]) -> dict[str, Any]:
    """Every timed arm in turns, who begins taking turns too; ratios are within a round.

    Args:
        plan: of the study.
        task: of the plan.
        say: is told of an arm that cannot be timed.

    Returns:
        Seconds of the optimizer's step, its ratio to the base's and its share of a training step,
        each with quartiles over rounds.
    """
    turns = _turns(plan, task, say)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(plan.design.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(turns[name](plan.design.turn))
    rows = {}
    for name, rounds in seconds.items():
        of_base = [own / base for (_, own), (_, base) in zip(rounds, seconds[BASE], strict=True)]
        rows[name] = {
            "step_seconds": _spread([own / plan.design.turn for _, own in rounds]),
            "ratio": _spread(of_base),
            "share": _spread([own / whole for whole, own in rounds]),
            "training_step_seconds": statistics.median(w / plan.design.turn for w, _ in rounds),
        }
    return {"rounds": plan.design.rounds, "turn": plan.design.turn, "rules": rows}


def _turns(plan: StudyPlan, task: Task, say: Callable[[str], None]) -> dict[str, Turn]:
    """A turn of each arm that works, warmed up."""
    ranks = alone()
    model = parallelize(task.build_model(0), ranks, plan.execution)
    turns = {}
    for name, arm in timed_arms(plan).items():
        try:
            optimizer = build_optimizer(model.bare, arm, lr=LR)
            gradients = Gradients(task, model, optimizer, plan.training, ranks, 0)
            turns[name] = _turn(gradients, optimizer, Clock(ranks.device))
            turns[name](WARM_UP)
        except Exception as error:
            turns.pop(name, None)
            if name == BASE or not device_answers(ranks.device):
                raise
            say(f"{name} is not timed: {reason(error)}")
    return turns


def _turn(gradients: Gradients, optimizer: Optimizer, clock: Clock) -> Turn:
    def turn(steps: int) -> tuple[float, float]:
        whole = own = 0.0
        for step in range(steps):
            clock.start()
            losses, _ = gradients.make(step)
            with clock.optimizer():
                optimizer.step()
            optimizer.zero_grad()
            losses.tolist()  # as training waits for the device, once a step
            seconds, of_optimizer = clock.stop()
            whole, own = whole + seconds, own + of_optimizer
        return whole, own

    return turn


def _spread(values: list[float]) -> dict[str, float]:
    return asdict(Spread.of(values))
