"""A family of filters, m = a + gamma (g - a) + delta (s - a), and an optimizer that chooses both.

a and s are plain averages of the gradients at the rates beta and, slower, ``slow``. Published
methods are points of it (docs/theory.md derives each); the weights can be chosen by the next
gradient, as ``gamma="auto"`` is::

    h_gamma = <g_{t+1}, P (g_t - a_t)>,   h_delta = <g_{t+1}, P (s_t - a_t)>,   each by its own size

A study, not part of the package: ``benchmarks/filter_study.py`` trains with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from mars_optim.gamma_numbers import EVERY, FIRST, GAIN, RATE
from mars_optim.optim.orthogonalize import as_matrix, newton_schulz

RANGES = {"gamma": (0.0, 0.5), "delta": (-0.5, 0.9)}

Group = dict[str, Any]


class Point(NamedTuple):
    """Weights of the family, and by what the learning rate is multiplied."""

    gamma: float
    delta: float
    scale: float = 1.0


def averages(gradients: Iterable[Tensor], rate: float) -> list[Tensor]:
    """EMA_t = rate EMA_{t-1} + (1 - rate) g_t, from zero, without bias correction."""
    found: list[Tensor] = []
    for g in gradients:
        last = found[-1] if found else torch.zeros_like(g)
        found.append(rate * last + (1 - rate) * g)
    return found


def filtered(gradients: Sequence[Tensor], beta: float, slow: float, point: Point) -> list[Tensor]:
    """The family's momenta of these gradients, times the point's scale."""
    both = zip(gradients, averages(gradients, beta), averages(gradients, slow), strict=True)
    return [point.scale * (a + point.gamma * (g - a) + point.delta * (s - a)) for g, a, s in both]


def qhm(weight: float) -> Point:
    """(1 - weight) g + weight a, quasi-hyperbolic momentum; MARS folded at gamma = 1 - weight."""
    return Point(1 - weight, 0.0)


def nadamw(beta: float) -> Point:
    """beta a + (1 - beta) g, Nesterov's."""
    return Point(1 - beta, 0.0)


def ademamix(alpha: float) -> Point:
    """a + alpha s."""
    return Point(0.0, alpha / (1 + alpha), 1 + alpha)


def cascade(beta: float, slow: float) -> Point:
    """EMA_beta of EMA_slow: the average of an average is a mixture of both."""
    return Point(0.0, slow * (1 - beta) / (slow - beta))


def mona(beta: float, slow: float, alpha: float | None = None) -> Point:
    """EMA_beta of g + alpha EMA_slow(g_t - g_{t-1}); alpha by third parties' rule if not given."""
    alpha = -1 / (2 * (1 - slow)) if alpha is None else alpha
    return Point(0.0, alpha * (1 - slow) * (1 - beta) / (beta - slow))


def ema_nesterov_rate(decay: float, ahead: float) -> float:
    """Rate of the slow average to which a look-ahead along an average of moves amounts."""
    return decay + ahead * (1 - decay)


def ema_nesterov(beta: float, decay: float, ahead: float) -> Point:
    """Moves of the look-ahead point, in units of -lr, for a base step of EMA_beta."""
    slow = ema_nesterov_rate(decay, ahead)
    return Point(0.0, ahead * slow * (1 - beta) / (slow - beta), 1 / (1 - ahead))


class TwoAverages(Optimizer):
    """AdamW or Muon whose momentum is the family's.

    Args:
        groups: with ``rule`` ("adamw" or "muon"), ``lr``, ``betas``, ``weight_decay``, ``gamma``
            and ``delta``: where each begins. Where gamma begins at 0 the group is plain, as vectors
            are.
        slow: rate of the second average.
        chosen: which of "gamma" and "delta" go by the next gradient; the others stay.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        *,
        slow: float,
        chosen: Sequence[str] = ("gamma", "delta"),
        eps: float = 1e-8,
    ) -> None:
        keys = ("params", "rule", "lr", "betas", "weight_decay", "gamma", "delta")
        super().__init__(
            [
                {k: group[k] for k in keys} | dict(plain=not group["gamma"], told={}, steps=0)
                for group in groups
            ],
            dict(slow=slow, chosen=tuple(chosen), eps=eps),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, by the weights that the gradients so far chose; ``closure`` is not called."""
        for group in self.param_groups:
            self._judge(group)
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)

    def _judge(self, group: Group) -> None:
        """Take this gradient's verdict on the last step; every EVERY steps, follow it."""
        if group["plain"]:
            return
        group["steps"] += 1
        for name in group["chosen"]:
            products = [
                p.grad * self.state[p][name]
                for p in group["params"]
                if p.grad is not None and name in self.state[p]
            ]
            if not products:
                continue
            size = sum(float(x.abs().sum()) for x in products)
            h = sum(float(x.sum()) for x in products) / size if size else 0.0
            group["told"][name] = group["told"].get(name, 0.0) + h
            if group["steps"] > FIRST and group["steps"] % EVERY == 1:
                change = min(RATE, max(-RATE, GAIN * group["told"].pop(name)))
                low, high = RANGES[name]
                group[name] = min(high, max(low, group[name] + change))

    def _move(self, p: Tensor, g: Tensor, group: Group) -> None:
        state, (beta, beta2), slow = self.state[p], group["betas"], group["slow"]
        if not state:
            state |= dict(step=0, a=torch.zeros_like(p), s=torch.zeros_like(p))
            state["v"] = torch.zeros_like(p)
        state["step"] += 1
        t = state["step"]
        a = state["a"].lerp_(g, 1 - beta)
        s = state["s"].lerp_(g, 1 - slow)
        v = state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        share = 1 - beta**t  # of a: it is late to its size, and so is NAdamW's g
        turn = s / (1 - slow**t) - a / share
        m = a + group["gamma"] * (g - a)
        if group["delta"] and not group["plain"]:
            m = m + group["delta"] * share * turn
        scale = 1 / ((v / (1 - beta2**t)).sqrt() + group["eps"])
        if t > 1 and not group["plain"]:  # in the first step all three are one, but for rounding
            state["gamma"], state["delta"] = scale * (g - a / share), scale * turn
        if group["rule"] == "muon":
            matrix = as_matrix(m)
            u_vt = newton_schulz(matrix).to(m.dtype)
            move = 0.2 * max(matrix.shape) ** 0.5 * u_vt.reshape(m.shape)
        else:
            move = scale * m / share
        p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"])
