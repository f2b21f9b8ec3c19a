"""The same step in several speeds: one signature, one oracle (``reference.update``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..correction import GlobalNorm
from ..distributed.sharded import Shards, as_real, like, local, update_whole
from ..hyperparameters import Settings
from ..telemetry import Observe, tell
from ..types import State
from . import foreach, fused, layout, mixed_dtype
from .amp import Amp, unless
from .cpu import native
from .cuda import triton_backend
from .layout import MisfitError

BACKENDS: dict[str, Callable[..., None]] = {
    "reference": reference.update,
    "foreach": foreach.update,
    "fused": fused.update,
    "native": native.update,
    "triton": triton_backend.update,
}
STATE = reference.KEPT
# Fused kernels for a whole step, if they can: torch's own, ours for the CPU, ours for CUDA.
FUSED = {"fused": fused, "native": native, "triton": triton_backend}


__all__ = [
    "BACKENDS",
    "FUSED",
    "STATE",
    "Amp",
    "MisfitError",
    "choose",
    "explain",
    "init_state",
    "prepare",
    "state_dtypes",
]


def state_dtypes(dtype: torch.dtype, settings: Settings) -> dict[str, torch.dtype]:
    """The buffers that the group's rule needs for a parameter of this dtype, and the dtype of each.

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
    if dtype.is_complex:
        asked = dict.fromkeys(asked, None)
    return {name: own or dtype for name, own in asked.items()}


def init_state(
    param: Tensor,
    state: dict[str, Any],
    dtypes: dict[str, torch.dtype],
    *,
    step_beside: bool = False,
) -> None:
    """Add what ``state`` lacks, all zero: ``step`` (float32, 0-d, as torch's AdamW) and buffers.

    Args:
        param: the state's.
        state: changed.
        dtypes: of the buffers, from :func:`state_dtypes`.
        step_beside: whether the counter lives on the parameter's device, rather than on the CPU.
    """
    if "step" not in state:
        device = local(param).device if step_beside else "cpu"
        state["step"] = torch.tensor(0.0, dtype=torch.float32, device=device)
    for name, dtype in dtypes.items():
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
    amp: Amp = Amp(),
    observe: Observe | None = None,
    global_norm: GlobalNorm | None = None,
) -> Callable[[], None]:
    """Choose the backend and lay out its arguments; the step is taken when the result is called.

    Complex tensors are handed on as pairs of real ones that share their memory, and DTensors (all
    of one mesh and placement) as this process's shards.

    With ``clip_over="global"`` their c_t are counted in ``common``, by whose norm they are clipped.

    Raises:
        ValueError: as :func:`choose`.
        MisfitError: if a gradient or a state does not fit its parameter.
    """
    shards = Shards.of(params)
    xs, gs, own_states = params, grads, states
    if shards is not None:
        grads = [like(g, p) for g, p in zip(grads, params, strict=True)]
        xs, gs = [local(p) for p in params], [local(g) for g in grads]
        own_states = [{key: local(value) for key, value in s.items()} for s in states]
    if params[0].is_complex():
        layout.lay_out(xs, gs, own_states, keep=shards is not None)
        xs, gs = [as_real(x) for x in xs], [as_real(g) for g in gs]
        own_states = [{key: as_real(value) for key, value in s.items()} for s in own_states]
    select = partial(choose, settings=settings, use_foreach=use_foreach, use_fused=use_fused)
    name = _chosen(select, xs, gs, own_states, keep=shards is not None)
    if name in ("fused", "triton"):
        fused.place_steps(xs, states, own_states)
    if observe is not None:
        observe = partial(observe, shards=shards, paired=settings.takes_difference)
    plain_gs = gs if name in ("native", "triton") and global_norm is None else amp.unscaled(gs)
    if global_norm is not None and settings.clips_together:
        global_norm.add(plain_gs, own_states, settings, shards)
    step: Callable[[], None]
    if name == "reference" and shards is not None:
        now = partial(_reference_now, global_norm=global_norm)
        step = partial(update_whole, now, params, amp.unscaled(grads), states, settings)
        if observe is not None:
            told = partial(tell, observe, plain_gs, own_states, settings, shards, global_norm)
            step = _in_turn(told, step)
    elif name == "triton":
        if observe is not None:
            tell(observe, amp.unscaled(gs), own_states, settings, shards, global_norm)
        return partial(
            triton_backend.update, xs, gs, own_states, settings, shards,
            grad_scale=amp.grad_scale, found_inf=amp.on_device, global_norm=global_norm,
        )  # fmt: skip
    elif name == "native":
        scale = 1.0 if amp.grad_scale is None else 1.0 / float(amp.grad_scale)
        step = partial(
            native.update, xs, gs, own_states, settings, shards,
            grad_scale=scale, observe=observe, global_norm=global_norm,
        )  # fmt: skip
    else:
        backend = partial(BACKENDS[name], global_norm=global_norm)
        if shards is not None:
            backend = partial(backend, shards=shards)
        if observe is not None:
            loop = partial(_reference_told, observe=observe, global_norm=global_norm)
            backend = loop if name == "reference" else partial(backend, observe=observe)
        step = _of_one_dtype(backend, xs, plain_gs, own_states, settings)
    if amp.on_device is not None:
        step = partial(unless, amp.on_device, step, xs, own_states)
    return step


