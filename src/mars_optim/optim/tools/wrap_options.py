"""Options of :func:`~mars_optim.variance_reduce`, in the groups and by the caller; checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.optim.optimizer import Optimizer

from ...optimizer_options import TABLE
from ..state.fit import check_dense
from ..values import check_option, is_auto, number

LAST_GRAD = "mars_last_grad"
GAMMA, CLIP = "mars_gamma", "mars_clip"

Group = dict[str, Any]

# whose steps are an average of gradients, or orthogonalise it
AVERAGING = (torch.optim.SGD, torch.optim.Muon)


def gamma_given(name: str, gamma: Any) -> float | Literal["auto"]:
    """A number, or "auto"."""
    if is_auto(name, gamma, "a number of at least 0"):
        return "auto"
    return number(name, gamma)


def check_options(gamma: Any, clip: Any) -> None:
    """Raise ValueError for a gamma or clip out of range."""
    if gamma != "auto":
        check_option("gamma", gamma, TABLE["gamma"])
    check_option("clip", clip, TABLE["clip"])


def check_choosable(
    optimizer: Optimizer,
    groups: Sequence[Group],
    clip: float | None,
    beta1: float | None,
    optimize_1d: bool,
) -> None:
    """Raise ValueError where the next gradient does not tell how gamma changes the loss."""
    name = type(optimizer).__name__
    if clip is not None:
        raise ValueError(
            f"clip={clip!r} cannot be combined with gamma='auto', since gamma would act on "
            "the clip, too: leave clip out (or None), or give a number as gamma"
        )
    if not isinstance(optimizer, AVERAGING):
        raise ValueError(
            f"gamma='auto' does not take {name}: gamma would act on more than the step, such "
            "as on a second moment. Give a number, or use MARS(..., gamma='auto'), which is "
            "AdamW, Lion, Shampoo or Muon; SGD with momentum and Muon can be wrapped"
        )
    if any(group.get("nesterov") for group in groups):
        raise ValueError(
            f"gamma='auto' does not take {name} with nesterov=True, which already is the "
            "correction at gamma = 1 - momentum: set nesterov=False"
        )
    corrected = [g for g in groups if optimize_1d or any(p.ndim >= 2 for p in g["params"])]
    if beta1 == 0.0 or any(not group["momentum"] for group in corrected):
        raise ValueError(
            f"gamma='auto' needs {name} with a momentum above 0: without momentum there is no lag"
        )


def check_remnants(optimizer: Optimizer, gamma: float | str, clip: float | None) -> None:
    """Raise ValueError where groups hold another gamma or clip, of a checkpoint loaded before."""
    for group in optimizer.param_groups:
        if GAMMA in group and (group[GAMMA], group.get(CLIP)) != (gamma, clip):
            raise ValueError(
                f"a loaded checkpoint says {GAMMA}={group[GAMMA]!r}, {CLIP}={group.get(CLIP)!r} "
                f"where gamma={gamma!r}, clip={clip!r} are given: give those, or wrap the "
                "optimizer first and load afterwards"
            )


def beta1_of(optimizer: Optimizer, group: Group, beta1: float | None) -> float:
    """The decay of the optimizer's first moment, which scales the correction; as given, if it is.

    Raises:
        ValueError: where it is not to be found.
    """
    if beta1 is None:
        beta1 = group["betas"][0] if "betas" in group else group.get("momentum")
    if beta1 is None or not 0.0 <= float(beta1) < 1.0:
        raise ValueError(
            f"{type(optimizer).__name__} has no 'betas' or 'momentum' in [0, 1) in its "
            f"groups (found {beta1!r}): give variance_reduce(..., beta1=) the decay of its "
            "first moment"
        )
    return float(beta1)


def check_gradients(optimizer: Optimizer, group: Group) -> None:
    """Raise ValueError, before any gradient is exchanged, for one that cannot be corrected."""
    for param in group["params"]:
        if param.grad is None:
            continue
        check_dense(optimizer.param_groups, param, "variance_reduce")
        last_grad = optimizer.state.get(param, {}).get(LAST_GRAD)
        if last_grad is not None and last_grad.shape != param.shape:
            raise ValueError(
                f"{LAST_GRAD} of a parameter of shape {tuple(param.shape)} has shape "
                f"{tuple(last_grad.shape)}: the checkpoint is another model's"
            )
