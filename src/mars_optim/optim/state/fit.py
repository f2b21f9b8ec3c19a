"""Whether state fits its parameters, and which parameter it is that it does not fit.

What a step is given is looked at in ``backends.layout``; here is what is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..backends.layout import of_another_kind
from ..distributed.sharded import is_sharded
from ..gamma import kept as gamma_kept
from ..types import BUFFERS

Group = dict[str, Any]

LAST_PARAM = "last_param"  # x_{t-1}, of correction="exact"
WAY_OUT = (
    "it is another model's, or the order of the parameters differs. Load the state of this model, "
    "or leave this parameter out of the state: it begins anew"
)


def called(groups: Sequence[Group], param: Tensor) -> str:
    """A parameter as the user knows it: by name, or by where it stands."""
    for i, group in enumerate(groups):
        for j, other in enumerate(group["params"]):
            if other is param:
                names = group.get("param_names")
                return f"parameter {names[j]!r}" if names else f"parameter {j} of group {i}"
    return "a parameter"


def check_dense(groups: Sequence[Group], param: Tensor, who: str) -> None:
    """Raise ValueError for a parameter with a sparse gradient, which ``who`` does not take."""
    if param.grad is not None and param.grad.layout is not torch.strided:
        raise ValueError(
            f"{who} does not take sparse gradients ({called(groups, param)}, "
            f"shape {tuple(param.shape)}): use sparse=False in its embedding, or give that "
            "parameter to torch.optim.SparseAdam"
        )


def check_state(groups: Sequence[Group], state: Mapping[Any, Any]) -> None:
    """Raise ValueError for state that does not fit its parameter, naming it and both shapes.

    Args:
        groups: with the parameters, and their names if they have any.
        state: of each parameter, for those that have any.
    """
    for group in groups:
        for param in group["params"]:
            its = state.get(param)
            if its and not is_lazy(param) and (reason := misfit(param, its)):
                raise ValueError(f"{called(groups, param)} {reason}: {WAY_OUT}")
        wrong = gamma_kept.unfit(group) if "gamma_schedule" in group else None
        if isinstance(wrong, tuple):
            number, reason = wrong
            raise ValueError(f"{called(groups, group['params'][number])} {reason}: {WAY_OUT}")
        if wrong:
            raise ValueError(wrong)


def misfit(param: Tensor, state: Mapping[str, Any]) -> str | None:
    """Why this state cannot be the parameter's, or None."""
    for name in (*BUFFERS, LAST_PARAM):
        kept = state.get(name)
        if kept is None:
            continue
        if is_sharded(param) and not is_sharded(kept):  # a step looks at the shard
            continue
        if not isinstance(kept, Tensor):
            return f"has a state {name!r} that is a {type(kept).__name__}, not a tensor"
        if reason := of_another_kind(param, name, kept):
            return reason
    return None


def check_names(groups: Sequence[Group], loaded: Sequence[Group]) -> None:
    """Raise ValueError where names show that the loaded state is in another order.

    A name that has merely changed is no evidence: only one that stands elsewhere is.

    Args:
        groups: as they are, with names if they have any.
        loaded: as the checkpoint has them.
    """
    pairs = [
        (own, other)
        for group, new in zip(groups, loaded, strict=True)
        for own, other in zip(
            group.get("param_names") or (), new.get("param_names") or (), strict=False
        )
    ]
    ours, theirs = {own for own, _ in pairs}, {other for _, other in pairs}
    for own, other in pairs:
        if own != other and (own in theirs or other in ours):
            raise ValueError(
                f"parameter {own!r} stands where the loaded state has {other!r}: the order of the "
                "parameters differs. Give them in the order of the saved optimizer, or sort the "
                "state by names in a hook (register_load_state_dict_pre_hook)"
            )
