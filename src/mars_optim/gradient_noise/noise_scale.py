"""How noisy is the gradient here: |grad F|^2, tr Var(g) and their ratio, the noise scale."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import nn

from ..optim.groups.names import kind_of, tensors_of
from ..optim.values import whole
from .dots import Blocks, Dots
from .intervals import Estimate, check_confidence, jackknife, jackknife_ratio
from .passes import Group, LossFunction, Passes, checked_groups, indices_of, untouched

TOTAL = "total"


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """Noise scale of one parameter group, or of all of them ("total").

    Args:
        kind: of the group.
        parameters: number of elements.
        signal: |grad F|^2.
        noise: tr Var(g) of one batch's gradient.
        scale: noise / signal, in batches (McCandlish et al. 2018, B_simple): at a batch that many
            times as large, noise and signal would be equal. Times the examples (or tokens) of a
            batch, it is in examples (or tokens).
        batch_size: examples (or tokens) in one batch.
        batches: number that were drawn.
    """

    kind: str
    parameters: int
    signal: Estimate
    noise: Estimate
    scale: Estimate
    batch_size: int
    batches: int

    @property
    def noise_per_example(self) -> Estimate:
        """tr Var of one example's gradient: noise falls as 1 / batch size."""
        return self.noise.times(self.batch_size)

    @property
    def scale_in_examples(self) -> Estimate:
        """The batch, in examples, at which noise and signal are equal."""
        return self.scale.times(self.batch_size)


def noise_scale(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Iterable[Any],
    groups: Iterable[Group],
    *,
    batch_size: int = 1,
    blocks: int = 8,
    confidence: float = 0.95,
) -> list[NoiseScale]:
    """Measure the noise at the model's parameters; everything is left as it was, bit for bit.

    Unbiased whatever the number of batches: |grad F|^2 is the mean of <g_i, g_j> over i != j.

    Args:
        model: in the mode in which it is trained; one process, not wrapped for several.
        loss_fn: (model, batch) -> mean loss of the batch, 0-d.
        batches: independent, equally distributed and finite, at least ``blocks`` of them, on the
            model's device.
        groups: an optimizer's ``param_groups``, or those of :func:`~mars_optim.param_groups`.
        batch_size: examples (or tokens) in one batch (default: 1).
        blocks: of batches, for the intervals; memory is as many gradients, >= 3 (default: 8).
        confidence: of the intervals (default: 0.95).

    Returns:
        One :class:`NoiseScale` per group, and the total last.

    Raises:
        ValueError: for too few batches or blocks, a confidence or batch size out of range, a
            parameter that is listed twice, a gradient that is not finite, or groups whose
            parameters are all frozen (a frozen one beside others counts with a gradient of 0).
        TypeError: for groups that are no dicts with ``params``.
    """
    groups = checked_groups(groups)
    params = [p for group in groups for p in tensors_of(group)]
    check_blocks("blocks", blocks)
    check_confidence(confidence)
    if whole("batch_size", batch_size) < 1:
        raise ValueError(f"batch_size={batch_size!r} must be at least 1, the examples of a batch")
    sums = Blocks(blocks, indices_of(groups))
    with untouched(model, params):
        passes = Passes(model, loss_fn, params)
        for i, batch in enumerate(batches):
            sums.add(i % blocks, passes.gradient(batch, seed=i))
    if int(sums.counts.sum()) < blocks:
        raise ValueError(
            f"batches holds {int(sums.counts.sum())}: at least blocks={blocks} are needed"
        )
    return scales_of(sums.dots(), groups, batch_size=batch_size, confidence=confidence)


def scales_of(
    dots: Sequence[Dots], groups: Sequence[Group], *, batch_size: int = 1, confidence: float = 0.95
) -> list[NoiseScale]:
    """The estimates from gradient samples that are summed up already, one :class:`Dots` a group."""
    sizes = [sum(p.numel() for p in tensors_of(group)) for group in groups]
    rows = list(zip(map(kind_of, groups), sizes, dots, strict=True))
    rows.append((TOTAL, sum(sizes), reduce(operator.add, dots)))
    return [
        NoiseScale(
            kind=kind,
            parameters=size,
            signal=jackknife(Dots.squared_mean, [d], confidence),
            noise=jackknife(Dots.variance, [d], confidence),
            scale=jackknife_ratio(Dots.variance, Dots.squared_mean, [d], confidence),
            batch_size=batch_size,
            batches=int(d.counts.sum()),
        )
        for kind, size, d in rows
    ]


def check_blocks(name: str, count: int) -> None:
    """Raise ValueError unless there are enough blocks for an interval."""
    if whole(name, count) < 3:
        raise ValueError(f"{name}={count!r} must be at least 3: fewer give no interval")
