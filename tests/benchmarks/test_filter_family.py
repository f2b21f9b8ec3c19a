"""Published filters are points of one family, to 1e-12 in float64; how its weights are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import filter_family as family
from mars_optim import MARS

BETA, SLOW = 0.95, 0.99
EXACT: dict[str, Any] = dict(rtol=1e-12, atol=1e-12)


def gradients(steps: int = 60) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(steps)]


def are_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    torch.testing.assert_close(torch.stack(list(found)), torch.stack(list(expected)), **EXACT)


def momentum(gs: Sequence[Tensor], beta: float) -> list[Tensor]:
    """The weighted sum over all gradients so far, newest first."""
    return [
        torch.stack([(1 - beta) * beta**k * gs[t - k] for k in range(t + 1)]).sum(0)
        for t in range(len(gs))
    ]


def differences(gs: Sequence[Tensor], rate: float) -> list[Tensor]:
    """EMA of g_t - g_{t-1}, with the gradient before the first one zero, from stored gradients."""
    before = [torch.zeros_like(gs[0]), *gs]
    return momentum([g - b for g, b in zip(gs, before, strict=False)], rate)


def test_qhm_is_the_family_without_a_slow_average():
    gs = gradients()
    qhm = [0.3 * g + 0.7 * m for g, m in zip(gs, momentum(gs, BETA), strict=True)]
    are_equal(family.filtered(gs, BETA, SLOW, family.qhm(0.7)), qhm)


def test_nadamw_is_the_family_at_one_less_beta():
    gs = gradients()
    ahead = [BETA * m + (1 - BETA) * g for g, m in zip(gs, momentum(gs, BETA), strict=True)]
    are_equal(family.filtered(gs, BETA, SLOW, family.nadamw(BETA)), ahead)


@pytest.mark.parametrize("alpha", [2.0, 8.0])
def test_ademamix_is_a_slow_average_and_a_larger_rate(alpha: float):
    gs = gradients()
    both = zip(momentum(gs, BETA), momentum(gs, SLOW), strict=True)
    mixed = [fast + alpha * slow for fast, slow in both]
    are_equal(family.filtered(gs, BETA, SLOW, family.ademamix(alpha)), mixed)


@pytest.mark.parametrize(("beta", "slow"), [(0.95, 0.99), (0.9, 0.9999), (0.99, 0.9)])
def test_an_average_of_an_average_is_a_mixture_of_both(beta: float, slow: float):
    gs = gradients()
    twice = momentum(momentum(gs, slow), beta)
    are_equal(family.filtered(gs, beta, slow, family.cascade(beta, slow)), twice)


def test_an_average_of_differences_needs_no_stored_gradient():
    gs, slow = gradients(), momentum(gradients(), SLOW)
    before = [torch.zeros_like(gs[0]), *slow[:-1]]
    by_last = [(1 - SLOW) * (g - s) for g, s in zip(gs, before, strict=True)]
    by_this = [(1 - SLOW) / SLOW * (g - s) for g, s in zip(gs, slow, strict=True)]
    are_equal(differences(gs, SLOW), by_last)
    are_equal(differences(gs, SLOW), by_this)


@pytest.mark.parametrize("alpha", [-50.0, 3.0])
def test_mona_is_a_slow_average_of_either_sign(alpha: float):
    gs = gradients()
    pushed = [g + alpha * d for g, d in zip(gs, differences(gs, SLOW), strict=True)]
    are_equal(
        family.filtered(gs, BETA, SLOW, family.mona(BETA, SLOW, alpha)), momentum(pushed, BETA)
    )


def test_monas_rule_halves_the_gradient_with_its_slow_average():
    gs, slow = gradients(), momentum(gradients(), SLOW)
    alpha = -1 / (2 * (1 - SLOW))
    pushed = [g + alpha * d for g, d in zip(gs, differences(gs, SLOW), strict=True)]
    before = [torch.zeros_like(gs[0]), *slow[:-1]]
    are_equal(pushed, [(g + s) / 2 for g, s in zip(gs, before, strict=True)])
    assert family.mona(0.95, 0.99).delta == pytest.approx(0.625)
    assert family.mona(0.95, 0.975).delta == pytest.approx(1.0)


@pytest.mark.parametrize("ahead", [0.3, 0.6])
def test_ema_nesterov_is_a_slow_average_of_a_larger_rate(ahead: float):
    curvature = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    lr, decay = 0.1, 0.97
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    moves, average, points = torch.zeros(2, dtype=torch.float64), torch.zeros_like(x), []
    for _ in range(50):  # the wrapper as published, around momentum
        point = x + ahead * moves
        points.append(point)
        average = BETA * average + (1 - BETA) * (curvature @ point)
        new = point - lr * average
        x, moves = new, decay * moves + (1 - decay) * (new - x)
    slow, at = family.ema_nesterov_rate(decay, ahead), family.ema_nesterov(BETA, decay, ahead)
    y, gs, ours = torch.tensor([1.0, -2.0], dtype=torch.float64), [], []
    for _ in range(50):  # the family at the points of look-ahead
        ours.append(y)
        gs.append(curvature @ y)
        y = y - lr * family.filtered(gs, BETA, slow, at)[-1]
    are_equal(ours, points)


def group(rule: str, params: list[Tensor], **options: Any) -> dict[str, Any]:
    settings = dict(lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.3, delta=0.0)
    return dict(params=params, rule=rule) | settings | options


def train(optimizer: torch.optim.Optimizer, p: Tensor, steps: int = 40) -> list[Tensor]:
    path = []
    for g in gradients(steps):
        p.grad = g + p.detach()
        optimizer.step()
        path.append(p.detach().clone())
    return path


def parameter() -> Tensor:
    return torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_without_the_slow_average_it_is_folded_mars(rule: str):
    ours, theirs = parameter(), parameter()
    two = family.TwoAverages([group(rule, [ours])], slow=0.98, chosen=())
    options: dict[str, Any] = dict(lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.3)
    mars = MARS([theirs], rule=rule, clip=None, correction="folded", **options)
    torch.testing.assert_close(train(two, ours), train(mars, theirs), **EXACT)


@pytest.mark.parametrize("delta", [-0.4, 0.6])
def test_the_step_is_adamws_with_the_familys_momentum(delta: float):
    p, x = parameter(), parameter().detach()
    steps, (beta, beta2), slow, seen = gradients(30), (0.9, 0.95), 0.98, []
    path = train(
        family.TwoAverages([group("adamw", [p], delta=delta)], slow=slow, chosen=()), p, 30
    )
    for t, noise in enumerate(steps, start=1):
        seen.append(noise + x)
        a, s = momentum(seen, beta)[-1] / (1 - beta**t), momentum(seen, slow)[-1] / (1 - slow**t)
        v = momentum([g * g for g in seen], beta2)[-1] / (1 - beta2**t)
        newest = (seen[-1] - a * (1 - beta**t)) / (1 - beta**t)
        m = a + 0.3 * newest + delta * (s - a)
        x = x - 0.02 * (m / (v.sqrt() + 1e-8) + 0.1 * x)
        torch.testing.assert_close(path[t - 1], x, **EXACT)


@pytest.mark.parametrize("name", ["gamma", "delta"])
def test_h_is_the_derivative_of_the_loss_by_each_weight(name: str):
    """By differences, on a quadratic without noise: -lr times what the optimizer adds up."""
    curvature = torch.diag(torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64))

    def run(by: float) -> tuple[float, Tensor, Tensor]:
        p = torch.nn.Parameter(torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
        groups = [group("adamw", [p], betas=(0.5, 0.9), weight_decay=0.0, delta=0.1)]
        two = family.TwoAverages(groups, slow=0.8, chosen=())
        for step in range(40):  # so many that no average is corrected any more
            p.grad = curvature @ p.detach()
            two.param_groups[0][name] += by * (step == 39)
            two.step()
        x = p.detach()
        return float(x @ curvature @ x / 2), curvature @ x, two.state[p][name]

    (up, *_), (down, *_), (_, g, turn) = (run(by) for by in (1e-3, -1e-3, 0.0))
    assert abs(up - down) > 1e-8
    assert (up - down) / 2e-3 == pytest.approx(-0.02 * float(g @ turn), rel=1e-6)


def test_weights_move_by_the_sum_of_h_every_ten_steps():
    p, gs, (beta, beta2), slow = parameter(), gradients(45), (0.9, 0.95), 0.98
    two = family.TwoAverages([group("adamw", [p], gamma=0.1)], slow=slow)
    told, now, found, turns = {"gamma": 0.0, "delta": 0.0}, {"gamma": 0.1, "delta": 0.0}, [], {}
    for t, g in enumerate(gs, start=1):
        p.grad = g
        two.step()
        found.append({name: two.param_groups[0][name] for name in told})
        for name, turn in turns.items():
            told[name] += float((g * turn).sum() / (g * turn).abs().sum())
            if t > 20 and t % 10 == 1:
                now[name] += max(-0.05, min(0.05, 0.02 * told[name]))
                now[name] = max({"gamma": 0.0, "delta": -0.5}[name], now[name])
                told[name] = 0.0
        assert found[-1] == pytest.approx(now, abs=1e-12)
        a, s = (
            momentum(gs[:t], beta)[-1] / (1 - beta**t),
            momentum(gs[:t], slow)[-1] / (1 - slow**t),
        )
        v = momentum([x * x for x in gs[:t]], beta2)[-1] / (1 - beta2**t)
        if t > 1:
            turns = dict(gamma=(g - a) / (v.sqrt() + 1e-8), delta=(s - a) / (v.sqrt() + 1e-8))
    assert now["gamma"] != 0.1
    assert now["delta"] != 0.0


def test_a_gamma_that_reached_zero_goes_on_being_chosen():
    p = parameter()
    two = family.TwoAverages([group("adamw", [p], gamma=0.03, weight_decay=0.0, lr=0.0)], slow=0.98)
    path = []
    fixed = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2)
    for step in range(140):  # first the gradient turns around in every step, then it drifts away
        p.grad = fixed * ((-1) ** step if step < 60 else step - 60.0)
        two.step()
        path.append(two.param_groups[0]["gamma"])
    assert path[40] == 0.0
    assert path[-1] > 0.1
