"""The class of optimizers that an arm names, found with its source and made for a run."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..plan import Arm, Plan
from ..plan.any_arm import is_any
from .any_optimizer import AnyOptimizer, find_optimizer
from .contract.trial import needs_closure


def with_sources(plan: Plan) -> Plan:
    """The plan with the source of each class in it; others are left as they are.

    Raises:
        UserError: naming the arm whose class cannot be imported, is no optimizer, takes no ``lr``
            or none of the options.
    """
    arms = {name: arm for name, arm in plan.arm.items() if is_any(arm.optimizer)}
    if not arms:
        return plan
    found = {}
    for name, arm in arms.items():
        key = f"arm.{name}.optimizer"
        cls, source = find_optimizer(arm.optimizer, Path(arm.folder), key)
        AnyOptimizer(cls, arm.lr, _python(arm.options), key=f"arm.{name}")
        found[name] = replace(arm, source=str(source))
    return replace(plan, arm={**plan.arm, **found})


def class_of(arm: Arm, name: str = "") -> AnyOptimizer:
    """The arm's class with its arguments.

    Args:
        arm: that names one.
        name: of the arm, for messages.

    Raises:
        UserError: if there is no such class, or its code is not what the arm's ``source`` says.
    """
    key = f"arm.{name}" if name else "the arm"
    cls, source = _found(arm.optimizer, Path(arm.folder), f"{key}.optimizer")
    if arm.source not in ("", source):
        raise UserError(
            f"{key}.optimizer = {arm.optimizer!r} is {source} here, and the run used "
            f"{arm.source}: install that one, or start the pilot again here"
        )
    options, of_kinds = _python(arm.options), _python(arm.group_options)
    return AnyOptimizer(cls, arm.lr, options, of_kinds, key)


def wants_closure(arm: Arm) -> bool:
    """Whether the arm's step has to be handed a function that makes the gradient again."""
    return is_any(arm.optimizer) and needs_closure(class_of(arm))


@functools.cache  # the code that this process has loaded, whatever becomes of its files
def _found(optimizer: str, folder: Path, key: str) -> tuple[Any, str]:
    cls, source = find_optimizer(optimizer, folder, key)
    return cls, str(source)


def _python(value: Any) -> Any:
    """Values of TOML as one writes them in Python: pairs such as betas are tuples."""
    if isinstance(value, dict):
        return {key: _python(entry) for key, entry in value.items()}
    return tuple(map(_python, value)) if isinstance(value, list) else value
