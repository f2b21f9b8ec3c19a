"""From momentum to a direction, for each rule; PyTorch's ``optim/reference.py`` line by line."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .options import Axis, Options, Scalar, debias, like


def adamw_direction(m: jax.Array, v: jax.Array, count: jax.Array, options: Options) -> jax.Array:
    """m^ / (sqrt(v^) + eps) (paper Alg. 2)."""
    m_hat = m / like(debias(options.b1, count), m)
    v_hat = v / like(debias(options.b2, count), v)
    return m_hat / (jnp.sqrt(v_hat) + like(options.eps, v))


def orthogonal_direction(m: jax.Array, options: Options) -> jax.Array:
    """U V^T of m's matrices by the rule's scale: MARS-M's, or MARS-Shampoo's (paper Alg. 4)."""
    matrices = as_matrices(m, options.output_axis, stacked=options.stacked)
    dtype = options.ns_dtype or m.dtype
    u_vt = newton_schulz(matrices.astype(dtype), options).astype(m.dtype).reshape(m.shape)
    rows, cols = matrices.shape[-2:]
    outputs, inputs = (rows, cols) if options.output_axis == "first" else (cols, rows)
    if options.rule == "muon":
        return 0.2 * math.sqrt(max(outputs, inputs)) * u_vt
    return math.sqrt(max(1.0, outputs / max(1, inputs))) * u_vt


def as_matrices(x: jax.Array, output_axis: Axis, *, stacked: bool) -> jax.Array:
    """The matrix that a layer multiplies by, or a stack of them.

    A kernel (*window, in, out) becomes (window * in, out), with ``output_axis="first"`` one of
    (out, in, *window) becomes (out, in * window); with ``stacked`` the last two dimensions are the
    matrix.
    """
    if x.ndim == 2 or stacked:
        return x
    sizes = x.shape[1:] if output_axis == "first" else x.shape[:-1]
    other = math.prod(sizes)
    return x.reshape((x.shape[0], other) if output_axis == "first" else (other, x.shape[-1]))


def newton_schulz(x: jax.Array, options: Options) -> jax.Array:
    """X <- a X + (b A + c A^2) X with A = X X^T, of (..., rows, cols) and from X of norm 1."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    norm = jnp.sqrt(jnp.sum(x * x, axis=(-2, -1), keepdims=True))
    x = x / jnp.maximum(norm, 1e-7)
    for a, b, c in options.polynomials:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def clip_scales(cs: list[jax.Array], clip: Scalar, *, together: bool) -> list[jax.Array]:
    """min(1, clip / ||c||) of each array, or by the norm over all; a norm of NaN makes it NaN."""
    squares = [jnp.sum(c * c) for c in cs]
    if together:
        squares = [sum(squares, jnp.zeros((), jnp.float32))] * len(cs)
    norms = [jnp.sqrt(square) for square in squares]
    return [jnp.minimum(1.0, like(clip, norm) / norm) for norm in norms]
