r"""What the steps show of noise and signal: four sums per tensor that the clip needs anyway.

.. math::
    \|c_t\|^2,\; \|g_t\|^2,\; \|g_{t-1}\|^2,\; \langle g_t, g_{t-1} \rangle

Added up on the device, over the steps since they were last read; reading is the only wait.

With g_t = s_t + n_t, a signal that moves slowly and noise that is independent from batch to batch,
E<g_t, g_{t-1}> = |s|^2 and E|g_t - g_{t-1}|^2 / 2 = tr Var(g) (plus half the signal's own move).
For ``correction="exact"`` g_{t-1} is this batch's gradient at the last point instead, so that their
difference is the signal's move and little noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .correction import CommonNorm, clip_norms, inner, scales_of
from .settings import Settings
from .sharded import Shards

CC, GG, LL, GL, SUMS = range(5)

# Told (tensors, SUMS) and the clip's scales (tensors,), None without a clip.
Observe = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTelemetry:
    """Means over ``steps`` steps of one parameter group, all its tensors together.

    Args:
        group: number of the parameter group.
        kind: what is in it, as in ``describe()``.
        steps: since telemetry was last read; the very first, which has no g_{t-1}, is left out.
        gradient: root mean square of |g_t|, after the user's own gradient clipping.
        signal: estimate of |E g|^2, the mean of <g_t, g_{t-1}>; may be negative in noise. This and
            the next three are NaN where no g_{t-1} is kept: no correction, or a folded one.
        noise: estimate of tr Var(g), the mean of |g_t - g_{t-1}|^2 / 2. NaN for
            ``correction="exact"``, whose two gradients are of one batch.
        cosine: of g_t and g_{t-1}.
        correction_ratio: k |g_t - g_{t-1}| / |g_t|, by root mean squares.
        clip_rate: share of tensors whose c_t was clipped; 0 without a clip.
        gamma: in force when it was read.
        tensors: with gradients in the group.
    """

    group: int
    kind: str
    steps: int
    gradient: float
    signal: float
    noise: float
    cosine: float
    correction_ratio: float
    clip_rate: float
    gamma: float
    tensors: int

    @property
    def noise_scale(self) -> float:
        """tr Var(g) / |E g|^2: above 1 the batch's gradient is more noise than signal.

        In units of the batch that was trained on, it is McCandlish's simple noise scale.
        """
        return math.inf if self.signal <= 0 else self.noise / self.signal

    def to_dict(self) -> dict[str, Any]:
        """All of it, ``noise_scale`` too."""
        return {**asdict(self), "noise_scale": self.noise_scale}


@dataclass(slots=True)
class _Total:
    sums: Tensor  # (SUMS,), float64, of this process's shards
    clipped: Tensor  # (), float64, tensors times steps
    steps: Tensor  # (), float64
    shards: Shards | None
    tensors: int


class Telemetry:
    """Adds up what the steps of an optimizer show; see the module.

    Sums of shards stay apart until they are read: reading then takes part in one all-reduce per
    bucket of parameters, so every process must do it.
    """

    def __init__(self) -> None:
        self._totals: dict[tuple[int, int], _Total] = {}

    def add(
        self,
        group: int,
        bucket: int,
        sums: Tensor,
        scales: Tensor | None,
        *,
        shards: Shards | None,
        paired: bool,
    ) -> None:
        """Add one step of one bucket of tensors; without waiting for the device.

        Args:
            group: number of the parameter group.
            bucket: number of the bucket in it.
            sums: (tensors, SUMS), of this process's shards.
            scales: (tensors,), of the clip; None without one.
            shards: of which whole tensors these are shards.
            paired: whether there is a g_{t-1}, from the second step on.
        """
        one = sums.new_ones(())
        counts = (sums.select(1, LL).sum() > 0).double() if paired else one
        clipped = one - one if scales is None else (scales < 1.0).double().sum()
        now = _Total(sums.sum(0) * counts, clipped * counts, counts, shards, len(sums))
        if total := self._totals.get((group, bucket)):
            home = sums.device
            now.sums += total.sums.to(home)
            now.clipped += total.clipped.to(home)
            now.steps += total.steps.to(home)
        self._totals[group, bucket] = now

    def to_json(self) -> list[list[Any]]:
        """What has been added up so far, for a checkpoint; of sharded parameters nothing."""
        return [
            [*key, total.sums.tolist(), float(total.clipped), float(total.steps), total.tensors]
            for key, total in sorted(self._totals.items())
            if total.shards is None
        ]

    def from_json(self, data: list[list[Any]]) -> None:
        """Go on from what :meth:`to_json` gave, to the same bits."""
        for group, bucket, *numbers, tensors in data:
            sums, clipped, steps = (torch.tensor(x, dtype=torch.float64) for x in numbers)
            self._totals[group, bucket] = _Total(sums, clipped, steps, None, tensors)

    def read(self, groups: list[dict[str, Any]]) -> list[GroupTelemetry]:
        """Means over the steps since the last reading, group by group; starts anew."""
        totals, self._totals = self._totals, {}
        return [
            _means(i, groups[i], [t for (g, _), t in sorted(totals.items()) if g == i])
            for i in sorted({group for group, _ in totals})
        ]


def _means(number: int, group: dict[str, Any], totals: list[_Total]) -> GroupTelemetry:
    sums = [0.0] * SUMS
    for total in totals:
        whole = total.sums if total.shards is None else total.shards.whole_sums(total.sums)
        sums = [a + b for a, b in zip(sums, whole.tolist(), strict=True)]
    steps = max(int(total.steps) for total in totals)
    settings = Settings.from_group(group)
    gg, ll, gl = (sums[i] / steps if steps else math.nan for i in (GG, LL, GL))
    if not settings.takes_difference:
        ll = gl = math.nan
    difference = gg - 2 * gl + ll  # |g_t - g_{t-1}|^2
    clipped = sum(float(total.clipped) for total in totals)
    tensors = sum(total.tensors for total in totals)
    return GroupTelemetry(
        group=number,
        kind=str(group.get("kind", group["rule"])),
        steps=steps,
        gradient=math.sqrt(gg),
        signal=gl,
        noise=math.nan if settings.exact else difference / 2,
        cosine=gl / math.sqrt(gg * ll) if gg * ll else math.nan,
        correction_ratio=settings.gain * math.sqrt(abs(difference) / gg) if gg else math.nan,
        clip_rate=clipped / (steps * tensors) if steps else math.nan,
        gamma=settings.gamma,
        tensors=tensors,
    )


def tell(
    observe: Observe,
    grads: list[Tensor],
    states: list[dict[str, Tensor]],
    settings: Settings,
    shards: Shards | None,
    common: CommonNorm | None = None,
) -> None:
    """``observe`` what a step is about to do, where its kernel does not say.

    Args:
        observe: the listener.
        grads: g_t, of this process's shards.
        states: with g_{t-1}, before the step.
        settings: of the group.
        shards: of which whole tensors these are shards.
        common: the norm for ``clip_over="all"``, if it is that of more tensors than these.
    """
    last_grads = [s["last_grad"] for s in states] if settings.takes_difference else None
    sums, scales = sums_of(grads, last_grads, settings.gain), None
    if settings.clip is not None:
        if common is not None and settings.clips_together:
            norms = common.of(grads)
        else:
            norms = clip_norms(sums.select(1, CC).sqrt(), settings, shards)
        scales = scales_of(norms, settings.clip)
    observe(sums, scales)


def sums_of(grads: list[Tensor], last_grads: list[Tensor] | None, gain: float) -> Tensor:
    """The four sums of each tensor, (tensors, SUMS) in float64, before c_t takes g_{t-1}'s memory.

    |c|^2 = (1 + k)^2 |g|^2 - 2 k (1 + k) <g, g_{t-1}> + k^2 |g_{t-1}|^2.
    """
    gg = torch.stack([inner(g, g) for g in grads])
    if last_grads is None:
        zero = torch.zeros_like(gg)
        return torch.stack([gg, gg, zero, zero], dim=1)
    ll = torch.stack([inner(g, g) for g in last_grads])
    pairs = zip(grads, last_grads, strict=True)
    gl = torch.stack([inner(g, last) for g, last in pairs])
    k = gain
    cc = (1 + k) ** 2 * gg - 2 * k * (1 + k) * gl + k**2 * ll
    return torch.stack([cc.clamp(min=0.0), gg, ll, gl], dim=1)
