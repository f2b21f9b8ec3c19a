"""An optimizer by its name, for hosts whose command line or configuration takes one."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.optim.optimizer import ParamsT

from ..errors import did_you_mean
from ..optimizer_options import NAMED, TABLE, check_choice
from .mars import MARS
from .param_groups import param_groups

_OF_GROUPS = tuple(inspect.signature(param_groups).parameters)[1:]


def list_optimizers() -> list[str]:
    """The names that :func:`create` takes."""
    return list(NAMED)


def create(name: str, model: nn.Module | ParamsT, /, **options: Any) -> MARS:
    """The optimizer of a name, with its published settings but for what ``options`` say.

        optimizer = create("mars-adamw", model, lr=1e-3, gamma="auto")

    Args:
        name: one of :func:`list_optimizers`; as an arm of ``mars pilot`` it is the same optimizer.
        model: a module, whose parameters are sorted by :func:`~mars_optim.param_groups`. Or
            parameters, names and parameters, or groups of them, as ``MARS`` takes them: then
            vectors alone are told apart from the rest.
        **options: of :class:`~mars_optim.MARS` and, for a module, of
            :func:`~mars_optim.param_groups`.

    Raises:
        ValueError: for an unknown name, or a value out of range.
        TypeError: for an option that there is not.
    """
    check_choice("name", name, NAMED)
    settings = {**NAMED[name], **options}
    if isinstance(model, nn.Module):
        return grouped(model, **settings)
    _check_names(settings, tuple(TABLE), " of parameters; give the model for those of param_groups")
    return MARS(model, **settings)


def grouped(model: nn.Module, **options: Any) -> MARS:
    """``MARS(param_groups(model, ...), ...)``: each option goes where it belongs.

    Raises:
        TypeError: for an option that neither has.
    """
    _check_names(options, (*_OF_GROUPS, *TABLE), "")
    groups = param_groups(model, **{k: v for k, v in options.items() if k in _OF_GROUPS})
    return MARS(groups, **{k: v for k, v in options.items() if k not in _OF_GROUPS})


def _check_names(options: dict[str, Any], known: tuple[str, ...], more: str) -> None:
    for name in options:
        if name not in known:
            raise TypeError(
                f"no optimizer has the option {name!r}{more}{did_you_mean(name, known)}"
            )
