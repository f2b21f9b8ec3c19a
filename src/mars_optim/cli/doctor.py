"""``mars doctor``: which parameter of the user's model or optimizer gets what."""

from __future__ import annotations

import gc
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean

LEGEND = (
    "How to read it: correction is what MARS adds (approx: by the last step's gradient, none: the "
    "plain rule), gamma sets its strength, state is the optimizer's memory, path is the code that "
    "takes the step. A line that begins with an exclamation mark needs your attention."
)


def examine(target: str, rule: str, arguments: Sequence[str] = ()) -> str:
    """The table of an optimizer, or of the groups of a model.

    Args:
        target: a script, which runs up to its first optimizer step, or ``module:function``.
        rule: for a model, or an optimizer that is not a MARS.
        arguments: of the script.

    Raises:
        UserError: if it cannot be run, imported or called, or makes something else.
    """
    if target.endswith(".py") and ":" not in target:
        return _of_script(Path(target), rule, arguments)
    if arguments:
        raise UserError(
            f"{arguments[0]!r} must be left out: only a script takes arguments, and {target} "
            "is called without any"
        )
    made = _call(target)
    import torch

    from ..optim import MARS

    if isinstance(made, MARS):
        return f"{made.describe()}\n\n{LEGEND}"
    if isinstance(made, torch.optim.Optimizer):
        return _swap(target, made, rule)
    if isinstance(made, torch.nn.Module):
        return _groups(made, rule)
    raise UserError(
        f"{target} returned a {type(made).__name__}: it must return a torch.optim.Optimizer "
        "or a torch.nn.Module"
    )


def _of_script(path: Path, rule: str, arguments: Sequence[str]) -> str:
    """Table of the swap, for the first optimizer that takes a step in a script."""
    from .first_step import run_to_first_step

    print(f"Running {path} up to its first optimizer step ...", file=sys.stderr)
    optimizer = run_to_first_step(path, arguments)
    from ..optim import MARS

    if isinstance(optimizer, MARS):
        table = optimizer.describe() + _sparse(optimizer, type(optimizer).__name__)
        return f"{table}\n\n{LEGEND}"
    return _swap(str(path), optimizer, rule)


def _sparse(optimizer: Any, who: str) -> str:
    """A line for the first sparse gradient, at which a step of ``who`` would raise; or nothing."""
    from ..optim.state.fit import check_dense

    try:
        for group in optimizer.param_groups:
            for param in group["params"]:
                check_dense(optimizer.param_groups, param, who)
    except ValueError as error:
        return f"\n! {error}"
    return ""


def _swap(where: str, optimizer: Any, rule: str) -> str:
    """Table of a MARS in place of another optimizer, with its learning rates and decays."""
    from ..optim import MARSAdamW

    name = type(optimizer).__name__
    if rule != "adamw":
        model = model_of(optimizer)
        if model is None:
            raise UserError(
                f"{where}: no model holds the parameters of its {name}; give --rule adamw, or "
                "MODULE:FUNCTION, a function that returns the model"
            )
        table, swap = _groups(model, rule), f"param_groups(model, rule={rule!r})"
    else:
        groups = [
            {
                "params": group["params"],
                "lr": float(group.get("initial_lr", group["lr"])),  # before a warm-up
                "weight_decay": float(group.get("weight_decay", 0.0)),
            }
            for group in optimizer.param_groups
        ]
        table, swap = MARSAdamW(groups).describe(), "MARSAdamW"
    table += _sparse(optimizer, "MARS" if rule != "adamw" else swap)
    return (
        f"Your optimizer is {name}, not a MARS yet. With {swap} in its place (from mars_optim), "
        f"it would do this:\n\n{table}\n\n{LEGEND}"
    )


def _groups(model: Any, rule: str) -> str:
    from ..optim import param_groups

    try:
        return param_groups(model, rule=rule).describe()  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from None


def model_of(optimizer: Any) -> Any:
    """The model whose parameters an optimizer has; None if there is none.

    Of several, the one with the fewest parameters: a wrapper holds no more, a larger model would.
    """
    import torch

    wanted = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found: tuple[int, Any] | None = None
    for thing in gc.get_objects():
        if not issubclass(type(thing), torch.nn.Module):  # asks no property of others
            continue
        held = {id(p) for p in thing.parameters()}
        if wanted <= held and (found is None or len(held) < found[0]):
            found = len(held), thing
    return found[1] if found else None


def _call(target: str) -> Any:
    module_name, colon, function_name = target.partition(":")
    if not colon or not module_name or not function_name:
        raise UserError(
            f"{target!r} must be a script, such as train.py, or MODULE:FUNCTION, such as "
            "train:make_optimizer"
        )
    sys.path.insert(0, str(Path.cwd()))
    ours = sys.argv
    sys.argv = [module_name]  # a script that reads its arguments when imported sees none of ours
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:
        raise UserError(
            f"importing {module_name} ended the program (exit {error.code}): put what it runs "
            "under if __name__ == '__main__'"
        ) from None
    except Exception as error:
        raise UserError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    finally:
        sys.argv = ours
    function = getattr(module, function_name, None)
    if function is not None and not callable(function):
        raise UserError(
            f"{target} is a {type(function).__name__}, not a function: name a function that "
            f"returns it, or give the script: mars doctor {module_name}.py"
        )
    if not callable(function):
        hint = did_you_mean(function_name, vars(module))
        raise UserError(f"{module_name} has no function {function_name!r}{hint}")
    try:
        with warnings.catch_warnings():  # the table says the same of each name
            warnings.filterwarnings("ignore", message=".* gives to Newton-Schulz what looks like")
            return function()
    except Exception as error:
        raise UserError(f"{target}() failed: {type(error).__name__}: {error}") from None
