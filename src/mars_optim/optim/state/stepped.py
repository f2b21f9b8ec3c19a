"""The parameters that a step moves, since they have a gradient, with their states."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...optimizer_options import MATRIX_RULES
from .. import backends
from ..distributed.sharded import layout, local
from ..groups.split import check_shape
from ..hyperparameters import Settings
from ..types import State
from .counter import counter
from .fit import check_dense

Row = tuple[list[Tensor], list[Tensor], list[State]]
"""Parameters, their gradients and their states, in one order."""


def made_ready(
    groups: Sequence[dict[str, Any]],
    states: MutableMapping[Tensor, Any],
    group: dict[str, Any],
    settings: Settings,
    *,
    all_params: bool,
) -> list[Tensor]:
    """The parameters of ``group`` that have a gradient, or all; their state is made or mended.

    Args:
        groups: of the optimizer, to call a parameter by its name.
        states: of the optimizer.
        group: one of them.
        settings: of that group.
        all_params: those without a gradient, too.

    Raises:
        ValueError: for a sparse gradient, or a shape that the group's rule cannot take.
    """
    dtypes: dict[torch.dtype, dict[str, torch.dtype]] = {}
    any_shape = group.get("kind") != "matrix" and settings.rule not in MATRIX_RULES
    found = [p for p in group["params"] if all_params or p.grad is not None]
    for param in found:
        check_dense(groups, param, "MARS")
        if not any_shape:
            check_shape(param, settings, group.get("kind"))
        dtype, state = param.dtype, states[param]
        if dtype not in dtypes:
            dtypes[dtype] = backends.state_dtypes(dtype, settings)
        if "step" in state:  # tools cast a live state, too
            beside = local(param).device if settings.capturable else None
            state["step"] = counter(state["step"], device=beside)
        backends.init_state(param, state, dtypes[dtype], step_beside=settings.capturable)
    return found


def alike(params: list[Tensor], grads: list[Tensor], states: list[State]) -> Iterable[Row]:
    """The same, apart by device, dtype and layout."""
    rows: dict[Any, Row] = {}
    for param, grad, state in zip(params, grads, states, strict=True):
        row = rows.setdefault((param.device, param.dtype, layout(param)), ([], [], []))
        row[0].append(param)
        row[1].append(grad)
        row[2].append(state)
    return rows.values()
