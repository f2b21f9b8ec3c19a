"""How a measured momentum begins: in mid-run, and with the first step of an optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARSAdamW
from mars_optim.gradient_noise import MomentumErrors, Trail, momentum_errors

BETA, GAMMA = 0.95, 0.025
STEEP = torch.tensor([[0.3, 1.0], [2.0, 0.7]], dtype=torch.float64)


class Bowl(nn.Module):
    """A quadratic without noise, so that every estimate is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.linspace(1.0, 2.0, 4, dtype=torch.float64).reshape(2, 2))

    def forward(self) -> Tensor:
        return 0.5 * (STEEP * self.x.square()).sum()


def fall(steps: int, decay: float, **options: object) -> tuple[Bowl, Trail, MARSAdamW]:
    """A model whose x shrinks in each step, and an optimizer that sees its gradients."""
    model = Bowl()
    trail = Trail(model.parameters(), steps + 1)
    optimizer = MARSAdamW(model.parameters(), lr=0.0, betas=(BETA, 0.99), **options)  # type: ignore[arg-type]
    for step in range(steps + 1):
        trail.record()
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        if step < steps:
            with torch.no_grad():
                model.x.mul_(decay)
    return model, trail, optimizer


def errors(model: Bowl, trail: Trail, optimizer: MARSAdamW, *, from_start: bool) -> MomentumErrors:
    rows = momentum_errors(
        model,
        lambda model, _: model(),
        lambda i: i,
        optimizer.param_groups,
        trail,
        from_start=from_start,
        replicates=3,
    )
    return rows[-1]


@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("steps", [1, 20, 50])
def test_from_the_first_step_it_is_the_optimizer_s_own(steps: int, clip: float | None):
    model, trail, optimizer = fall(steps, 0.97, gamma=GAMMA, clip=clip)
    found = errors(model, trail, optimizer, from_start=True)
    momentum = optimizer.state[model.x]["exp_avg"] / (1 - BETA ** (steps + 1))
    true = float((momentum - STEEP * model.x.detach()).square().sum())
    name = "m_approx" if clip is None else "m_approx_clipped"
    assert found.estimators[name].bias_squared.value == pytest.approx(true, rel=1e-9)
    assert found.estimators[name].variance.value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("steps", [2, 20, 59])
def test_in_mid_run_the_correction_leaves_its_law_s_part_of_the_lag(steps: int):
    model, trail, optimizer = fall(steps, 0.97, gamma=GAMMA, clip=None)
    found = errors(model, trail, optimizer, from_start=False)
    # theory: both forms leave 1 - gamma of the lag
    for form in ("approx", "exact"):
        ratio = found.ratios[f"m_{form}"].value
        assert ratio == pytest.approx((1 - GAMMA) ** 2, rel=1e-9)


def test_in_mid_run_it_is_near_to_a_long_run_s_own():
    model, trail, optimizer = fall(400, 0.995, gamma=GAMMA, clip=None)
    recent = Trail(trail.params, 60)
    recent.points.extend(trail.points)
    found = errors(model, recent, optimizer, from_start=False)
    momentum = optimizer.state[model.x]["exp_avg"]  # 1 - beta1^401 is 1
    true = float((momentum - STEEP * model.x.detach()).square().sum())
    assert found.estimators["m_approx"].bias_squared.value == pytest.approx(true, rel=0.15)
