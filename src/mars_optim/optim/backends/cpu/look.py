"""``NextGradient.look`` of a whole group on a CPU, in one call.

In torch's calls it is some twenty of them, which a small model feels. Between two steps of a
training loop Python's code leaves the caches, too: so all that stays is laid out once.
"""

from __future__ import annotations

import ctypes
import struct
from array import array as Array
from collections.abc import Sequence

import torch
from torch import Tensor

from ...distributed.sharded import PLAIN
from .build import library

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 3}
_FIELDS = 5  # of struct sample


class _Look(ctypes.Structure):
    """``struct look`` of native.c."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in "samples columns dtype every".split()),
        *((n, ctypes.c_double) for n in "beta1 beta2".split()),
        *((n, ctypes.c_void_p) for n in "sample rows table steps".split()),
    ]


class Sample:
    """Sample of a group's tensors as the kernel walks through it.

    Args:
        spans: of each tensor, its first and last column among what is kept.
        apart: between sampled elements, of each.
        scales: by which the gradient of each is multiplied.
    """

    def __init__(
        self, spans: Sequence[tuple[int, int]], apart: Sequence[int], scales: Sequence[float]
    ) -> None:
        self.rows = Array("q")  # struct sample of each, its address to be filled in
        for (first, last), step, scale in zip(spans, apart, scales, strict=True):
            (bits,) = struct.unpack("q", struct.pack("d", scale))
            self.rows.extend((0, step, last - first, first, bits))
        self.values = _Look(samples=len(spans), sample=self.rows.buffer_info()[0])
        self.given = ctypes.byref(self.values)


def look(
    sample: Sample,
    params: Sequence[Tensor],
    betas: tuple[float, float],
    block: Tensor,
    table: Tensor,
    steps: Tensor,
) -> int:
    """Look at all gradients and count the step, if this kernel can; else nothing is done.

    Args:
        sample: of these parameters; written to.
        params: of a group, whole.
        betas: of both averages.
        block: what is kept, (3, columns), float64, contiguous; changed.
        table: of the last steps' sums, (1, steps, 3), float64, contiguous; a row is changed.
        steps: taken so far, float64, of one element; changed.

    Returns:
        The number of the step, from 1; 0 if the kernel cannot take it.
    """
    c = library().c
    grads = [p.grad for p in params]
    if c is None or not grads:
        return 0
    dtypes, addresses = set(), Array("q")
    for g in grads:
        if g is None or type(g) not in PLAIN or not g.is_cpu:
            return 0
        if g.is_neg() or not g.is_contiguous():
            return 0
        dtypes.add(g.dtype)
        addresses.append(g.data_ptr())
    dtype = DTYPES.get(dtypes.pop())
    if dtype is None or dtypes:
        return 0
    sample.rows[::_FIELDS] = addresses
    values = sample.values
    values.columns, values.dtype, values.every = block.shape[1], dtype, table.shape[1]
    values.beta1, values.beta2 = betas
    values.rows, values.table, values.steps = block.data_ptr(), table.data_ptr(), steps.data_ptr()
    return int(c.native_look(sample.given))
