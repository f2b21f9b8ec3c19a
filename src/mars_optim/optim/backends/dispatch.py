"""Which backend steps a bucket, and what is done around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..distributed.sharded import as_real, local
from ..hyperparameters import Settings
from ..types import State
from . import foreach, fused, layout, loop, mixed_dtype, wrappers
from .base import Backend, Bucket
from .buffers import state_dtypes
from .cpu import native
from .cuda import triton_backend

BACKENDS: dict[str, Backend] = {
    "reference": loop,
    "foreach": foreach,
    "fused": fused,
    "native": native,
    "triton": triton_backend,
}
# Fused kernels for a whole step, if they can: torch's own, ours for the CPU, ours for CUDA.
FUSED = ("fused", "native", "triton")


def prepare(given: Bucket) -> Callable[[], None]:
    """Choose the backend and lay out its bucket; the step is taken when the result is called.

    The order is fixed. Before the step: (1) shards instead of DTensors, (2) reals instead of
    complex numbers, (3) the choice, state laid out and steps counted where it needs them,
    (4) gradients unscaled, (5) c_t counted in the norm over all. Around it, from within: (6) one
    dtype, (7) blocks instead of tensors that have some, (8) for the oracle whole tensors, (9)
    nothing at all if a gradient overflowed. What a backend has in ``OWN`` of 4, 6 and 9 it does
    itself.

    Raises:
        ValueError: as :func:`choose`.
        MisfitError: if a gradient or a state does not fit its parameter.
    """
    bucket = wrappers.of_reals(wrappers.of_shards(given))
    name = _chosen(bucket)
    backend = BACKENDS[name]
    if name in ("fused", "triton"):
        wrappers.counted_beside(bucket, given)
    plain = bucket
    if "grad_scale" not in backend.OWN or bucket.shares_norm:
        plain = wrappers.unscaled(bucket)
    wrappers.in_blocks(plain).join_norm()
    step: wrappers.Step = backend.step
    if "dtypes" not in backend.OWN and mixed_dtype.needed(plain):
        layout.lay_out(plain, keep=True)  # is it real numbers, all of it?
        step = partial(mixed_dtype.step, step)
    if name == "reference" and bucket.shards is not None:
        step = partial(wrappers.on_whole, step, given)
    else:
        step = partial(wrappers.on_blocks, step)
    if bucket.amp.on_device is not None and "found_inf" not in backend.OWN:
        step = partial(wrappers.unless, bucket.amp.on_device, step)
    return partial(step, bucket if "grad_scale" in backend.OWN else plain)


def _chosen(bucket: Bucket) -> str:
    """The backend's name, of tensors that fit each other: kernels have looked at theirs."""
    try:
        name = choose(bucket)
    except ValueError:  # not for state that can be laid out as fused=True needs it
        if layout.lay_out(bucket):
            return choose(bucket)
        raise
    if name in FUSED or not layout.lay_out(bucket):
        return name
    return choose(bucket)


def choose(bucket: Bucket) -> str:
    """The name in :data:`BACKENDS` of the fastest right path, or of the one that was forced.

    Raises:
        ValueError: if ``fused=True`` is asked for where no fused kernel can do the work, or
            ``foreach=False`` where the loop cannot.
    """
    use_foreach, use_fused = bucket.settings.foreach, bucket.settings.fused
    if use_fused or (use_fused is None and use_foreach is None):
        name, reason = fastest(bucket)
        if use_fused and name == "foreach":
            raise ValueError(f"fused=True is not possible here: {reason}; leave fused=None")
        return name
    name = "reference" if use_foreach is False else "foreach"
    if refused := BACKENDS[name].why_not(bucket):
        raise ValueError(refused)
    return name


def fastest(bucket: Bucket) -> tuple[str, str]:
    """The fastest backend that can, and why a faster one cannot."""
    reasons: list[str] = []
    # without a correction torch's kernel is AdamW itself, bit for bit
    own = "triton" if bucket.params[0].device.type == "cuda" else "native"
    for name in ("fused", own) if bucket.settings.plain else (own, "fused"):
        reason = BACKENDS[name].why_not(bucket)
        if reason is None:
            return name, "; ".join(reasons)
        reasons.append(reason)
    return "foreach", "; ".join(reasons)


def explain(params: list[Tensor], settings: Settings) -> tuple[str, str]:
    """The backend that :func:`choose` will take for parameters without a gradient so far, and
    why."""
    if settings.foreach is not None:
        name = "foreach" if settings.foreach else "reference"
        return name, f"asked for by foreach={settings.foreach}"
    if settings.fused is False:
        return "foreach", "asked for by fused=False"
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
    name, reason = fastest(Bucket(xs, xs, states, settings))
    if name == "native":
        reason = native.note(xs[0].dtype)
    return name, reason
