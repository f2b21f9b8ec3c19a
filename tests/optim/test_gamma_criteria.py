"""Criteria of gamma: the next gradient, or the least error of the momentum."""

from __future__ import annotations

import cmath
import copy
import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW, gamma_numbers
from mars_optim.optim.gamma.criteria import NextGradient, Shares

BETA = 0.9


class Turning:
    """A full gradient of constant length that turns by ``angle`` a step, and noise of N a batch."""

    def __init__(self, numel: int, *, angle: float, signal: float, noise: float) -> None:
        self.numel, self.angle = numel, angle
        self.signal, self.noise = signal, noise

    def batch(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        phase = torch.full((self.numel // 2,), self.angle * step, dtype=torch.float64)
        full = torch.cat([phase.cos(), phase.sin()]) * math.sqrt(2 * self.signal / self.numel)
        noise = torch.randn(self.numel, generator=generator, dtype=torch.float64)
        return full + noise * math.sqrt(self.noise / self.numel)

    def best_gamma(self) -> float:
        """In closed form: the average answers a turning signal by a factor."""
        late = cmath.exp(-1j * self.angle)
        lag = abs(1 - late * (1 - BETA) / (1 - BETA * late)) ** 2 * self.signal
        error = lag + (1 - BETA) / (1 + BETA) * self.noise
        w = error / (error + self.noise)
        return min(gamma_numbers.HIGHEST, max(0.0, (w - (1 - BETA)) / BETA))


# much lag, some, as good as none
JOBS = {
    "fast": dict(angle=0.1, signal=1.0, noise=1.0),
    "slow": dict(angle=0.03, signal=1.0, noise=1.0),
    "noise": dict(angle=0.003, signal=1.0, noise=4.0),
}


def train(
    job: Turning, optimizer: MARS, param: nn.Parameter, steps: range, scale: float = 1.0
) -> float:
    """gamma at the end."""
    for step in steps:
        param.grad = (scale * job.batch(step)).to(param.dtype).reshape(param.shape)
        optimizer.step()
    return float(optimizer.param_groups[0]["gamma_now"])


def made(numel: int, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, MARS]:
    param = nn.Parameter(torch.zeros(numel // 8, 8, dtype=dtype))
    defaults: dict[str, Any] = dict(gamma_schedule="least_error", betas=(BETA, 0.99), lr=1e-3)
    return param, MARSAdamW([param], **{**defaults, **options})


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("name", JOBS)
def test_least_error_finds_the_gamma_of_the_closed_form(name: str, correction: str) -> None:
    job = Turning(4096, **JOBS[name])
    param, optimizer = made(4096, correction=correction)
    assert train(job, optimizer, param, range(400)) == pytest.approx(job.best_gamma(), abs=0.02)


@pytest.mark.slow
def test_a_sample_of_a_large_tensor_tells_the_same() -> None:
    job = Turning(1 << 17, **JOBS["slow"])
    param, optimizer = made(1 << 17, torch.float32)
    assert train(job, optimizer, param, range(120)) == pytest.approx(job.best_gamma(), abs=0.03)
    assert optimizer.param_groups[0]["gamma_probes"].shape == (
        3,
        gamma_numbers.sampled(param.shape),
    )


def test_tensor_counts_by_its_size_despite_sampled_elements() -> None:
    """A large tensor of pure noise beside a small one of pure signal."""
    large, small = nn.Parameter(torch.zeros(1 << 8, 1 << 10)), nn.Parameter(torch.zeros(2, 2))
    optimizer = MARSAdamW([large, small], gamma_schedule="least_error")
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        large.grad = torch.randn(large.shape, generator=generator)
        small.grad = torch.ones(2, 2)
        optimizer.step()
    gg, _, gl, *_ = optimizer.param_groups[0]["gamma_sums"][0, 1:3].mean(0).tolist()
    assert gg == pytest.approx((1 << 18) + 4, rel=0.08)  # of 1,024 elements, twice
    assert abs(gl) < 0.08 * gg


@pytest.mark.slow
def test_bfloat16_parameters_and_scaled_gradients_tell_the_same() -> None:
    job = Turning(4096, **JOBS["slow"])
    param, optimizer = made(4096, torch.bfloat16, state_dtype=torch.float32)
    assert train(job, optimizer, param, range(300)) == pytest.approx(job.best_gamma(), abs=0.03)
    param, optimizer = made(4096)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(512.0), torch.tensor(0.0)
    scaled = train(job, optimizer, param, range(300), scale=512.0)
    other, plain = made(4096)
    assert scaled == pytest.approx(train(job, plain, other, range(300)), rel=1e-9)


def test_steps_that_overflow_neither_count_nor_stay() -> None:
    job = Turning(4096, **JOBS["slow"])
    param, optimizer = made(4096)
    for at in range(0, 300, 30):
        train(job, optimizer, param, range(at, at + 30))
        kept = copy.deepcopy((param.data, optimizer.state_dict()))
        param.grad = torch.full_like(param, float("nan"))
        optimizer.step()  # which spoils all but what gamma is chosen from
        group = optimizer.param_groups[0]
        assert all(group[k].isfinite().all() for k in ("gamma_probes", "gamma_memory"))
        found = {k: group[k] for k in ("gamma_sums", "gamma_steps", "gamma_probes")}
        param.data = kept[0]
        optimizer.load_state_dict(kept[1])
        optimizer.param_groups[0].update(found)
    ends = optimizer.param_groups[0]["gamma_now"]
    assert ends == pytest.approx(job.best_gamma(), abs=0.03)


@pytest.mark.slow
def test_each_group_has_a_gamma_of_its_own() -> None:
    jobs = [Turning(4096, **JOBS[name]) for name in ("fast", "noise")]
    params = [nn.Parameter(torch.zeros(512, 8, dtype=torch.float64)) for _ in jobs]
    groups = [{"params": [p]} for p in params]
    optimizer = MARSAdamW(groups, betas=(BETA, 0.99), gamma_schedule="least_error")
    for step in range(300):
        for p, job in zip(params, jobs, strict=True):
            p.grad = job.batch(step).reshape(p.shape)
        optimizer.step()
    found = [float(g["gamma_now"]) for g in optimizer.param_groups]
    assert found == pytest.approx([job.best_gamma() for job in jobs], abs=0.03)


@pytest.mark.parametrize("schedule", ["auto", "least_error"])
def test_gamma_waits_for_first_steps_and_moves_within_its_rate(schedule: str) -> None:
    job = Turning(4096, angle=0.5, signal=9.0, noise=0.1)
    param, optimizer = made(4096, gamma_schedule=schedule)
    chosen = []
    for step in range(60):
        param.grad = job.batch(step).reshape(param.shape)
        optimizer.step()
        chosen.append(float(optimizer.param_groups[0]["gamma_now"]))
    assert chosen[: gamma_numbers.FIRST - 1] == [0.025] * (gamma_numbers.FIRST - 1)
    steps = [b - a for a, b in pairwise(chosen)]
    assert max(map(abs, steps)) <= gamma_numbers.RATE + 1e-12
    assert sum(step != 0 for step in steps) <= 60 // gamma_numbers.EVERY


def test_next_gradient_gives_the_derivative_of_loss_by_gamma() -> None:
    """On a quadratic, against the difference quotient of F after the step; float64."""
    generator = torch.Generator().manual_seed(0)
    size, lr, at, by = 64, 0.1, 0.2, 1e-4
    draw = partial(torch.randn, size, generator=generator, dtype=torch.float64)
    curvature, x = draw().exp(), draw()
    shares = Shares(*torch.tensor([0.1, 0.05], dtype=torch.float64))
    kept = torch.tensor(NextGradient.BEGIN, dtype=torch.float64)[:, None].repeat(1, size)
    for _ in range(6):
        g = curvature * x + draw()
        kept = NextGradient().look(g, kept, shares)[1]
    turn, average, square = kept

    def stepped(gamma: float) -> Tensor:
        momentum = average + gamma * (g - average)
        return x - lr * momentum * square.rsqrt()

    def loss(gamma: float) -> float:
        return float((curvature * stepped(gamma) ** 2).sum()) / 2

    slope = (loss(at + by) - loss(at - by)) / (2 * by)
    full = curvature * stepped(at)
    (told, size_of_it), _ = NextGradient().look(full, kept, shares)
    assert float(-lr * told) == pytest.approx(slope, rel=1e-6)
    assert float(size_of_it) == pytest.approx(float((full * turn).abs().sum()))
    draws = [NextGradient().look(full + draw(), kept, shares)[0][0] for _ in range(4000)]
    told_of = torch.stack(draws)
    spread = float(told_of.std()) / math.sqrt(len(draws))
    assert abs(float(told_of.mean() - told)) < 4 * spread


class Valley:
    """A noisy quadratic: curvatures from 0.01 to 1, gradients with noise of ``noise``."""

    def __init__(self, noise: float) -> None:
        self.curvature = torch.logspace(-2, 0, 512, dtype=torch.float64).reshape(64, 8)
        self.noise = noise

    def gradient(self, x: Tensor, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        draw = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return self.curvature * x + self.noise * draw


@pytest.mark.slow_but_one
@pytest.mark.parametrize("begin", [0.01, 0.45])
@pytest.mark.parametrize("rule", ["adamw", "lion", "muon"])
def test_auto_gamma_settles_at_one_value_from_any_start(rule: Any, begin: float) -> None:
    rest = _rest(rule, begin)
    assert rest == pytest.approx(_rest(rule, 0.2), abs=0.06)


def _rest(rule: Any, begin: float) -> float:
    """Mean gamma over the last half of 2,000 steps."""
    valley = Valley(0.1)
    param = nn.Parameter(torch.ones(64, 8, dtype=torch.float64))
    optimizer = MARS([param], rule=rule, lr=0.01, gamma=begin, gamma_schedule="auto", ns_steps=2)
    seen = []
    for step in range(2000):
        param.grad = valley.gradient(param.detach(), step)
        optimizer.step()
        seen.append(float(optimizer.param_groups[0]["gamma_now"]))
    return sum(seen[1000:]) / 1000


def test_auto_gamma_falls_on_overshoot_and_rises_on_undershoot() -> None:
    for sign, end in ((-1.0, 0.0), (1.0, gamma_numbers.HIGHEST)):
        param, optimizer = made(4096, gamma_schedule="auto", gamma=0.2)
        full = torch.ones_like(param)
        for step in range(300):
            # there and back, or ever onwards
            param.grad = full * (sign**step if sign < 0 else 1.0 + step)
            optimizer.step()
        assert optimizer.param_groups[0]["gamma_now"] == end


@pytest.mark.slow
def test_auto_hears_nothing_in_pure_noise() -> None:
    job = Turning(4096, angle=0.0, signal=0.0, noise=1.0)
    param, optimizer = made(4096, gamma_schedule="auto", gamma=0.1)
    assert train(job, optimizer, param, range(600)) == pytest.approx(0.1, abs=0.04)


def noisy(step: int, shape: tuple[int, ...] = (64, 64)) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return 0.5 + (1.0 + step % 2) * torch.randn(shape, generator=generator)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("schedule", ["auto", "least_error"])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e10, 1e20, 1e30])
def test_gamma_does_not_depend_on_the_scale_of_the_gradients(scale: float, schedule: Any) -> None:
    found = []
    for by in (1.0, scale):
        param = nn.Parameter(torch.zeros(64, 64))
        optimizer = MARSAdamW([param], gamma_schedule=schedule, betas=(BETA, 0.99), lr=1e-3)
        for step in range(60):
            param.grad = noisy(step) * by
            optimizer.step()
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
        assert "gamma_schedule" not in optimizer.describe()  # no step was skipped
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0] != 0.025


def test_auto_gamma_follows_gradients_over_the_float32_range() -> None:
    """Each by its own scale: the averages of before are forgotten at their decay alone."""
    param = nn.Parameter(torch.zeros(64, 64))
    optimizer = MARSAdamW([param], gamma="auto", betas=(BETA, 0.95), lr=1e-3)
    for step in range(400):
        param.grad = noisy(step) * 10.0 ** (-30 * math.sin(step / 60))
        optimizer.step()
        assert optimizer.param_groups[0]["gamma_probes"].isfinite().all()
    assert optimizer.param_groups[0]["gamma_silent"].tolist() == [0.0, 0.0]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("schedule", ["auto", "least_error"])
@pytest.mark.parametrize("spike", [1e15, 3e19, 3e38])
def test_one_large_element_does_not_stop_gamma_from_being_chosen(
    spike: float, schedule: Any
) -> None:
    param = nn.Parameter(torch.zeros(64, 64))
    optimizer = MARSAdamW([param], gamma_schedule=schedule, betas=(BETA, 0.95), lr=1e-3)
    found = []
    for step in range(400):
        param.grad = noisy(step)
        if step == 50:
            param.grad[0, 0] = spike
        optimizer.step()
        assert optimizer.param_groups[0]["gamma_probes"].isfinite().all()
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
    if schedule == "auto":
        assert len({round(x, 6) for x in found[100::10]}) > 20  # and it goes on moving
    assert optimizer.param_groups[0]["gamma_silent"].tolist() == [0.0, 0.0]


def test_memory_that_was_spoilt_before_heals() -> None:
    """As checkpoints of earlier versions hold it."""
    param, optimizer = made(512, torch.float32, gamma_schedule="auto")
    job = Turning(512, **JOBS["slow"])
    train(job, optimizer, param, range(30))
    optimizer.param_groups[0]["gamma_probes"][2, 5] = float("inf")
    optimizer.param_groups[0]["gamma_probes"][1, 6] = float("nan")
    before = train(job, optimizer, param, range(30, 40))
    assert train(job, optimizer, param, range(40, 80)) != before
    assert optimizer.param_groups[0]["gamma_probes"].isfinite().all()


def test_describe_tells_that_gamma_choice_stopped_or_skipped() -> None:
    param, optimizer = made(512, torch.float32, gamma_schedule="auto")
    job = Turning(512, **JOBS["slow"])
    train(job, optimizer, param, range(30))
    assert "gave no reading" not in optimizer.describe()
    for _ in range(3):
        param.grad = torch.zeros_like(param)
        optimizer.step()
    assert "gamma_schedule='auto' has skipped 3 of 33 steps" in optimizer.describe()
    for _ in range(12):
        optimizer.step()
    told = optimizer.describe()
    assert "gamma_schedule='auto' has stopped: the last 15 of 45 steps gave no reading" in told
    kept = copy.deepcopy(optimizer.state_dict()), optimizer.memory()
    _, again = made(512, torch.float32, gamma_schedule="auto")
    again.load_state_dict(kept[0])
    assert "has stopped" in again.describe()
    _, again = made(512, torch.float32, gamma_schedule="auto")
    again.remember(kept[1])
    assert "has stopped" in again.describe()
    train(job, optimizer, param, range(30, 40))
    assert "has skipped 15 of 55 steps" in optimizer.describe()
