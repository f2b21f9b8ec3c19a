"""gamma chosen in the run by the next gradient: ``gamma="auto"``.

The arithmetic is that of PyTorch's ``NextGradient`` (``optim/gamma/criteria.py``, where it is
derived), of the same sampled elements, without its bookkeeping of processes: here a sum over a
sharded array is one over the whole.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..gamma_numbers import EVERY, FIRST, GAIN, HIGHEST, RATE, sampled, spacing
from .options import Scalar, debias, precise


class GammaState(NamedTuple):
    """State of a gamma that is chosen in the run.

    Args:
        now: gamma in force in the step that is due, 0-d.
        agreement: sum of the verdicts since it was last set, 0-d.
        probes: of each sampled element u_t, a_t and the average of g^2, (3, elements).
    """

    now: jax.Array
    agreement: jax.Array
    probes: jax.Array


def begin(leaves: list[jax.Array], gamma: Scalar) -> GammaState:
    """Before the first step; an average of squares below 0 says that there was no gradient."""
    size = sum(sampled(leaf.shape) for leaf in leaves)
    rows = jnp.array([0.0, 0.0, -1.0], precise())[:, None]
    probes = jnp.tile(rows, (1, size))
    return GammaState(jnp.asarray(gamma, precise()), jnp.zeros((), precise()), probes)


def observe(
    state: GammaState, grads: list[jax.Array], count: jax.Array, b1: Scalar, b2: Scalar
) -> GammaState:
    """State after step ``count``, from 1; every 10 steps gamma moves.

    u_t = (g_t - a_t) / sqrt(average of g^2) and h_{t+1} = <g_{t+1}, u_t> / sum |g_{t+1} u_t|;
    gamma += 0.02 h for each of the 10 steps, by 0.05 at the most, within [0, 0.5].
    """
    turn, average, square = state.probes
    g = _sample(grads)
    product = g * turn
    agreement, size = product.sum(), jnp.abs(product).sum()
    told = jnp.isfinite(agreement) & jnp.isfinite(size) & (size > 0)
    summed = state.agreement + jnp.where(told, agreement / jnp.where(told, size, 1.0), 0.0)

    fresh = square < 0
    share, share_of_square = ((1 - b) / debias(b, count) for b in (b1, b2))
    average = average + jnp.where(fresh, 1.0, share) * (g - average)
    square = square + jnp.where(fresh, 1.0, share_of_square) * (g * g - square)
    tiny = float(np.finfo(square.dtype).tiny)
    new = jnp.stack([(g - average) * jax.lax.rsqrt(jnp.maximum(square, tiny)), average, square])
    fine = jnp.isfinite(new).all(0)
    probes = jnp.where(fine, new, jnp.nan_to_num(state.probes, nan=0.0, posinf=0.0, neginf=0.0))

    due = (count % EVERY == 0) & (count >= FIRST)
    moved = jnp.clip(state.now + jnp.clip(GAIN * summed, -RATE, RATE), 0.0, HIGHEST)
    return GammaState(
        jnp.where(due, moved, state.now), jnp.where(due, 0.0, summed).astype(summed.dtype), probes
    )


def _sample(grads: list[jax.Array]) -> jax.Array:
    """The sampled elements of all gradients, each standing for its share of its array."""
    parts = [jnp.zeros((0,), precise())]
    for g in grads:
        chosen = np.arange(sampled(g.shape)) * spacing(g.shape)
        scale = math.prod(g.shape) / max(1, len(chosen))
        # by positions and not from the flat array, which would gather a sharded one
        found = g[np.unravel_index(chosen, g.shape)] if len(chosen) else g.reshape(-1)
        parts.append(found.reshape(-1).astype(precise()) * scale)
    return jnp.concatenate(parts)
