"""``mars doctor``: which parameter of the user's model or optimizer gets what."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean


def examine(target: str, rule: str) -> str:
    """The table of the optimizer, or of the groups of the model, that ``module:function`` returns.

    Raises:
        UserError: if it cannot be imported or called, or returns something else.
    """
    made = _call(target)
    import torch

    from ..optim import MARS, param_groups

    if isinstance(made, MARS):
        return made.describe()
    if isinstance(made, torch.optim.Optimizer):
        raise UserError(f"{target} returned a {type(made).__name__}; a MARS or a model is needed")
    if isinstance(made, torch.nn.Module):
        try:
            return param_groups(made, rule=rule).describe()  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(str(error)) from None
    raise UserError(
        f"{target} returned a {type(made).__name__}; an optimizer or torch.nn.Module is needed"
    )


def _call(target: str) -> Any:
    module_name, colon, function_name = target.partition(":")
    if not colon or not module_name or not function_name:
        raise UserError(f"{target!r} must be MODULE:FUNCTION, such as train:make_optimizer")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        hint = did_you_mean(function_name, vars(module))
        raise UserError(f"{module_name} has no function {function_name!r}{hint}")
    try:
        with warnings.catch_warnings():  # the table says the same of each name
            warnings.filterwarnings("ignore", message=".* gives to Newton-Schulz what looks like")
            return function()
    except Exception as error:
        raise UserError(f"{target}() failed: {type(error).__name__}: {error}") from None
