"""Whether another optimizer's run can go on as AdamW or MARS, or only seems to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ...optimizer_options import TABLE
from ..mars import MARS
from .wrap_options import GAMMA, LAST_GRAD

Group = Mapping[str, Any]

CARRIED = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
OURS = ("last_grad", "last_param", "gamma_probe", LAST_GRAD)
# Keys of groups that tell an optimizer whose step is not AdamW's.
FOREIGN_KEYS = {
    "momentum_decay": "NAdam, whose momentum has a schedule",
    "trust_clip": "LAMB, which scales the step by the weights",
    "trust_ratio": "LAMB, which scales the step by the weights",
    "rho": "another method",
    "d_coef": "Prodigy or D-Adaptation, which chooses the lr",
    "weight_lr_power": "schedule-free, which averages the weights",
}
_WAY = "finish the run with it, or begin a MARS optimizer with a warm-up"


def unwrapped(source: Optimizer) -> Optimizer:
    """The optimizer inside a host's wrapper, such as Accelerate's."""
    inner = getattr(source, "optimizer", None)
    return unwrapped(inner) if isinstance(inner, Optimizer) else source


def check_live(source: Optimizer) -> None:
    """Raise ValueError unless ``source`` takes AdamW's steps, or MARS's."""
    adams = (torch.optim.Adam, torch.optim.AdamW, MARS)
    if any("betas" not in group for group in source.param_groups):
        raise ValueError(
            "source has groups without betas, so no exp_avg: only optimizers of Adam's kind "
            "can be read"
        )
    if isinstance(source, adams):
        return
    raise ValueError(
        f"source is a {type(source).__name__}, whose steps need not be AdamW's: {_WAY}. If they "
        "are AdamW's, give its state_dict() and the model's named parameters"
    )


def check_groups(groups: Sequence[Group], to: str, *, coupled: bool = False) -> None:
    """Raise ValueError for settings that neither AdamW nor MARS goes on with.

    Args:
        groups: of the source.
        to: "mars", or "adamw", where a correction by ``variance_reduce`` is dropped like MARS's.
        coupled: whether decay is known to be Adam's, a part of the gradient, where a group does not
            say (``decoupled_weight_decay``; torch's have said so since 2.7).
    """
    for group in groups:
        for key, what in FOREIGN_KEYS.items():
            if key in group:
                raise ValueError(f"source has {key!r} in its groups, so it is {what}: {_WAY}")
        if "decoupled_weight_decay" in group and "amsgrad" not in group:
            raise ValueError(f"source is RAdam, whose first steps are not AdamW's: {_WAY}")
        if group.get("differentiable"):
            raise ValueError(
                "source has differentiable=True, which MARS does not support: set it to False"
            )
        for key in ("bias_correction", "correct_bias"):
            if not group.get(key, True):
                raise ValueError(f"source has {key}=False, AdamW and MARS correct it: {_WAY}")
        if GAMMA in group and to == "mars":
            raise ValueError(
                "source is under variance_reduce: call remove() on its handle first, and give "
                "migrate the gamma that you want"
            )
        decay = group.get("weight_decay", 0.0)
        if not group.get("decoupled_weight_decay", not coupled) and float(decay) != 0.0:
            raise ValueError(
                f"source is Adam with weight_decay={float(decay):g} inside the gradient (L2), "
                "and MARS decouples the decay: first set weight_decay=0 in its groups, then "
                "the decay that you want in the new ones"
            )


def check_unused(to: str, **options: Any) -> None:
    """Raise ValueError for options of a MARS where the target is an AdamW, which has none."""
    given = [name for name, value in options.items() if value != TABLE[name].default]
    if to == "adamw" and given:
        raise ValueError(
            f"{given[0]}={options[given[0]]!r} is an option of MARS, and to='adamw' makes an "
            "AdamW: leave it out"
        )


def check_rules(groups: Sequence[Group]) -> None:
    """Raise ValueError for groups of a MARS that keep no second moment."""
    for group in groups:
        if group.get("rule", "adamw") != "adamw":
            raise ValueError(
                f"a group with rule={group['rule']!r} keeps no second moment to carry over: "
                "give its parameters a new optimizer with a warm-up instead"
            )


def carried(param: Tensor, state: Mapping[str, Any], group: Group) -> dict[str, Any]:
    """The part of ``state`` that is carried over; {} if the parameter was never stepped.

    Raises:
        ValueError: if that is not all of what AdamW keeps, or not all of what the source keeps.
    """
    kept = {k: state[k] for k in CARRIED if k in state}
    if not group.get("amsgrad"):
        kept.pop("max_exp_avg_sq", None)
    missing = {"step", "exp_avg", "exp_avg_sq"} - kept.keys()
    if kept and group.get("amsgrad"):
        missing |= {"max_exp_avg_sq"} - kept.keys()
    others = [
        k
        for k, v in state.items()
        if k not in (*CARRIED, *OURS) and isinstance(v, Tensor) and v.shape == param.shape
    ]
    if kept and missing:
        raise ValueError(
            f"source has no {', '.join(sorted(missing))} for a parameter of shape "
            f"{tuple(param.shape)}: only Adam's kind of state can be carried"
        )
    if kept and others and param.ndim:
        raise ValueError(
            f"source keeps {others[0]!r} for each parameter, which AdamW does not: {_WAY}"
        )
    return kept
