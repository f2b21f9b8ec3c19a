"""The same step in several speeds: one signature, one oracle (``reference.update``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..reference import State
from ..settings import Settings
from . import foreach, fused, mixed

Update = Callable[[list[Tensor], list[Tensor], list[State], Settings], None]

BACKENDS: dict[str, Update] = {
    "reference": reference.update,
    "foreach": foreach.update,
    "fused": fused.update,
}


def init_state(param: Tensor, state: State, settings: Settings) -> None:
    """Add the buffers that the group's rule needs and ``state`` lacks, all zero, in the group's
    dtypes for state (the parameter's own unless given).

    ``step`` (float32, 0-d, as torch's AdamW), ``exp_avg``; for adamw ``exp_avg_sq`` and with
    amsgrad ``max_exp_avg_sq``; where a gradient difference is taken ``last_grad``.
    """
    names = ["exp_avg"]
    if settings.rule == "adamw":
        names.append("exp_avg_sq")
        if settings.amsgrad:
            names.append("max_exp_avg_sq")
    if settings.takes_difference:
        names.append("last_grad")
    if "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
    for name in names:
        if name not in state:
            dtype = settings.last_grad_dtype if name == "last_grad" else settings.state_dtype
            dtype = None if param.is_complex() else dtype
            state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)


def prepare(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    *,
    use_foreach: bool | None,
    use_fused: bool | None,
) -> Callable[[], None]:
    """Choose the backend and lay out its arguments; the step is taken when the result is called.

    Complex tensors are handed on as pairs of real ones that share their memory.

    Raises:
        ValueError: as :func:`choose`.
    """
    name = choose(params, grads, settings, use_foreach=use_foreach, use_fused=use_fused)
    if name == "fused":
        fused.place_steps(params, states)
    if params[0].is_complex():
        params, grads = [as_real(p) for p in params], [as_real(g) for g in grads]
        states = [{key: as_real(value) for key, value in state.items()} for state in states]
    if mixed.needed(params, grads, states, settings):
        return partial(mixed.update, BACKENDS[name], params, grads, states, settings)
    return partial(BACKENDS[name], params, grads, states, settings)


def as_real(value: Any) -> Any:
    """A complex tensor as a real view with a last dimension of 2; anything else as it is."""
    if isinstance(value, Tensor) and value.is_complex():
        return torch.view_as_real(value.resolve_conj())
    return value


def choose(
    params: list[Tensor],
    grads: list[Tensor],
    settings: Settings,
    *,
    use_foreach: bool | None,
    use_fused: bool | None,
) -> str:
    """The name in :data:`BACKENDS` of the fastest right path, or of the one that was forced.

    Raises:
        ValueError: if ``fused=True`` is asked for where torch's fused kernel cannot do the work.
    """
    if (use_fused is not False and use_foreach is None) or use_fused:
        reason = fused.why_not(params, grads, settings)
        if reason is None:
            return "fused"
        if use_fused:
            raise ValueError(f"fused=True is not possible here: {reason}; leave fused=None")
    return "reference" if use_foreach is False else "foreach"
