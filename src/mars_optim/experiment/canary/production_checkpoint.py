"""The team's own checkpoint: weights, and AdamW with its moments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UserError
from ...optim import param_groups
from ...optim.tools.migrate import migrate
from ...optim.tools.parameter_order import (
    Given,
    Named,
    by_name,
    distinct,
    misfit,
    readings,
    sizes,
    usual,
)
from ...optim.tools.state_dict import check_form, check_moments, entered, names_of, read_file
from ...optim.values import number


@dataclass(frozen=True, slots=True)
class AdamWCheckpoint:
    """Checkpoint that a canary starts from.

    Args:
        model: state dict of the model.
        adamw: state dict of its optimizer.
        sha256: of the file.
    """

    model: Mapping[str, Any]
    adamw: Mapping[str, Any]
    sha256: str

    def restore(self, model: nn.Module) -> torch.optim.Optimizer:
        """Put the weights into ``model``; a torch AdamW with the moments.

        Raises:
            UserError: if the model is another, or the parameters' order cannot be told.
        """
        try:
            model.load_state_dict(dict(self.model))
        except RuntimeError as error:
            raise UserError(f"the checkpoint's model is not the task's: {error}") from None
        try:
            return migrate(self.adamw, in_saved_order(self.adamw, model), to="adamw", order="given")
        except ValueError as error:
            raise UserError(f"the checkpoint's optimizer does not fit the model: {error}") from None


def read_checkpoint(path: Path, *, model_key: str, optimizer_key: str) -> AdamWCheckpoint:
    """Read a file written by torch.save.

    Args:
        path: of the file.
        model_key: where the model's state dict is, such as "model" or "state.model".
        optimizer_key: where the optimizer's is.

    Raises:
        UserError: naming the file and the keys that it has.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        data = read_file(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {error}") from None
    model = _part(data, model_key, path, "--model-key")
    adamw = _part(data, optimizer_key, path, "--optimizer-key")
    if not all(isinstance(key, str) for key in model):
        raise UserError(f"{path}: {model_key!r} is not the state dict of a model")
    if not {"state", "param_groups"} <= adamw.keys():
        raise UserError(f"{path}: {optimizer_key!r} is not the state dict of an optimizer")
    try:
        check_form(adamw)
        check_moments(adamw)
        rates = [float(number("lr", group["lr"])) for group in adamw["param_groups"]]
    except ValueError as error:
        raise UserError(f"{path}: {optimizer_key!r}: {error}") from None
    if not adamw["state"]:
        raise UserError(
            f"{path}: its optimizer has taken no step, so it has no moments to carry over"
        )
    if not max(rates, default=0.0) > 0.0:
        raise UserError(
            f"{path}: the learning rate of its optimizer is {max(rates, default=0.0):g}, as at the "
            "end of a schedule, so neither arm would learn: take a checkpoint from before, or set "
            "lr in its param_groups"
        )
    return AdamWCheckpoint(model, adamw, digest)


def _part(data: Any, key: str, path: Path, option: str) -> Mapping[str, Any]:
    for name in key.split("."):
        try:
            data = entered(data, name)
        except LookupError as error:
            keys = error.args[0]
            raise UserError(f"{option} {key!r} is not in {path}; its keys are: {keys}") from None
    if not isinstance(data, Mapping):
        raise UserError(f"{option} {key!r} of {path} is not a state dict")
    return data


def in_saved_order(saved: Mapping[str, Any], model: nn.Module) -> list[Named]:
    """The model's parameters in the order in which the saved optimizer held them.

    By the names in the checkpoint where it has them; else in the one usual order that fits its
    groups' sizes and its moments' shapes: the model's own, matrices and vectors apart, the
    Trainer's, or that of ``param_groups``.

    Raises:
        UserError: if none fits, or several that differ do.
    """
    given = Given.of(model)
    if names := names_of(saved):
        try:
            return by_name(names, given)
        except ValueError as error:
            raise UserError(f"the checkpoint's optimizer and the model differ: {error}") from None
    groups = [size for size in sizes(saved) if size]
    orders = [order for name in usual(given) for order in readings(saved, given, name)]
    if len(groups) == 1:
        orders = readings(saved, given, "given")
    name_of = {id(p): n for n, p in given.named}
    ours = [[p[1] if isinstance(p, tuple) else p for p in g["params"]] for g in param_groups(model)]
    if [len(group) for group in ours] == groups:
        orders.append([(name_of[id(p)], p) for group in ours for p in group])
    fitting = distinct(order for order in orders if misfit(saved, order) is None)
    if len(fitting) == 1:
        return fitting[0]
    why = "several usual ones fit" if fitting else "none of the usual ones fits"
    raise UserError(
        f"the order of the checkpoint's {sum(groups)} parameters in groups of {groups} is not "
        f"known, {why}: save it with names, as the state_dict() of "
        "mars_optim.migrate(state_dict, model.named_parameters() in its order, to='adamw', "
        "order='given')"
    )
