"""The contract check of arms that name a class, before any run is spent on one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from ...errors import UserError
from ...files import write_json
from ..plan import Arm, Plan
from ..plan.any_arm import is_any
from ..records.checks import CHECKS, ArmCheck, read_checks
from ..tasks import Task
from ..training import build_optimizer
from ..training.arm_class import class_of
from ..training.contract import BLOCKS, Flaw, check_optimizer

_MATRICES = "set arm.{arm}.parameters = 'matrices', which gives the others to AdamW"
_WAYS_OUT = {
    "refuses a vector": _MATRICES,
    "passes a vector by": _MATRICES,
    "refuses a 4-D kernel": _MATRICES,
    "passes a 4-D kernel by": _MATRICES,
    "refuses a 0-d tensor": _MATRICES,
    "passes a 0-d tensor by": _MATRICES,
    "does not lower a quadratic": "give a smaller arm.{arm}.lr, or leave the arm out",
    "needs second derivatives": "leave the arm out",
}
_SHAPES: dict[str, Callable[[set[int]], bool]] = {
    " a 4-D kernel": lambda ndims: max(ndims) > 2,
    " a 4-D kernel by": lambda ndims: max(ndims) > 2,
    " a 0-d tensor": lambda ndims: 0 in ndims,
    " a 0-d tensor by": lambda ndims: 0 in ndims,
}
_ANOTHER = "leave the arm out, or fix it in a class of your own, 'file.py:Class'"


def check_arms(plan: Plan, task: Task, out: Path, only: str | None = None) -> dict[str, ArmCheck]:
    """Try each arm that names a class: its contract on a tiny problem, its class on the model.

    What was found is kept in ``out``, and an arm that has not changed is not tried again.

    Args:
        plan: of the pilot.
        task: whose model they are to train.
        out: folder of the pilot.
        only: the one arm that is to be run; None for all.

    Returns:
        What is to be told beside each arm's result, by arm.

    Raises:
        UserError: naming the first arm that cannot be run, why, and the way out.
    """
    arms = {
        name: arm
        for name, arm in plan.arm.items()
        if is_any(arm.optimizer) and only in (None, name)
    }
    if not arms:
        return {}
    before = read_checks(out, plan.arm)
    model = task.build_model(0)
    found = {}
    for name, arm in arms.items():
        known = before.get(name)
        again = known is None or known.of != _key(arm)
        found[name] = _check(name, arm) if again or known is None else known
        _check_shapes(name, arm, model, found[name])
        _build(name, arm, model)
    if before | found != before:
        out.mkdir(parents=True, exist_ok=True)
        kept = (before | found).items()
        write_json(out / CHECKS, {name: asdict(check) for name, check in kept})
    return found


def _check(name: str, arm: Arm) -> ArmCheck:
    chosen = class_of(arm, name)
    flaws = check_optimizer(chosen, matrices_only=arm.parameters == "matrices")
    blocking = [flaw for flaw in flaws if flaw.severity == BLOCKS]
    if blocking:
        raise UserError(_refusal(name, arm, [(flaw.name, flaw.text) for flaw in blocking]))
    told = tuple((flaw.name, flaw.text) for flaw in flaws if not _seen_to(flaw, arm))
    return ArmCheck(arm.optimizer, arm.source, told, _key(arm))


def _build(name: str, arm: Arm, model: nn.Module) -> None:
    """Make the optimizer on the model, which may have what the tiny problem has not."""
    try:
        build_optimizer(model, arm, lr=arm.lr, name=name)
    except UserError as error:
        way_out = f"; if it takes no groups, set arm.{name}.parameters = 'all'"
        raise UserError(f"{error}{way_out * (arm.parameters != 'all')}") from error


def _check_shapes(name: str, arm: Arm, model: nn.Module, check: ArmCheck) -> None:
    """Raise UserError if the class takes no kernels, or no 0-d tensors, and the model has some."""
    if arm.parameters == "matrices":
        return
    ndims = {p.ndim for p in model.parameters() if p.requires_grad}
    shapes = [what for what, has in _SHAPES.items() if has(ndims)]
    blocking = [row for row in check.found if row[0].endswith(tuple(shapes))] if shapes else []
    if blocking:
        raise UserError(_refusal(name, arm, blocking))


def _refusal(name: str, arm: Arm, found: Sequence[tuple[str, str]]) -> str:
    (what, text), *others = found
    if what == "cannot be made":
        return f"{text}: see arm.{name}.options"  # which names arm and class
    way_out = _WAYS_OUT.get(what, _ANOTHER).format(arm=name)
    more = f" (and {', '.join(other for other, _ in others)})" if others else ""
    return f"arm.{name}: {arm.optimizer} {what}{more}: {text} Way out: {way_out}"


def _seen_to(flaw: Flaw, arm: Arm) -> bool:
    """Whether the plan, or how we train, has answered it."""
    if flaw.name == "evaluation moves the weights":
        return True  # training's are put back to the bit
    return flaw.name == "has train() and eval()" and arm.own_schedule


def _key(arm: Arm) -> str:
    """Hash of all that a check depends on."""
    kept = {key: value for key, value in asdict(arm).items() if key != "folder"}
    text = json.dumps({**kept, "torch": str(torch.__version__)}, sort_keys=True)
    return sha256(text.encode()).hexdigest()
