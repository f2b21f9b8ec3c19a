"""Bias and variance of g, c, clipped c and m in mid-run, against closed forms on quadratics."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from docs.figures.noise_formulas import average_variance, correction_variance
from mars_optim import MARSAdamW
from mars_optim.gradient_noise import MomentumErrors, Trail, momentum_errors
from tests.support.quadratic import CURVATURE, Quadratic, draw, loss_fn, variance_at

STEPS = 20


def moving_model(decay: float = 0.9, steps: int = STEPS) -> tuple[Quadratic, Trail]:
    """x_s = decay^s x_0, so that lag matters; the trail ends at the model's parameters."""
    model = Quadratic()
    trail = Trail(model.parameters(), steps + 1)
    with torch.no_grad():
        for _ in range(steps):
            trail.record()
            model.x.mul_(decay)
            model.y.mul_(decay)
    trail.record()
    return model, trail


def group(beta1: float, gamma: float, clip: float | None, *params: Tensor) -> dict[str, object]:
    return dict(params=list(params), betas=(beta1, 0.99), gamma=gamma, clip=clip)


def closed_forms(points: list[Tensor], beta: float, gamma: float) -> dict[str, tuple[float, float]]:
    """(bias^2, variance) of every unclipped estimator of one vector, in mid-run."""
    k, steps = gamma * beta / (1 - beta), len(points) - 1
    weights, rest = [(1 - beta) * beta**age for age in range(steps)], beta**steps
    newest = points[::-1]
    moved = [a - b for a, b in itertools.pairwise(newest)]

    def bias(gain: float) -> float:
        mean = rest * CURVATURE * newest[-1] + sum(
            w * CURVATURE * (x + gain * d) for w, x, d in zip(weights, newest, moved, strict=False)
        )
        return float((mean - CURVATURE * newest[0]).square().sum())

    def independent(gain: float) -> float:
        factors = [(1 + gain) * w for w in weights] + [rest]
        for age, w in enumerate(weights):
            factors[age + 1] -= gain * w
        return sum(f * f * float(variance_at(x)) for f, x in zip(factors, newest, strict=True))

    def paired(gain: float) -> float:  # n has no part in the difference, z has
        each = [variance_at(x + gain * d) for x, d in zip(newest, moved, strict=False)]
        oldest = rest**2 * float(variance_at(newest[-1]))
        return oldest + sum(w * w * float(v) for w, v in zip(weights, each, strict=True))

    own, last = float(variance_at(newest[0])), float(variance_at(newest[1]))
    lag = float((k * CURVATURE * moved[0]).square().sum())
    return {
        "g": (0.0, own),
        "c_approx": (lag, (1 + k) ** 2 * own + k**2 * last),
        "c_exact": (lag, float(variance_at(newest[0] + k * moved[0]))),
        "m_plain": (bias(0.0), independent(0.0)),
        "m_approx": (bias(k), independent(k)),
        "m_exact": (bias(k), paired(k)),
    }


def measured(seed: int, replicates: int, confidence: float, **options: float) -> MomentumErrors:
    model, trail = moving_model(steps=5)
    groups = [group(0.8, 0.3, None, model.x)]
    (row, _) = momentum_errors(
        model,
        loss_fn,
        lambda i: draw(10_000 * seed + i),
        groups,
        trail,
        replicates=replicates,
        confidence=confidence,
    )
    return row


@pytest.mark.slow
def test_bias_and_variance_of_estimators_match_the_closed_form():
    model, trail = moving_model()
    groups = [group(0.9, 0.05, None, model.x), group(0.8, 0.3, None, model.y)]
    rows = momentum_errors(model, loss_fn, draw, groups, trail, replicates=60, confidence=0.9999)
    assert [r.kind for r in rows] == ["vector", "vector", "total"]
    whole: dict[str, tuple[float, float]] = {}
    for row, (beta, gamma), i in zip(rows, ((0.9, 0.05), (0.8, 0.3)), (0, 1), strict=False):
        assert (row.steps, row.replicates) == (STEPS, 60)
        forms = closed_forms([p[i] for p in trail.points], beta, gamma)
        for name, (bias, variance) in forms.items():
            so_far = whole.get(name, (0.0, 0.0))
            whole[name] = (so_far[0] + bias, so_far[1] + variance)
            check(row, name, bias, variance)
    for name, (bias, variance) in whole.items():
        check(rows[2], name, bias, variance)
    signal = 2 * float((CURVATURE * model.x.detach()).square().sum())
    assert rows[2].signal.low < signal < rows[2].signal.high


def check(row: MomentumErrors, name: str, bias: float, variance: float) -> None:
    e = row.estimators[name]
    slack = 1e-12
    assert e.bias_squared.low - slack <= bias <= e.bias_squared.high + slack, name
    assert e.variance.low < variance < e.variance.high, name
    assert e.error.low < bias + variance < e.error.high, name
    assert e.variance.high - e.variance.low < 1.5 * variance, name
    assert e.bias_squared.high - e.bias_squared.low < 0.3 * bias + 1e-9, name


