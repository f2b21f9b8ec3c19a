r"""Criteria that choose gamma_t: the next gradient, or the least estimated error.

With g_t the gradient, a_t the plain average of all so far, and batches drawn independently:

:class:`NextGradient`: the momentum is m_t = a_t + gamma (g_t - a_t), the step -lr P m_t. The loss
after it changes with gamma by -lr <grad F_{t+1}, P (g_t - a_t)>, and the next batch's gradient
estimates grad F_{t+1} and knows nothing of g_t's noise::

    u_t = P (g_t - a_t),   h_{t+1} = <g_{t+1}, u_t> / sum_i |g_{t+1,i} u_{t,i}|,   gamma += GAIN h

P is Adam's, 1 / sqrt of the average of g^2, for any rule. gamma rests where E<g_{t+1}, u_t> = 0.

:class:`LeastError`: five dot products tell the noise N of a batch and the error Q of the average::

    N = |g_t - g_{t-1}|^2 / 2
    Q = |a_{t-1}|^2 - 2 <g_t, a_{t-1}> + <g_t, g_{t-1}> + (|g_t|^2 - |g_{t-1}|^2) / 2

The newest gradient then deserves the weight w = Q / (Q + N), the gain of a Kalman filter, and has
it at gamma = (w - (1 - beta1)) / beta1.

Both are derived, with what they assume, in docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ...gamma_numbers import FIRST, GAIN
from ..correction import dot

SHARE = 0.25  # of all steps so far: how long the averages of LeastError are

Number = float | Tensor  # a tensor of no dimension where the step is known to the device alone


class Shares(NamedTuple):
    """Share of g_t in a_t, and of g_t^2 in its average; float64, 0-d."""

    of_g: Tensor
    of_square: Tensor


class Criterion(Protocol):
    """A criterion: values kept per sampled element, sums over them, and the gamma that follows.

    All of it is arithmetic of tensors that waits for no device and can be compiled.
    """

    BEGIN: ClassVar[tuple[float, ...]]  # the rows that are kept of an element, before its first g
    SUMS: ClassVar[int]  # numbers that a step adds
    MEMORY: ClassVar[int]  # numbers that are remembered from one setting to the next
    DEGREE: ClassVar[int]  # of the sums in g: how a sample stands for the whole

    def look(self, g: Tensor, kept: Tensor, shares: Shares) -> tuple[list[Tensor], Tensor]:
        """One step's sums, which may be added over tensors; and what to keep, like ``kept``."""
        ...

    def fold(self, memory: Tensor, rows: Tensor, told: Tensor, steps: Tensor) -> Tensor:
        """Memory after more steps.

        Args:
            memory: before them, (MEMORY,).
            rows: their sums over all elements, (steps, SUMS).
            told: which of these count, (steps,).
            steps: their numbers, from 1.
        """
        ...

    def settle(self, now: Tensor, memory: Tensor, beta: Number) -> tuple[Tensor, Tensor]:
        """Where gamma should be, and what is remembered after that."""
        ...


class NextGradient:
    """Would the last step have been better with more of its own gradient? See the module."""

    BEGIN: ClassVar[tuple[float, ...]] = (0.0, 0.0, -1.0)  # no average of squares is below 0
    SUMS: ClassVar[int] = 2
    MEMORY: ClassVar[int] = 1
    DEGREE: ClassVar[int] = 1

    def look(self, g: Tensor, kept: Tensor, shares: Shares) -> tuple[list[Tensor], Tensor]:
        """<g_t, u_{t-1}> and the same of sizes; u_t, a_t and the average of g^2."""
        u, average, square = kept.unbind()
        product = g * u
        sums = [product.sum(), product.abs_().sum()]
        fresh = square < 0
        average = torch.lerp(average, g, torch.where(fresh, 1.0, shares.of_g))
        square = torch.lerp(square, g * g, torch.where(fresh, 1.0, shares.of_square))
        u = self.turn(g - average, square)
        return sums, torch.stack([u, average, square])

    def turn(self, difference: Tensor, square: Tensor) -> Tensor:
        """u_t = P (g_t - a_t); where g has always been 0, the difference is, too."""
        return difference.mul_(square.clamp_min(torch.finfo(square.dtype).tiny).rsqrt_())

    def fold(self, memory: Tensor, rows: Tensor, told: Tensor, steps: Tensor) -> Tensor:
        """The sum of h since gamma was last set; each is within [-1, 1]."""
        agreement, size = rows.unbind(1)
        return memory + torch.where(told & (size > 0), agreement / size, 0.0).sum()

    def settle(self, now: Tensor, memory: Tensor, beta: Number) -> tuple[Tensor, Tensor]:
        """gamma += GAIN h, step by step."""
        return now + GAIN * memory[0], torch.zeros_like(memory)


class PlainNextGradient(NextGradient):
    """The same with P = 1, of an optimizer whose step is its momentum (SGD)."""

    DEGREE: ClassVar[int] = 2

    def turn(self, difference: Tensor, square: Tensor) -> Tensor:
        """u_t = g_t - a_t."""
        return difference


