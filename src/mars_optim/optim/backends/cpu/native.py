"""Kernels of our own for the CPU: one pass for the clip's norms, one for everything else.

Bytes moved per float32 parameter: 28 for AdamW and folded, 44 with clip and history (the paper's
MARS-AdamW), 36 for MARS-Lion. Computed in float32 whatever the tensors are stored in, or in
float64 if any is.
"""

from __future__ import annotations

import ctypes
from array import array as Array
from collections.abc import Iterable

import torch
from torch import Tensor

from ...correction import clip_norms, scales_of
from ...distributed.sharded import PLAIN
from ...hyperparameters import Settings
from ...telemetry import CC, SUMS
from ...types import BUFFERS, State
from ..base import Bucket
from ..layout import columns_of, is_dense, unlike
from .build import Library, library

OWN = frozenset(("grad_scale", "dtypes"))
RULES = {"adamw": 0, "lion": 1}
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_ALONE = 1 << 17  # elements; below, a second thread costs more than it saves


class _Settings(ctypes.Structure):
    """``struct settings`` of native.c."""

    _fields_ = [
        *((n, ctypes.c_double) for n in "lr beta1 beta2 eps weight_decay".split()),
        *((n, ctypes.c_double) for n in "gain fold grad_scale".split()),
        *((n, ctypes.c_int64) for n in "tensors blocks".split()),
        ("clip_scales", ctypes.c_void_p),
        *((n, ctypes.c_int32) for n in "rule maximize difference remember".split()),
        *((n, ctypes.c_int32) for n in "x_dtype g_dtype moment_dtype last_dtype".split()),
    ]


def why_not(bucket: Bucket) -> str | None:
    """The reason why these kernels cannot take this step, or None if they can."""
    params, settings = bucket.params, bucket.settings
    if not params[0].is_cpu:
        return f"device {params[0].device.type!r} is not a CPU"
    if settings.rule not in RULES:
        return f"rule={settings.rule!r} has no CPU kernel"
    if settings.cautious:
        return "cautious=True has no CPU kernel"
    if settings.stochastic_rounding and params[0].dtype == torch.bfloat16:
        return "stochastic rounding needs the multi-tensor path"
    return _unfit(bucket)


def sums(bucket: Bucket) -> Tensor | None:
    """The sums of g_t and g_{t-1} for a step that another path takes: for its clip and observer.

    (tensors, SUMS), float64; None where nobody asks, or no kernel here can walk through them.
    """
    settings = bucket.settings
    clips = settings.clip is not None and not bucket.shares_norm
    if not (clips or bucket.observer is not None):
        return None
    if not settings.takes_difference:
        return sums_with(bucket.grads, None, 0.0)
    return sums_with(bucket.grads, [s["last_grad"] for s in bucket.states], settings.gain)


