"""The team's own checkpoint: weights, and AdamW with its moments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..optim import migrate, param_groups
from ..records import UserError

Named = tuple[str, Tensor]


@dataclass(frozen=True, slots=True)
class AdamWCheckpoint:
    """What a canary starts from.

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
            raise UserError(
                f"the checkpoint is of another model than the task's: {error}"
            ) from None
        try:
            return migrate(self.adamw, in_saved_order(self.adamw, model), to="adamw")
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
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        raise UserError(f"{path} cannot be read as a checkpoint: {error}") from None
    model = _part(data, model_key, path, "--model-key")
    adamw = _part(data, optimizer_key, path, "--optimizer-key")
    if not {"state", "param_groups"} <= adamw.keys():
        raise UserError(f"{path}: {optimizer_key!r} is no optimizer's state dict")
    if not adamw["state"]:
        raise UserError(
            f"{path}: its optimizer has taken no step, so there are no moments to carry"
        )
    return AdamWCheckpoint(model, adamw, digest)


def _part(data: Any, key: str, path: Path, option: str) -> Mapping[str, Any]:
    for name in key.split("."):
        if not isinstance(data, Mapping) or name not in data:
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else "none"
            raise UserError(f"{option} {key!r} is not in {path}; there are: {keys}")
        data = data[name]
    if not isinstance(data, Mapping):
        raise UserError(f"{option} {key!r} of {path} is no state dict")
    return data


def in_saved_order(saved: Mapping[str, Any], model: nn.Module) -> list[Named]:
    """The model's parameters in the order in which the saved optimizer held them.

    By the names in the checkpoint where it has them; else in the first usual order that fits its
    groups' sizes: the model's own, matrices before vectors, or that of ``param_groups``.

    Raises:
        UserError: if none fits.
    """
    named: list[Named] = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    by_name = dict(named)
    groups = saved["param_groups"]
    names = [n for group in groups for n in group.get("param_names") or ()]
    if names:
        if set(names) != set(by_name):
            missing = sorted(set(names) ^ set(by_name))
            raise UserError(f"the checkpoint's optimizer and the model differ in {missing[0]!r}")
        return [(n, by_name[n]) for n in names]
    name_of = {id(p): n for n, p in named}
    sorted_groups = [g["params"] for g in param_groups(model)]
    orders: list[list[list[Named]]] = [
        [named],
        [[x for x in named if x[1].ndim >= 2], [x for x in named if x[1].ndim < 2]],
        [[(name_of[id(p)], p) for p in _tensors(params)] for params in sorted_groups],
    ]
    sizes = [len(group["params"]) for group in groups]
    for order in orders:
        flat = [entry for group in order for entry in group]
        if [len(group) for group in order] == sizes and _shapes_fit(saved, flat):
            return flat
    raise UserError(
        f"the order of the checkpoint's {sum(sizes)} parameters in groups of {sizes} cannot be "
        "told: save it from an optimizer made with model.named_parameters()"
    )


def _tensors(params: Any) -> list[Tensor]:
    return [p[1] if isinstance(p, tuple) else p for p in params]


def _shapes_fit(saved: Mapping[str, Any], order: list[Named]) -> bool:
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    pairs = zip(ids, order, strict=True)
    moments = ((saved["state"].get(i, {}).get("exp_avg"), p) for i, (_, p) in pairs)
    return all(m is None or m.shape == p.shape for m, p in moments)
