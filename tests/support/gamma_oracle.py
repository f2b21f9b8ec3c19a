"""The whole choice of gamma, slow and in float64, as docs/theory.md has it: read this one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FIRST, EVERY, GAIN, RATE, HIGHEST, AT_MOST, SHARE = 20, 10, 0.02, 0.05, 0.5, 1024, 0.25


def sample(g: Tensor, degree: int) -> Tensor:
    """Evenly spaced elements, in a step that meets every column, scaled to stand for all."""
    flat = (torch.view_as_real(g) if g.is_complex() else g).double().flatten()
    row = 2 if g.is_complex() else g.shape[-1]
    apart = max(1, math.ceil(len(flat) / AT_MOST))
    while apart > 1 and math.gcd(apart, row) > 1:
        apart += 1
    found = flat[::apart]
    return found * (len(flat) / len(found)) ** (1 / degree)


class Oracle:
    """gamma of one group, from the whole gradients of its tensors, step by step."""

    def __init__(self, schedule: str, betas: tuple[float, float], gamma: float = 0.025) -> None:
        self.schedule, self.betas, self.gamma = schedule, betas, gamma
        self.steps = 0
        self.kept: dict[int, dict[str, Tensor]] = {}
        self.agreement = 0.0
        self.means = [0.0] * 5

    def step(self, grads: list[Tensor | None]) -> float:
        """gamma after a step with these; None where a tensor has no gradient."""
        self.steps += 1
        t, (beta1, beta2) = self.steps, self.betas
        weight1, weight2 = (1 - beta1) / (1 - beta1**t), (1 - beta2) / (1 - beta2**t)
        sums = [0.0] * (2 if self.schedule == "auto" else 5)
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            g = sample(grad, 1 if self.schedule == "auto" else 2)
            if i not in self.kept:
                self.kept[i] = {"u": 0 * g, "a": g, "v": g * g, "g": g}
                continue
            kept = self.kept[i]
            a, last = kept["a"], kept["g"]
            if self.schedule == "auto":
                added = [(g * kept["u"]).sum(), (g * kept["u"]).abs().sum()]
            else:
                added = [g @ g, last @ last, g @ last, g @ a, a @ a]
            sums = [s + float(x) for s, x in zip(sums, added, strict=True)]
            kept["a"] = a + weight1 * (g - a)
            kept["v"] = kept["v"] + weight2 * (g * g - kept["v"])
            kept["u"] = torch.where(g == kept["a"], 0.0, (g - kept["a"]) / kept["v"].sqrt())
            kept["g"] = g
        self.remember(sums, t)
        if t >= FIRST and t % EVERY == 0:
            wanted = self.wanted(1 - weight1)
            moved = self.gamma + min(RATE, max(-RATE, wanted - self.gamma))
            self.gamma = min(HIGHEST, max(0.0, moved))
        return self.gamma

    def remember(self, sums: list[float], t: int) -> None:
        """Agreements are added up, products are averaged."""
        if self.schedule == "auto":
            self.agreement += sums[0] / sums[1] if sums[1] > 0 else 0.0
        elif t > 1:
            weight = max(1 / (t - 1), 1 / max(FIRST, SHARE * t))
            self.means = [m + weight * (s - m) for m, s in zip(self.means, sums, strict=True)]

    def wanted(self, beta: float) -> float:
        """Where gamma should be."""
        if self.schedule == "auto":
            wanted, self.agreement = self.gamma + GAIN * self.agreement, 0.0
            return wanted
        gg, ll, gl, gm, mm = self.means
        noise = max(0.0, (gg + ll) / 2 - gl)
        error = max(0.0, mm - 2 * gm + gl + (gg - ll) / 2)
        weight = error / (error + noise)
        return min(1.0, max(0.0, (weight - (1 - beta)) / beta))
