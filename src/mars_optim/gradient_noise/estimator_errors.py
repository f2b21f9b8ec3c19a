"""From the replicates of a run's last steps to bias^2, variance and error of each estimator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import nn

from ..optim.groups.names import kind_of
from .dots import Dots
from .intervals import Estimate, check_confidence, jackknife, jackknife_ratio
from .momentum import DOUBLE, ESTIMATORS, MOMENTA, Form, Histories, histories
from .noise_scale import TOTAL, check_blocks
from .passes import Group, LossFunction, Trail, checked_groups


@dataclass(frozen=True, slots=True)
class EstimatorError:
    """Error of one estimator of grad F(x_t).

    Args:
        bias_squared: |E e - grad F|^2, unbiased, so its estimate may be a little below 0.
        variance: E|e - E e|^2.
        error: their sum, E|e - grad F|^2.
    """

    bias_squared: Estimate
    variance: Estimate
    error: Estimate


@dataclass(frozen=True, slots=True)
class MomentumErrors:
    """Errors of one parameter group, or of all of them ("total").

    Args:
        kind: of the group.
        steps: of the run whose gradients the momenta hold beside the oldest one.
        replicates: histories of batches that were drawn.
        signal: |grad F(x_t)|^2.
        estimators: "g", "c_approx", "c_exact" and these "_clipped", and the momenta of them,
            "m_approx", ..., with "m_plain", which is AdamW's.
        ratios: of each momentum's error to m_plain's; below 1 it is nearer to the full gradient.
        best_gamma: at which the error of the unclipped approximate momentum is least here, >= 0;
            None without a correction.
    """

    kind: str
    steps: int
    replicates: int
    signal: Estimate
    estimators: dict[str, EstimatorError]
    ratios: dict[str, Estimate]
    best_gamma: Estimate | None


def momentum_errors(
    model: nn.Module,
    loss_fn: LossFunction,
    draw: Callable[[int], Any],
    groups: Iterable[Group],
    trail: Trail,
    *,
    from_start: bool = False,
    replicates: int = 8,
    confidence: float = 0.95,
    on_gradients: Callable[[int], None] = lambda count: None,
) -> list[MomentumErrors]:
    """Measure the estimators in mid-run; everything is left as it was, bit for bit.

    What is held fixed and what is drawn anew is said in :mod:`.momentum`. The run
    itself may be trained by any optimizer: ``groups`` say whose estimators are measured.

    Args:
        model: in the mode in which it is trained; one process, not wrapped for several.
        loss_fn: (model, batch) -> mean loss of the batch, 0-d.
        draw: i -> the i-th of independent batches, on the model's device.
        groups: an optimizer's ``param_groups``, or those of :func:`~mars_optim.param_groups`.
        trail: of the run, recorded at the present parameters too; at least two points.
        from_start: whether the trail's oldest point is that of the run's first gradient. Then the
            momenta begin at 0 as an optimizer's do; else the oldest gradient stands for all older
            ones, so the trail should hold all steps that weigh (default: False).
        replicates: independent histories, >= 3 (default: 8); each takes
            2 * len(trail.points) - 1 gradients.
        confidence: of the intervals (default: 0.95).
        on_gradients: told the number of gradients taken, now and then.

    Returns:
        One :class:`MomentumErrors` per group, and the total last.

    Raises:
        ValueError: for too few replicates or points, groups without ``betas``, a parameter that is
            listed twice, or a gradient that is not finite.
        TypeError: for groups that are no dicts with ``params``.
    """
    groups = checked_groups(groups)
    check_blocks("replicates", replicates)
    check_confidence(confidence)
    found = histories(
        model,
        loss_fn,
        draw,
        groups,
        trail,
        from_start=from_start,
        replicates=replicates,
        on_gradients=on_gradients,
    )
    return errors_of(found, groups, steps=len(trail.points) - 1, confidence=confidence)


def errors_of(
    found: Sequence[Histories], groups: Sequence[Group], *, steps: int, confidence: float = 0.95
) -> list[MomentumErrors]:
    """The estimates of each group, and of all of them together."""
    forms = [Form.of(group) for group in groups]
    rows = [
        _errors(kind_of(g), h, [(f, h)], steps, confidence)
        for g, f, h in zip(groups, forms, found, strict=True)
    ]
    total = reduce(operator.add, found)
    rows.append(_errors(TOTAL, total, list(zip(forms, found, strict=True)), steps, confidence))
    return rows


def _errors(
    kind: str,
    h: Histories,
    parts: list[tuple[Form, Histories]],
    steps: int,
    confidence: float,
) -> MomentumErrors:
    def pair(name: str) -> list[Dots]:
        return [h.biases[name], h.values[name]]

    return MomentumErrors(
        kind=kind,
        steps=steps,
        replicates=h.target.blocks,
        signal=jackknife(Dots.squared_mean, [h.target], confidence),
        estimators={
            name: EstimatorError(
                bias_squared=jackknife(Dots.squared_mean, [h.biases[name]], confidence),
                variance=jackknife(Dots.variance, [h.values[name]], confidence),
                error=jackknife(error, pair(name), confidence),
            )
            for name in ESTIMATORS
        },
        ratios={
            name: jackknife_ratio(
                lambda a, b, c, d: error(a, b),
                lambda a, b, c, d: error(c, d),
                [*pair(name), *pair("m_plain")],
                confidence,
            )
            for name in MOMENTA[1:]
        },
        best_gamma=_best_gamma(parts, confidence),
    )


def error(bias: Dots, value: Dots) -> float:
    """E|e - grad F|^2."""
    return bias.squared_mean() + value.variance()


def _best_gamma(parts: list[tuple[Form, Histories]], confidence: float) -> Estimate | None:
    """Where the parabola through the errors at 0, gamma and 2 gamma is lowest.

    Without a clip the momentum is linear in gamma, so its error is a parabola, for every sample.
    """
    corrected = [(f, h) for f, h in parts if f.gamma > 0]
    if len({(f.beta1, f.gamma) for f, _ in corrected}) != 1:
        return None
    gamma = corrected[0][0].gamma
    h = reduce(operator.add, (h for _, h in corrected))
    names = ("m_plain", "m_approx", DOUBLE)
    samples = [d for name in names for d in (h.biases[name], h.values[name])]

    def above(*dots: Dots) -> float:
        at_0, at_gamma, at_double = _errors_at(dots)
        return gamma * (at_double + 3.0 * at_0 - 4.0 * at_gamma)

    def below(*dots: Dots) -> float:
        at_0, at_gamma, at_double = _errors_at(dots)
        return 2.0 * (at_double - 2.0 * at_gamma + at_0)

    return jackknife_ratio(above, below, samples, confidence).map(lambda x: max(0.0, x))


def _errors_at(dots: Sequence[Dots]) -> list[float]:
    return [error(dots[i], dots[i + 1]) for i in range(0, len(dots), 2)]
