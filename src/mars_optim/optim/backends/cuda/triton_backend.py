"""MARS-AdamW and MARS-Lion on CUDA: one pass for the clip's norm and one for all the rest.

Each element is read and written as often as the algorithm demands and no oftener, for all tensors
of a bucket in three launches. Bytes per float32 parameter: 28 folded, as torch's fused AdamW; 44
with the clip and a float32 stored gradient, 38 with a bfloat16 one. Nothing waits for the device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor

from ...correction import clip_norms
from ..base import Bucket
from ..layout import columns_of, unlike
from ..wrappers import unscaled
from .triton_tables import CHUNK, Tables, addresses, tables_of

OWN = frozenset(("grad_scale", "found_inf", "dtypes"))
BLOCK = 1024  # elements that a program works on at a time
_LANES = 256  # partial sums that are added at a time
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def why_not(bucket: Bucket) -> str | None:
    """The reason why the Triton kernels cannot take this step, or None if they can."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own kernels"
    device = bucket.params[0].device
    if device.type != "cuda":  # soonest, for every step on a CPU comes by
        return f"there are Triton kernels for CUDA, not for device {device.type!r}"
    return tensors_unfit(bucket) or device_unfit(device)


def tensors_unfit(bucket: Bucket) -> str | None:
    """The reason why the kernels cannot take these tensors on any device, or None."""
    states, settings = bucket.states, bucket.settings
    if settings.cautious:
        return "cautious=True has no Triton kernel"
    if settings.rule not in ("adamw", "lion"):
        return f"there are Triton kernels for adamw and lion, not for rule={settings.rule!r}"
    columns = columns_of(bucket)
    if columns is None:
        return "some parameters have a state that others lack"
    for name, column in columns.items():
        dtypes = {x.dtype for x in column}
        if len(dtypes) > 1 or not dtypes <= _DTYPES.keys():
            return f"{name} has dtype {' and '.join(sorted(map(str, dtypes)))}"
    if reason := unlike(columns):
        return reason
    if {(state["step"].dtype, state["step"].numel()) for state in states} != {(torch.float32, 1)}:
        return "a step is not counted in torch.float32"
    return None


@functools.cache
def device_unfit(device: torch.device) -> str | None:
    """The reason why Triton cannot make kernels for a GPU, or None; tried once for each GPU."""
    if not torch.cuda.is_available():
        return "this torch finds no CUDA GPU"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU's compute capability is below 8.0"
    try:
        with torch.cuda.device(device):
            norms = torch.empty(1, dtype=torch.float32, device=device)
            first = torch.zeros(2, dtype=torch.int64, device=device)
            _kernels().norms_kernel[(1,)](norms, first, norms, lanes=_LANES)
    except Exception as error:  # no C compiler, no Python headers, a driver too old, ...
        return f"Triton cannot make kernels here ({type(error).__name__}: {error})"
    return None


@torch.no_grad()
def step(bucket: Bucket) -> None:
    """One MARS step, with the step counters beside the parameters.

    ``settings.lr`` may be a tensor on the device, as are what a gradient scaler hands over. Unless
    its ``found_inf`` is 0 nothing at all is changed.
    """
    if bucket.observer is not None:
        unscaled(bucket).observe()
    params, states, settings = bucket.params, bucket.states, bucket.settings
    kernels = _kernels()
    tables = tables_of(params, states)
    gs, grads_aligned = addresses(bucket.grads)
    found_inf = _beside(bucket.amp.found_inf, params[0])
    on_device = isinstance(settings.gamma, Tensor)
    shared: dict[str, Any] = dict(
        gs=gs,
        lasts=tables.rows[4],
        sizes=tables.sizes,
        first=tables.first,
        tensor_of=tables.tensor_of,
        found_inf=found_inf,
        grad_scale=_beside(bucket.amp.grad_scale, params[0]),
        gain=settings.gain_of(1.0 if on_device else settings.gamma),
        gamma_at=settings.gamma if on_device else None,
        g_type=_element(bucket.grads[0]),
        last_type=_element(states[0].get("last_grad")),
        takes_difference=settings.takes_difference,
        aligned=tables.aligned and grads_aligned,
        chunk=CHUNK,
        block=BLOCK,
    )
    with _on(params[0].device):
        partials, norms = None, bucket.shared_norm()
        if norms is not None:
            norms = norms.float().contiguous()
        elif settings.clip is not None:
            partials = tables.sizes.new_empty(tables.programs, dtype=torch.float32)
            if tables.programs:
                kernels.norm_kernel[(tables.programs,)](partials=partials, **shared)
            if bucket.shards is not None or settings.clips_together:
                norms = partials.new_empty(len(params))
                kernels.norms_kernel[(len(params),)](partials, tables.first, norms, lanes=_LANES)
                norms = clip_norms(norms, settings, bucket.shards).contiguous()
        scalars = _scalars(bucket, tables, partials, norms, found_inf)
        if tables.programs:
            _update(bucket, tables, scalars, shared)