@pytest.mark.slow
def test_intervals_cover_at_their_stated_rate():
    (points,) = ([p[0] for p in moving_model(steps=5)[1].points],)
    forms = closed_forms(points, 0.8, 0.3)
    runs, inside = 80, dict.fromkeys([(n, s) for n in forms for s in ("bias", "all", "ratio")], 0)
    for seed in range(runs):
        row = measured(seed, 6, 0.9)
        for name, (bias, variance) in forms.items():
            e = row.estimators[name]
            inside[name, "bias"] += e.bias_squared.low - 1e-12 <= bias <= e.bias_squared.high
            inside[name, "all"] += e.error.low <= bias + variance <= e.error.high
            if name in row.ratios:
                true = (bias + variance) / sum(forms["m_plain"])
                inside[name, "ratio"] += row.ratios[name].low <= true <= row.ratios[name].high
    measured_things = {k: v / runs for k, v in inside.items() if v or k[1] != "ratio"}
    # 0.9 less three standard errors of the simulation, and a little for six replicates
    assert all(rate >= 0.79 for rate in measured_things.values()), measured_things
    assert sum(measured_things.values()) / len(measured_things) < 0.97


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("gamma", "inflation"), [(0.01, 1.023), (0.025, 1.070), (0.05, 1.185)])
def test_momentum_at_rest_is_noisier_by_approx_but_not_by_exact(gamma: float, inflation: float):
    model = Quadratic()
    trail = Trail(model.parameters(), 61)
    for _ in range(61):
        trail.record()  # x stays
    rows = momentum_errors(
        model, loss_fn, draw, [group(0.95, gamma, None, model.x)], trail, replicates=8
    )
    k, row = gamma * 19, rows[0]
    assert average_variance(0.95, gamma) / average_variance(0.95) == pytest.approx(
        inflation, abs=5e-4
    )
    assert correction_variance(0.95, gamma) == pytest.approx((1 + k) ** 2 + k**2)
    # the same draws make both momenta: the exact one is the plain one to the last digits
    assert row.ratios["m_exact"].value == pytest.approx(1.0, abs=1e-12)
    assert row.ratios["m_approx"].low < inflation < row.ratios["m_approx"].high
    assert row.estimators["c_exact"].bias_squared.value == 0.0


@pytest.mark.slow
def test_clip_is_measured_as_bias_only_if_it_acts():
    model, trail = moving_model()
    norms = []
    for clip in (1e-3, 1e6):
        groups = [group(0.9, 0.05, clip, model.x)]
        (row, _) = momentum_errors(model, loss_fn, draw, groups, trail, replicates=20)
        for name in ("c_approx", "c_exact", "m_approx", "m_exact"):
            free, clipped = row.estimators[name], row.estimators[f"{name}_clipped"]
            if clip == 1e6:
                assert clipped == free
            else:
                assert clipped.variance.value <= 1.5e-6  # of vectors on a sphere of that radius
                norms.append(clipped.bias_squared)
    signal = float((CURVATURE * model.x.detach()).norm())
    for e in norms:  # all but nothing is left of the gradient
        assert e.low - 0.05 * signal**2 < (signal - 1e-3) ** 2 < e.high + 0.05 * signal**2


@pytest.mark.slow
def test_the_measured_best_gamma_is_the_numerical_one():
    model, trail = moving_model(decay=0.95)
    (row, _) = momentum_errors(
        model, loss_fn, draw, [group(0.9, 0.05, None, model.x)], trail, replicates=60
    )
    points = [p[0] for p in trail.points]
    grid = [i / 400 for i in range(400)]
    best = min(grid, key=lambda gamma: sum(closed_forms(points, 0.9, gamma)["m_approx"]))
    assert row.best_gamma is not None
    assert row.best_gamma.low < best < row.best_gamma.high
    assert row.best_gamma.high - row.best_gamma.low < 0.2


def test_a_run_s_own_groups_are_measured_and_left_as_they_were():
    model = Quadratic(dropout=0.2)
    optimizer = MARSAdamW(model.parameters(), lr=0.01, optimize_1d=True)
    trail = Trail(model.parameters(), 5)
    for i in range(6):
        trail.record()
        optimizer.zero_grad()
        loss_fn(model, draw(i)).backward()
        optimizer.step()
    trail.record()
    before = [v.clone() for v in model.state_dict().values()]
    grads = [(p.grad, p.grad.clone()) for p in (model.x, model.y)]
    random = torch.get_rng_state()
    counts: list[int] = []
    rows = momentum_errors(
        model,
        loss_fn,
        draw,
        optimizer.param_groups,
        trail,
        replicates=3,
        on_gradients=counts.append,
    )
    assert sum(counts) == 3 * 2 * 4
    assert rows[-1].steps == 4
    assert all(map(torch.equal, model.state_dict().values(), before))
    assert all(
        p.grad is g and torch.equal(g, v)
        for p, (g, v) in zip((model.x, model.y), grads, strict=False)
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert all(math.isfinite(e.error.high) for e in rows[-1].estimators.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicates": 2}, "replicates=2 must be at least 3"),
        ({"length": 1}, "trail has 1 points"),
        ({"betas": False}, "groups have no 'betas'"),
        ({"other": True}, "trail lacks 1 of the groups' parameters"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason(change: dict[str, int], message: str):
    model, trail = moving_model(steps=change.get("length", 3) - 1)
    groups = [group(0.9, 0.05, None, model.x)]
    if "betas" in change:
        del groups[0]["betas"]
    if "other" in change:
        groups[0]["params"] = [torch.zeros(3)]
    with pytest.raises(ValueError, match=message):
        momentum_errors(model, loss_fn, draw, groups, trail, replicates=change.get("replicates", 3))
