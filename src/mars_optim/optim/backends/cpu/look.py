"""``NextGradient.look`` of a whole group on a CPU, in one call.

In torch's calls it is some twenty of them, which a small model feels.
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
        *((n, ctypes.c_int64) for n in "samples columns dtype".split()),
        *((n, ctypes.c_double) for n in "of_g of_square".split()),
    ]


def rows_of(
    spans: Sequence[tuple[int, int]], apart: Sequence[int], scales: Sequence[float]
) -> Array[int]:
    """``struct sample`` of each tensor, its address to be filled in; all fields are of 8 bytes."""
    rows = Array("q")
    for (first, last), step, scale in zip(spans, apart, scales, strict=True):
        (bits,) = struct.unpack("q", struct.pack("d", scale))
        rows.extend((0, step, last - first, first, bits))
    return rows


def look(
    grads: Sequence[Tensor | None],
    rows: Array[int],
    block: Tensor,
    shares: Sequence[float],
    table: Tensor,
    row: int,
) -> bool:
    """Look at all of them, if this kernel can; else nothing is done.

    Args:
        grads: of all tensors of a group, whole.
        rows: see :func:`rows_of`; written to.
        block: what is kept, (3, columns), float64, contiguous; changed.
        shares: of the newest gradient in both averages.
        table: of whose first rows that of the step takes the three sums, float64, contiguous.
        row: the number of that one.
    """
    c = library().c
    if c is None or not grads or grads[0] is None or grads[0].dtype not in DTYPES:
        return False
    dtype = grads[0].dtype
    for i, g in enumerate(grads):
        if g is None or type(g) not in PLAIN or g.dtype != dtype or not g.is_contiguous():
            return False
        rows[_FIELDS * i] = g.data_ptr()
    values = _Look(len(grads), block.shape[1], DTYPES[dtype], *shares)
    sums = table.data_ptr() + row * table.stride(-2) * table.element_size()
    pointers = map(ctypes.c_void_p, (rows.buffer_info()[0], block.data_ptr(), sums))
    c.native_look(ctypes.byref(values), *pointers)
    return True