def _scalars(
    bucket: Bucket,
    tables: Tables,
    partials: Tensor | None,
    norms: Tensor | None,
    found_inf: Tensor | None,
) -> Tensor:
    """Numbers that each tensor's elements share, (tensors, 4), from norms and steps; steps
    count on."""
    settings, lr = bucket.settings, bucket.settings.lr
    scalars = tables.sizes.new_empty((len(bucket.params), 4), dtype=torch.float32)
    _kernels().scalars_kernel[(len(scalars),)](
        tables.rows[5],
        tables.first,
        partials,
        norms,
        scalars,
        found_inf,
        lr if isinstance(lr, Tensor) else None,
        0.0 if isinstance(lr, Tensor) else float(lr),
        float(settings.weight_decay),
        float(settings.clip or 0.0),
        _log2(settings.betas[0]),
        _log2(settings.betas[1]),
        adamw=settings.rule == "adamw",
        lanes=_LANES,
    )
    return scalars


def _update(bucket: Bucket, tables: Tables, scalars: Tensor, shared: dict[str, Any]) -> None:
    """x, the moments and g_{t-1} of the whole bucket."""
    settings, x, state = bucket.settings, bucket.params[0], bucket.states[0]
    xs, ms, vs, v_maxs, *_ = tables.rows
    _kernels().update_kernel[(tables.programs,)](
        xs=xs,
        ms=ms,
        vs=vs,
        v_maxs=v_maxs,
        scalars=scalars,
        steps=tables.rows[5],
        gamma=0.0 if isinstance(settings.gamma, Tensor) else settings.gamma,
        beta1_rest=1.0 - settings.betas[0],
        beta2_rest=1.0 - settings.betas[1],
        eps=float(settings.eps),
        x_type=_element(x),
        m_type=_element(state["exp_avg"]),
        v_type=_element(state.get("exp_avg_sq")),
        v_max_type=_element(state.get("max_exp_avg_sq")),
        adamw=settings.rule == "adamw",
        amsgrad=settings.amsgrad,
        maximize=settings.maximize,
        by_chance=settings.stochastic_rounding and x.dtype == torch.bfloat16,
        remembers="last_grad" in state and not settings.exact,
        folds=settings.folds,
        **shared,
    )


def _beside(number: Tensor | None, x: Tensor) -> Tensor | None:
    """A gradient scaler's number where the kernels read it."""
    return None if number is None else number.to(x.device, non_blocking=True)


def _kernels() -> Any:
    """The kernels' module: importing triton takes a moment, and it may be absent."""
    return importlib.import_module(f"{__package__}.triton_kernels")


def _element(tensor: Tensor | None) -> Any:
    """Triton's name for a tensor's dtype; any for a tensor that is not there."""
    return getattr(_kernels().tl, "float32" if tensor is None else _DTYPES[tensor.dtype])


def _log2(beta: float) -> float:
    """log2(beta), finite where beta is 0, so that beta^t is 0."""
    return math.log2(beta) if beta > 0.0 else -1e9


def _on(device: torch.device) -> Any:
    """Launches go to the current device: make it the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