class LeastError:
    """Which gamma makes E|m_t - grad F_t|^2 least? See :func:`best_gamma`."""

    BEGIN: ClassVar[tuple[float, ...]] = (0.0, 0.0, 0.0)
    SUMS: ClassVar[int] = 5
    MEMORY: ClassVar[int] = 5
    DEGREE: ClassVar[int] = 2

    def look(self, g: Tensor, kept: Tensor, shares: Shares) -> tuple[list[Tensor], Tensor]:
        """The five products of :func:`best_gamma`; g_t, a_t and that there was a g_t."""
        last, average, begun = kept.unbind()
        paired = g * begun
        dots = [(paired, g), (last, last), (g, last), (g, average), (average, average)]
        share = torch.where(begun > 0, shares.of_g, 1.0)
        new = torch.stack([g, torch.lerp(average, g, share), torch.ones_like(g)])
        return [dot(a, b) for a, b in dots], new

    def fold(self, memory: Tensor, rows: Tensor, told: Tensor, steps: Tensor) -> Tensor:
        """Running averages over the last SHARE of all steps, at least FIRST.

        Step by step it is mean += weight (row - mean); here in closed form.
        """
        weights = torch.maximum(
            (steps - 1.0).clamp_min(1.0).reciprocal(),
            (SHARE * steps).clamp_min(FIRST).reciprocal(),
        )
        weights = torch.where(told & (steps > 1), weights, 0.0)  # the first has no g_{t-1}
        left = (1.0 - weights).flip(0).cumprod(0).flip(0)  # of what was before each
        after = torch.cat([left[1:], torch.ones_like(left[:1])])
        rows = torch.where(told[:, None], rows, 0.0)
        return left[0] * memory + (weights * after) @ rows

    def settle(self, now: Tensor, memory: Tensor, beta: Number) -> tuple[Tensor, Tensor]:
        """The one of the least error now, :func:`best_gamma`; the averages go on."""
        noise, error = self.errors(memory)
        best = (error / (error + noise) - (1.0 - beta)) / beta
        return torch.where(error + noise > 0.0, best.clamp(0.0, 1.0), 0.0), memory

    def errors(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """N = tr Var(g), and Q = E|a_{t-1} - grad F_t|^2, noise and lag of the average together.

        Two batches are independent, so E<g_t, g_{t-1}> = <grad F_t, grad F_{t-1}>, and the noise of
        g_t is independent of a_{t-1}, whatever path it came by. With d the full gradient's move in
        the step, N is too large by |d|^2 / 2.
        """
        gg, ll, gl, gm, mm = memory.unbind()
        noise = ((gg + ll) / 2.0 - gl).clamp_min(0.0)
        return noise, (mm - 2.0 * gm + gl + (gg - ll) / 2.0).clamp_min(0.0)


CRITERIA: dict[str, Criterion] = {
    "auto": NextGradient(),
    "least_error": LeastError(),
    "plain": PlainNextGradient(),
}


def criterion_of(group: Mapping[str, Any]) -> Criterion:
    """Criterion of a group whose gamma is chosen."""
    return CRITERIA[group.get("criterion", group["gamma_schedule"])]


def newest_weight(beta: float, t: Number) -> Number:
    """Weight of g_t in the average of t gradients with Adam's bias correction."""
    return (1.0 - beta) / (1.0 - beta**t)


def best_gamma(gg: float, ll: float, gl: float, gm: float, mm: float, *, beta: float) -> float:
    """The gamma in [0, 1] of the least estimated error, from dot products of a run's own steps.

    m_t = (1 - gamma) EMA(g)_t + gamma g_t gives the newest gradient the weight
    w = 1 - beta + gamma beta, and leaves 1 - w to the average a_{t-1} from before. Its error is
    (1 - w)^2 Q + w^2 N, least at w = Q / (Q + N), the gain of a Kalman filter.

    ``gg``, ``ll`` and ``gl`` alone cannot tell it: they give noise and signal, and no lag. The
    last two, of the average that is in memory anyway, close the gap without a model of how the
    gradient moves. Two things limit it: the full gradient's move in one step must be small beside
    the noise, and the mean must be long, for <g_t, g_{t-1}> is itself noisy (docs/theory.md).

    Args:
        gg: mean over recent steps of |g_t|^2.
        ll: of |g_{t-1}|^2.
        gl: of <g_t, g_{t-1}>, of two batches (not the exact form's).
        gm: of <g_t, a_{t-1}>; a_{t-1} is the plain average EMA(g) with Adam's bias correction,
            what ``correction="folded"`` keeps as ``exp_avg``, divided by 1 - beta^(t-1).
        mm: of |a_{t-1}|^2.
        beta: beta1; early in a run 1 - (1 - beta1) / (1 - beta1^t), the weight of a_{t-1}.

    Raises:
        ValueError: for a beta out of range.
    """
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta!r} must be above 0 and below 1")
    means = torch.tensor([gg, ll, gl, gm, mm], dtype=torch.float64, device="cpu")
    if not means.isfinite().all():
        return 0.0  # a step that overflowed tells nothing: no correction
    best, _ = LeastError().settle(means, means, beta)
    return float(best)
