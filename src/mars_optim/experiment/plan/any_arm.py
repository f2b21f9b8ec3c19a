"""An arm whose optimizer is any class by its name: what can be told without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from ...errors import UserError, did_you_mean

OURS = ("torch-adamw", "torch-nadam", "greedy-alignment", "mars")
WORDS = (*OURS, "external")
KINDS = ("matrix", "embedding", "head", "router", "other", "vector")
"""Kinds of parameters, as :func:`mars_optim.param_groups` sorts them."""
TAKEN = ("lr", "params", "named_parameters", "model")
"""Arguments that a run hands over itself."""
BESIDE = ("lr_1d", "lr_1d_ratio", "weight_decay_1d", "betas_1d", "group_options")
"""Keys of an arm that tell one kind of parameter from another."""


def is_any(optimizer: str) -> bool:
    """Whether this is the name of a class, ``"package.module:Class"`` or ``"file.py:Class"``."""
    return ":" in optimizer


def known_or_any(optimizer: object) -> str:
    """Check an arm's ``optimizer``: a word that we know, or the name of a class."""
    if isinstance(optimizer, str) and (optimizer in WORDS or is_any(optimizer)):
        return optimizer
    words = ", ".join(map(repr, WORDS))
    raise PydanticCustomError(
        "literal_error", "", {"expected": f"{words} or a class, 'package.module:Class'"}
    )


def split_name(source: str, key: str) -> tuple[str, str]:
    """Module or file, and class, of ``"package.module:Class"``.

    Args:
        source: that names it.
        key: of the plan, for messages.

    Raises:
        UserError: if it has another form.
    """
    where, colon, name = source.rpartition(":")
    if where and colon and name.isidentifier():
        return where, name
    raise UserError(
        f'{key} = {source!r} must be "package.module:Class" or "file.py:Class", such as '
        '"pytorch_optimizer:SOAP"'
    )


def check_keywords(arm: str, options: Mapping[str, Any], of_kinds: Mapping[str, Any]) -> None:
    """Raise UserError for keyword arguments that no class could take, or that a run gives itself.

    Args:
        arm: its name.
        options: of the class.
        of_kinds: further keys of parameter groups, by kind of parameter.
    """
    _check_names(f"arm.{arm}.options", options, arm)
    for kind, keys in of_kinds.items():
        where = f"arm.{arm}.group_options.{kind}"
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or f"; allowed: {', '.join(KINDS)}"
            raise UserError(f"{where}: unknown kind of parameter{hint}")
        if not isinstance(keys, Mapping):
            raise UserError(f"{where} must be a table, not {keys!r}")
        _check_names(where, keys, arm)


def _check_names(where: str, options: Mapping[str, Any], arm: str) -> None:
    for key in options:
        if key == "lr":
            raise UserError(f"{where}.lr: the pilot tunes arm.{arm}.lr; leave this one out")
        if key in TAKEN:
            raise UserError(f"{where}.{key}: the run passes the parameters itself; leave it out")
        if not key.isidentifier():
            raise UserError(f"{where}: {key!r} is not a valid name of a keyword argument")


def check_route(arm: str, parameters: str, given: Mapping[str, Any]) -> None:
    """Raise UserError for keys that have no effect on the parameters that an arm is given.

    Args:
        arm: its name.
        parameters: "all", "groups" or "matrices".
        given: keys out of BESIDE that are not at their default, with their values.
    """
    if parameters == "matrices":
        return
    passed_over = [key for key in given if parameters == "all" or key == "betas_1d"]
    if passed_over:
        wanted = "'matrices'" if passed_over[0] == "betas_1d" else "'groups' or 'matrices'"
        raise UserError(
            f"arm.{arm}.{passed_over[0]} = {given[passed_over[0]]} has no effect at "
            f"parameters = {parameters!r}: leave it out, or use parameters = {wanted}"
        )