def _in_turn(*calls: Callable[[], None]) -> Callable[[], None]:
    def every() -> None:
        for call in calls:
            call()

    return every


def _reference_told(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    *,
    observe: Observe,
    global_norm: GlobalNorm | None,
) -> None:
    """The oracle knows nothing of telemetry, so it is told beside it."""
    tell(observe, grads, states, settings, None, global_norm)
    reference.update(params, grads, states, settings, global_norm=global_norm)


def _chosen(
    select: Callable[[list[Tensor], list[Tensor], list[State]], str],
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    *,
    keep: bool,
) -> str:
    """The backend's name, of tensors that fit each other: what is fast has looked at them itself.

    Args:
        keep: whether state must stay in the memory where it is.
    """
    try:
        name = select(params, grads, states)
    except ValueError:  # not for state that can be laid out as fused=True needs it
        if layout.lay_out(params, grads, states, keep=keep):
            return select(params, grads, states)
        raise
    if name in FUSED or not layout.lay_out(params, grads, states, keep=keep):
        return name
    return select(params, grads, states)


def _of_one_dtype(
    backend: Callable[..., None],
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
) -> Callable[[], None]:
    """``backend`` with tensors as it takes them: all of one dtype."""
    if mixed_dtype.needed(params, grads, states, settings):
        layout.lay_out(params, grads, states, keep=True)  # is it real numbers, all of it?
        return partial(mixed_dtype.update, backend, params, grads, states, settings)
    return partial(backend, params, grads, states, settings)


def _reference_now(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    global_norm: GlobalNorm | None,
) -> None:
    backend = partial(reference.update, global_norm=global_norm)
    _of_one_dtype(backend, params, grads, states, settings)()


def choose(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    *,
    use_foreach: bool | None,
    use_fused: bool | None,
) -> str:
    """The name in :data:`BACKENDS` of the fastest right path, or of the one that was forced.

    Raises:
        ValueError: if ``fused=True`` is asked for where no fused kernel can do the work, or
            ``foreach=False`` inside torch.compile.
    """
    if use_foreach is False and torch.compiler.is_compiling():
        raise ValueError(
            "foreach=False cannot be compiled, its loop reads a number of each tensor: leave "
            "foreach=None, or do not compile the step"
        )
    if (use_fused is not False and use_foreach is None) or use_fused:
        name, reason = fastest(params, grads, states, settings)
        if use_fused and name == "foreach":
            raise ValueError(f"fused=True is not possible here: {reason}; leave fused=None")
        return name
    return "reference" if use_foreach is False else "foreach"


def fastest(
    params: list[Tensor], grads: list[Tensor], states: list[State], settings: Settings
) -> tuple[str, str]:
    """The fastest backend that can, and why a faster one cannot."""
    reasons: list[str] = []
    # without a correction torch's kernel is AdamW itself, bit for bit
    own = "triton" if params[0].device.type == "cuda" else "native"
    for name in ("fused", own) if settings.plain else (own, "fused"):
        reason = FUSED[name].why_not(params, grads, states, settings)
        if reason is None:
            return name, "; ".join(reasons)
        reasons.append(reason)
    return "foreach", "; ".join(reasons)


def explain(
    params: list[Tensor], settings: Settings, *, use_foreach: bool | None, use_fused: bool | None
) -> tuple[str, str]:
    """What :func:`choose` will take for parameters that have no gradient yet, and why."""
    if use_foreach is not None or use_fused is False:
        forced = ("foreach", use_foreach) if use_foreach is not None else ("fused", use_fused)
        name = "foreach" if use_foreach or use_foreach is None else "reference"
        return name, f"asked for by {forced[0]}={forced[1]}"
    xs = [as_real(local(p)).detach() for p in params if p.dtype == params[0].dtype]
    dtypes = state_dtypes(xs[0].dtype, settings)
    # stand-ins that share one piece of memory as long as the longest, which nobody touches
    length = max(x.untyped_storage().nbytes() // x.element_size() for x in xs)
    pools = {dtype: xs[0].new_empty(length, dtype=dtype) for dtype in set(dtypes.values())}
    states: list[State] = [
        {"step": torch.tensor(0.0, dtype=torch.float32, device="cpu")}
        | {k: pools[dtype].as_strided(x.shape, x.stride()) for k, dtype in dtypes.items()}
        for x in xs
    ]
    name, reason = fastest(xs, xs, states, settings)
    if name == "native":
        reason = native.note(xs[0].dtype)
    return name, reason
