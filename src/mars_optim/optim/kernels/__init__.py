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
from ..sharded import Shards, like, local, update_whole
from . import foreach, fused, mixed

Update = Callable[[list[Tensor], list[Tensor], list[State], Settings], None]

BACKENDS: dict[str, Callable[..., None]] = {
    "reference": reference.update,
    "foreach": foreach.update,
    "fused": fused.update,
}


def state_dtypes(param: Tensor, settings: Settings) -> dict[str, torch.dtype]:
    """The buffers that the group's rule needs, and the dtype of each.

    ``exp_avg``; for adamw ``exp_avg_sq`` and with amsgrad ``max_exp_avg_sq``; where a gradient
    difference is taken ``last_grad``. In the parameter's dtype unless the group asks otherwise.
    """
    names = ["exp_avg"]
    if settings.rule == "adamw":
        names.append("exp_avg_sq")
        if settings.amsgrad:
            names.append("max_exp_avg_sq")
    asked: dict[str, torch.dtype | None] = dict.fromkeys(names, settings.state_dtype)
    if settings.takes_difference:
        asked["last_grad"] = settings.last_grad_dtype
    if param.is_complex():
        asked = dict.fromkeys(asked, None)
    return {name: dtype or param.dtype for name, dtype in asked.items()}


def init_state(param: Tensor, state: dict[str, Any], settings: Settings) -> None:
    """Add what ``state`` lacks, all zero: ``step`` (float32, 0-d, as torch's AdamW) and buffers."""
    if "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
    for name, dtype in state_dtypes(param, settings).items():
        if name not in state:
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

    Complex tensors are handed on as pairs of real ones that share their memory, and DTensors (all
    of one mesh and placement) as this process's shards.

    Raises:
        ValueError: as :func:`choose`.
    """
    shards = Shards.of(params)
    grads = [like(g, p) for g, p in zip(grads, params, strict=True)]
    xs, gs = [local(p) for p in params], [local(g) for g in grads]
    name = choose(xs, gs, settings, use_foreach=use_foreach, use_fused=use_fused)
    if name == "fused":
        fused.place_steps(params, states)
    if shards is None:
        return _laid_out(BACKENDS[name], params, grads, states, settings)
    if name == "reference":
        return partial(update_whole, _reference_now, params, grads, states, settings)
    own_states = [{key: local(value) for key, value in state.items()} for state in states]
    return _laid_out(partial(BACKENDS[name], shards=shards), xs, gs, own_states, settings)


def _laid_out(
    backend: Callable[..., None],
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
) -> Callable[[], None]:
    """``backend`` with plain tensors as it takes them: real, and all of one dtype."""
    if params[0].is_complex():
        params, grads = [as_real(p) for p in params], [as_real(g) for g in grads]
        states = [{key: as_real(value) for key, value in state.items()} for state in states]
    if mixed.needed(params, grads, states, settings):
        return partial(mixed.update, backend, params, grads, states, settings)
    return partial(backend, params, grads, states, settings)


def _reference_now(
    params: list[Tensor], grads: list[Tensor], states: list[State], settings: Settings
) -> None:
    _laid_out(reference.update, params, grads, states, settings)()


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
