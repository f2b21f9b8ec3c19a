"""Newton-Schulz: the nearest semi-orthogonal matrix, by matrix products alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..optimizer_options import NS_COEFFICIENTS, Coefficients, polynomials

NS_EPS = 1e-7  # the least norm that is divided by, so that zeros stay zeros
# Of equal shapes: what it takes for a moment stays small beside the model, on a CPU in the cache.
_BATCH, _BATCH_CPU = 1 << 24, 1 << 21  # elements of one batch
# From this ratio of the sides on, five steps in float32 cost less on the small Gram matrix than on
# the whole (docs/newton-schulz.md). Measured on CPUs alone.
_GRAM_ASPECT = 1.5
_MARGIN = 0.01  # "polar_express" and "cans" diverge where x x^T is further above 1 than about this
_CPU = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
BFLOAT16_CPU = bool(_CPU.get("avx512_bf16") or _CPU.get("amx_bf16"))  # emulated it is slow


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


def working_dtype(dtype: torch.dtype, device: torch.device | None = None) -> torch.dtype:
    """Dtype of Newton-Schulz: float64 for float64, else bfloat16 as published.

    On CPUs without instructions for bfloat16 products it is float32, faster there and exacter.
    """
    emulated = device is not None and device.type == "cpu" and not BFLOAT16_CPU
    narrow = torch.float32 if emulated else torch.bfloat16
    return dtype if dtype == torch.float64 else narrow


def prefers_gram(m: Tensor, dtype: torch.dtype) -> bool:
    """Whether the Gram form is the faster: in float32, where one side is longer.

    In float64, where every digit counts, it is not used; nor in bfloat16, where A has to be made
    anew in each step (:func:`runs`), so that nothing is gained.
    """
    longer, shorter = max(m.shape[-2:]), min(m.shape[-2:])
    return dtype == torch.float32 and longer >= _GRAM_ASPECT * max(1, shorter)


def batches(xs: list[Tensor]) -> Iterator[list[int]]:
    """Indices of equal shapes, at most so many together that their memory stays small."""
    limit = _BATCH_CPU if xs[0].is_cpu else _BATCH
    of_shape: dict[torch.Size, list[int]] = {}
    for i, x in enumerate(xs):
        of_shape.setdefault(x.shape, []).append(i)
    for shape, indices in of_shape.items():
        size = max(1, limit // max(1, shape.numel()))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def newton_schulz(
    m: Tensor,
    *,
    steps: int = 5,
    coefficients: str | Coefficients | tuple[Coefficients, ...] = NS_COEFFICIENTS,
    dtype: torch.dtype | None = None,
    gram: bool = False,
) -> Tensor:
    r"""Approximate U V^T of m = U S V^T by a quintic Newton-Schulz iteration.

    .. math:: X \leftarrow a X + (b A + c A^2) X, \quad A = X X^T, \quad X_0 = m / \|m\|_F

    Args:
        m: (..., rows, cols), real. Not changed.
        steps: iterations (default: 5).
        coefficients: (a, b, c), such for each step, or a name of
            :data:`~mars_optim.optimizer_options.NS_SETS` (default: Keller Jordan's, steepest at
            zero; the singular values end in about [0.7, 1.2]).
        dtype: to compute in (default: None, that of :func:`working_dtype`).
        gram: iterate on A, which is the same in exact arithmetic and less work for matrices that
            are far from square; made anew from X as often as ``dtype`` needs it (:func:`runs`), in
            bfloat16 in each step (default: False).

    Returns:
        (..., rows, cols) in ``dtype``.
    """
    if dtype is None:
        dtype = working_dtype(m.dtype)
    tall = m.size(-2) > m.size(-1)
    x = m.mT if tall else m
    if x.ndim > 3:
        x = x.flatten(0, -3)
    x = x.to(dtype)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=NS_EPS)
    iterate = _on_gram if gram else _on_whole
    x = iterate(x, polynomials(coefficients, steps))
    return (x.mT if tall else x).view(m.shape)


def _on_whole(x: Tensor, steps: tuple[Coefficients, ...]) -> Tensor:
    """The iteration as it is written."""
    for a, b, c in steps:
        gram = x @ x.mT
        # b A + c A^2, then a X + (...) X, with torch.optim.Muon's rounding
        x = _plus(x, a, _plus(gram, b, gram, gram, c), x, 1.0)
    return x


def _on_gram(x: Tensor, steps: tuple[Coefficients, ...]) -> Tensor:
    r"""The same on A: with P = a I + b A + c A^2, X \leftarrow P X is A \leftarrow P A P.

    The product Q of all P is collected and meets X once, at the end of each run of steps.
    """
    for run in runs(steps, x.dtype):
        product = _product(x @ x.mT, run)
        x = product @ x
    return x


def runs(steps: tuple[Coefficients, ...], dtype: torch.dtype) -> list[tuple[Coefficients, ...]]:
    r"""Steps that A is carried through before it is made anew from X.

    A is off by a rounding, which each step multiplies by up to a^2, while in X X^T it is a rounding
    again. A step whose A is too small by some percent leaves values of X above 1 as they are, and
    later steps, with the right A, blow these up. So a run ends where A would be off by more than
    the margin that the sets have:

    .. math:: \epsilon \prod a^2 > 0.01
    """
    found: list[list[Coefficients]] = [[]]
    growth = 1.0
    for step in steps:
        if found[-1] and growth * torch.finfo(dtype).eps > _MARGIN:
            found.append([])
            growth = 1.0
        found[-1].append(step)
        growth *= step[0] ** 2
    return [tuple(run) for run in found]


def _product(gram: Tensor, steps: tuple[Coefficients, ...]) -> Tensor:
    """The product of the polynomials of all ``steps``, of a Gram matrix that takes part in them."""
    product = None
    for step, (a, b, c) in enumerate(steps):
        polynomial = _plus(gram, b, gram, gram, c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if step + 1 < len(steps):
            gram = polynomial @ gram @ polynomial
    assert product is not None
    return product


def _plus(x: Tensor, beta: float, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """``beta x + alpha left right``, rounded once, of matrices or of stacks of them."""
    fused = torch.addmm if x.ndim == 2 else torch.baddbmm
    return fused(x, left, right, beta=beta, alpha=alpha)