def sums_with(
    grads: list[Tensor], last_grads: list[Tensor] | None, gain: float | Tensor
) -> Tensor | None:
    """Those sums of g_t, g_{t-1} and c_t = g_t + gain (g_t - g_{t-1}); None if no kernel can."""
    if torch.compiler.is_compiling() or not grads[0].is_cpu:
        return None
    lasts, dtype = last_grads or grads, grads[0].dtype
    tensors = grads if last_grads is None else [*grads, *last_grads]
    for x in tensors:
        alike = type(x) in PLAIN and x.dtype == dtype and x.is_cpu
        if alike and x.is_contiguous() and not x.is_neg():
            continue
        columns = _side_by_side(grads, last_grads)
        if columns is None:
            return None
        grads, lasts = columns
        break
    if dtype not in DTYPES or dtype == torch.float16:
        return None
    found = library("double" if dtype == torch.float64 else "float")
    if found.c is None:
        return None
    rows: list[int] = []
    blocks = 0
    for g, last in zip(grads, lasts, strict=True):
        size = g.numel()
        if last.numel() != size:
            return None
        rows += (size, blocks, 0, g.data_ptr(), 0, 0, 0, last.data_ptr(), 0)
        blocks += -(-size // found.block)
    values = _Settings(
        gain=float(gain),
        grad_scale=1.0,
        tensors=len(grads),
        blocks=blocks,
        difference=last_grads is not None,
        g_dtype=DTYPES[dtype],
        last_dtype=DTYPES[dtype],
    )
    return _summed(found.c, values, Array("q", rows), _threads(blocks, found.block))


def _side_by_side(
    grads: list[Tensor], last_grads: list[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]] | None:
    """Both as tensors that can be walked through together; None if they cannot."""
    columns = {"parameter": grads}
    if last_grads is not None:
        columns["last_grad"] = last_grads
    if len({x.dtype for column in columns.values() for x in column}) > 1:
        return None
    if unlike(columns):  # with gaps, as a block of columns: added up as a tensor of its own
        columns = {k: [x if is_dense(x) else x.contiguous() for x in v] for k, v in columns.items()}
        if unlike(columns):
            return None
    return columns["parameter"], columns.get("last_grad", columns["parameter"])


def _unfit(bucket: Bucket) -> str | None:
    """Why no kernel here can walk through these tensors, or None."""
    states = bucket.states
    if torch.compiler.is_compiling():
        return "torch.compile makes kernels of its own"
    columns = columns_of(bucket)
    if columns is None:
        return "some parameters have a state that others lack"
    if reason := unlike(columns):
        return reason
    dtypes = {name: {t.dtype for t in column} for name, column in columns.items()}
    moments = set().union(*(dtypes.get(name, ()) for name in MOMENTS))
    if len(moments) > 1 or any(len(found) > 1 for found in dtypes.values()):
        return "tensors of one bucket differ in the dtypes of their state"
    steps = [state["step"] for state in states]
    if {(t.dtype, t.is_cpu, t.numel()) for t in steps} != {(torch.float32, True, 1)}:
        return "a step counter is not one float32 number on the CPU"
    used = [found.pop() for found in dtypes.values()]
    if unknown := set(used) - DTYPES.keys():
        return f"dtype {unknown.pop()} has no CPU kernel"
    found = library(_real(used))
    if found.c is None:
        return found.note
    if torch.float16 in used and not found.float16:
        return "this C compiler does not support float16"
    return None


def note(dtype: torch.dtype) -> str:
    """Where the kernels for parameters of this dtype are, and how long their build took."""
    return library(_real([dtype])).note


def _real(dtypes: Iterable[torch.dtype]) -> str:
    """Dtype to compute in."""
    return "double" if torch.float64 in dtypes else "float"


def step(bucket: Bucket) -> None:
    """One MARS step: the sums that the clip and the observer need, then all the rest."""
    settings, found = bucket.settings, _library(bucket)
    assert found.c is not None
    values, rows, threads = _prepared(bucket, found.block)
    norms, scales = bucket.shared_norm(), None
    if (settings.clip is not None and norms is None) or bucket.observer is not None:
        sums = _summed(found.c, values, rows, threads)
    if settings.clip is not None:
        if norms is None:
            norms = clip_norms(sums[:, CC].sqrt(), settings, bucket.shards)
        scales = scales_of(norms.double(), settings.clip).contiguous()
        values.clip_scales = scales.data_ptr()
    if bucket.observer is not None:
        bucket.report(sums, scales)
    table = ctypes.byref(values), ctypes.c_void_p(rows.buffer_info()[0])
    found.c.native_update(*table, threads)


def _library(bucket: Bucket) -> Library:
    """The kernels that compute in what these tensors need."""
    tensors = [bucket.params[0], bucket.grads[0]]
    tensors += [v for k, v in bucket.states[0].items() if k in BUFFERS]
    return library(_real(t.dtype for t in tensors))


def _prepared(bucket: Bucket, block: int) -> tuple[_Settings, Array[int], ctypes.c_int64]:
    """The kernels' arguments: settings, a row for each tensor, threads."""
    grad_scale = bucket.amp.grad_scale
    rows, blocks = _rows(bucket, block)
    values = _values(bucket.settings, bucket.params[0], bucket.grads[0], bucket.states[0])
    values.grad_scale = 1.0 if grad_scale is None else 1.0 / float(grad_scale)
    values.tensors, values.blocks = len(bucket.params), blocks
    return values, rows, _threads(blocks, block)


def _threads(blocks: int, block: int) -> ctypes.c_int64:
    alone = blocks * block < _ALONE
    return ctypes.c_int64(1 if alone else min(torch.get_num_threads(), blocks))


def _summed(c: ctypes.CDLL, values: _Settings, rows: Array[int], threads: ctypes.c_int64) -> Tensor:
    """The sums of each tensor, (tensors, SUMS)."""
    parts = Array("d", bytes(8 * SUMS * values.blocks))  # a small tensor takes longer
    found = torch.empty(values.tensors, SUMS, dtype=torch.float64, device="cpu")
    table = ctypes.byref(values), ctypes.c_void_p(rows.buffer_info()[0])
    pointers = ctypes.c_void_p(parts.buffer_info()[0]), ctypes.c_void_p(found.data_ptr())
    c.native_sums(*table, *pointers, threads)
    return found


def _rows(bucket: Bucket, block: int) -> tuple[Array[int], int]:
    """``struct tensor`` of native.c for each, all its fields of 8 bytes; and the blocks in all."""
    rows: list[int] = []
    blocks = 0
    amsgrad = bucket.settings.amsgrad
    names = [name if name != "max_exp_avg_sq" or amsgrad else "" for name in BUFFERS]
    for x, g, state in zip(bucket.params, bucket.grads, bucket.states, strict=True):
        size = x.numel()
        rows += (size, blocks, x.data_ptr(), g.data_ptr())
        rows += [state[name].data_ptr() if name in state else 0 for name in names]
        rows.append(state["step"].data_ptr())
        blocks += -(-size // block)
    return Array("q", rows), blocks


def _values(settings: Settings, x: Tensor, g: Tensor, state: State) -> _Settings:
    last = state.get("last_grad", g)
    return _Settings(
        lr=settings.lr,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        gain=float(settings.gain) if settings.takes_difference else 0.0,
        fold=float(settings.gamma) if settings.folds else 0.0,
        rule=RULES[settings.rule],
        maximize=settings.maximize,
        difference=settings.takes_difference,
        remember=not settings.exact,
        x_dtype=DTYPES[x.dtype],
        g_dtype=DTYPES[g.dtype],
        moment_dtype=DTYPES[state["exp_avg"].dtype],
        last_dtype=DTYPES[last.dtype],
    )
