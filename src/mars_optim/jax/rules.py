"""From gradients to a direction, for each rule; PyTorch's ``optim/reference.py`` line by line."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

from .blocks import Split, on_blocks
from .options import Axis, Options, Scalar, debias, like


def corrected(
    gs: list[jax.Array], lasts: list[jax.Array] | None, gamma: Scalar, options: Options
) -> list[jax.Array]:
    """c_t = g_t + gamma beta1 / (1 - beta1) (g_t - g_{t-1}) (paper Alg. 1, line 4)."""
    if lasts is None:
        return gs
    gain = gamma * options.b1 / (1 - options.b1)
    return [
        g + like(gain, g) * (g - last.astype(g.dtype)) for g, last in zip(gs, lasts, strict=True)
    ]


def clipped(cs: list[jax.Array], splits: list[Split | None], options: Options) -> list[jax.Array]:
    """c min(1, clip / ||c||), with the norm of each matrix or over all; NaN makes it NaN."""
    clip = options.clip
    if clip is None or not cs:
        return cs

    def scaled(c: jax.Array, square: jax.Array) -> jax.Array:
        norm = jnp.sqrt(square)
        return c * like(jnp.minimum(1.0, like(clip, norm) / norm), c)

    if options.clip_over == "global":
        square = sum((jnp.sum(c * c) for c in cs), jnp.zeros((), jnp.float32))
        return [scaled(c, square) for c in cs]
    return [
        on_blocks(lambda block: scaled(block, jnp.sum(block * block)), split, c)
        for c, split in zip(cs, splits, strict=True)
    ]


def average(before: jax.Array, new: jax.Array, decay: Scalar) -> jax.Array:
    """Decay times before + (1 - decay) new, in the dtype of what is new."""
    decay = like(decay, new)
    return cast(jax.Array, decay * before.astype(new.dtype) + (1 - decay) * new)


def directions(
    ms: list[jax.Array],
    vs: list[jax.Array] | None,
    gs: list[jax.Array],
    splits: list[Split | None],
    count: jax.Array,
    options: Options,
) -> list[jax.Array]:
    """Direction of each array; where it is split, of each of its matrices."""
    if options.rule == "adamw":
        assert vs is not None
        made = [adamw_direction(m, v, count, options) for m, v in zip(ms, vs, strict=True)]
    elif options.rule == "lion":
        made = [jnp.sign(m) for m in ms]
    else:
        factor = partial(orthogonal_direction, options=options)
        made = [on_blocks(factor, split, m) for m, split in zip(ms, splits, strict=True)]
    if not options.cautious:
        return made
    rows = zip(made, gs, splits, strict=True)
    return [on_blocks(cautious_direction, split, direction, g) for direction, g, split in rows]


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


def cautious_direction(direction: jax.Array, g: jax.Array) -> jax.Array:
    """Only where it agrees with g_t in sign, the rest scaled up (arXiv 2411.16085).

    The floor 1e-3 under the mask's mean is timm's.
    """
    mask = (jnp.sign(direction) * jnp.sign(g) > 0).astype(direction.dtype)
    share = mask.sum() / max(1, mask.size)
    return direction * mask / jnp.maximum(share, 1e-3)


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
