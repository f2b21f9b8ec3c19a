"""Newton-Schulz: the nearest semi-orthogonal matrix, by matrix products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import NS_COEFFICIENTS

NS_EPS = 1e-7


def as_matrix(x: Tensor, *, stacked: bool = False) -> Tensor:
    """View a weight as the matrix (or stack of matrices) that its layer multiplies by.

    (rows, cols) stays; a convolution (out, in, *kernel) becomes (out, in * kernel); with
    ``stacked`` the leading dimensions are a batch of matrices, as in mixtures of experts.
    """
    if x.ndim == 2 or (stacked and x.ndim > 2):
        return x
    return x.flatten(1)


def matrix_shape(shape: torch.Size, *, stacked: bool = False) -> tuple[int, int]:
    """(rows, cols) of :func:`as_matrix` of a weight of this shape, also where a size is 0."""
    if len(shape) == 2 or (stacked and len(shape) > 2):
        return shape[-2], shape[-1]
    return shape[0], shape[1:].numel()


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What Newton-Schulz computes in: float64 for float64, else bfloat16 as published."""
    return torch.float64 if dtype == torch.float64 else torch.bfloat16


def newton_schulz(
    m: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = NS_COEFFICIENTS,
    eps: float = NS_EPS,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Approximate U V^T of m = U S V^T by a quintic Newton-Schulz iteration.

    .. math:: X \leftarrow a X + (b A + c A^2) X, \quad A = X X^T, \quad X_0 = m / \|m\|_F

    Args:
        m: (..., rows, cols), real. Not changed.
        steps: iterations (default: 5).
        coefficients: (a, b, c) (default: Keller Jordan's, steepest at zero; the singular values
            end in about [0.7, 1.2]).
        eps: least norm divided by (default: 1e-7), so that zeros stay zeros.
        dtype: to compute in (default: None, that of :func:`working_dtype`).

    Returns:
        (..., rows, cols) in ``dtype``.
    """
    a, b, c = coefficients
    if dtype is None:
        dtype = working_dtype(m.dtype)
    tall = m.size(-2) > m.size(-1)
    x = m.to(dtype)
    if tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        # b A + c A^2, then a X + (...) X
        x = a * x + (b * gram + c * (gram @ gram)) @ x if x.ndim > 2 else _quintic(x, gram, a, b, c)
    return x.mT if tall else x


def _quintic(x: Tensor, gram: Tensor, a: float, b: float, c: float) -> Tensor:
    # the same two lines with torch.optim.Muon's rounding
    polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    return torch.addmm(x, polynomial, x, beta=a)
