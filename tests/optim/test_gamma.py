"""gamma that follows the learning rate, or the noise and the lag that the steps show."""

from __future__ import annotations

import cmath
import copy
import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from mars_optim import MARS, MARSAdamW, release_gradients
from mars_optim.optim import gamma

from .cases import copies, make_grads, make_params, run, same

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
        return min(gamma.HIGHEST, max(0.0, (w - (1 - BETA)) / BETA))


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
    defaults: dict[str, Any] = dict(gamma="auto", betas=(BETA, 0.99), clip="auto", lr=1e-3)
    return param, MARSAdamW([param], **{**defaults, **options})


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("name", JOBS)
def test_auto_finds_the_gamma_of_the_closed_form(name: str, correction: str) -> None:
    job = Turning(4096, **JOBS[name])
    param, optimizer = made(4096, correction=correction)
    assert train(job, optimizer, param, range(400)) == pytest.approx(job.best_gamma(), abs=0.02)


def test_a_sample_of_a_large_tensor_tells_the_same() -> None:
    job = Turning(1 << 17, **JOBS["slow"])
    param, optimizer = made(1 << 17, torch.float32)
    assert train(job, optimizer, param, range(120)) == pytest.approx(job.best_gamma(), abs=0.03)
    assert optimizer.state[param][gamma.PROBE].shape == (2, gamma.SAMPLE)


def test_a_tensor_counts_by_its_size_however_few_of_its_elements_are_sampled() -> None:
    """A large tensor of pure noise beside a small one of pure signal."""
    large, small = nn.Parameter(torch.zeros(1 << 8, 1 << 10)), nn.Parameter(torch.zeros(2, 2))
    optimizer = MARSAdamW([large, small], gamma="auto")
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        large.grad = torch.randn(large.shape, generator=generator)
        small.grad = torch.ones(2, 2)
        optimizer.step()
    gg, _, gl, *_ = optimizer.param_groups[0]["gamma_sums"].tolist()
    assert gg == pytest.approx((1 << 18) + 4, rel=0.02)
    assert abs(gl) < 0.05 * gg


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
        spoilt = optimizer.state[param][gamma.PROBE], optimizer.param_groups[0]["gamma_sums"]
        assert all(tensor.isfinite().all() for tensor in spoilt)
        found = {k: optimizer.param_groups[0][k] for k in ("gamma_sums", "gamma_steps")}
        param.data = kept[0]
        optimizer.load_state_dict(kept[1])
        optimizer.param_groups[0].update(found)
    ends = optimizer.param_groups[0]["gamma_now"]
    assert ends == pytest.approx(job.best_gamma(), abs=0.03)


def test_groups_have_a_gamma_of_their_own_or_one_for_all() -> None:
    jobs = [Turning(4096, **JOBS[name]) for name in ("fast", "noise")]
    found = {}
    for schedule in ("auto", "auto_all"):
        params = [nn.Parameter(torch.zeros(512, 8, dtype=torch.float64)) for _ in jobs]
        groups = [{"params": [p]} for p in params]
        optimizer = MARSAdamW(groups, betas=(BETA, 0.99), gamma_schedule=schedule)
        for step in range(300):
            for p, job in zip(params, jobs, strict=True):
                p.grad = job.batch(step).reshape(p.shape)
            optimizer.step()
        found[schedule] = [g["gamma_now"] for g in optimizer.param_groups]
    own = [job.best_gamma() for job in jobs]
    assert found["auto"] == pytest.approx(own, abs=0.03)
    one, other = found["auto_all"]
    assert one == other
    assert own[1] < one < own[0]


def test_gamma_waits_for_its_first_steps_and_moves_by_no_more_than_its_rate() -> None:
    job = Turning(4096, angle=0.5, signal=9.0, noise=0.1)
    param, optimizer = made(4096)
    gammas = []
    for step in range(60):
        param.grad = job.batch(step).reshape(param.shape)
        optimizer.step()
        gammas.append(optimizer.param_groups[0].get("gamma_now", 0.025))
    assert gammas[: gamma.FIRST - 1] == [0.025] * (gamma.FIRST - 1)
    steps = [b - a for a, b in pairwise(gammas)]
    assert max(map(abs, steps)) <= gamma.RATE + 1e-12
    assert sum(step != 0 for step in steps) <= 60 // gamma.EVERY


@pytest.mark.parametrize("schedule", ["auto", "auto_all", "lr", "sqrt_lr"])
def test_a_state_dict_in_the_middle_goes_on_bit_for_bit(schedule: str) -> None:
    params, others = make_params(), make_params()
    options: dict[str, Any] = dict(gamma_schedule=schedule, clip=None)
    whole = MARSAdamW(params, **options)
    run(whole, params, range(47))
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    resumed = MARSAdamW(others, **options)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for t in range(47, 75):
        for optimizer in (whole, resumed):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 / (t - 40)
        run(whole, params, [t])
        run(resumed, others, [t])
    assert same(copies(params), copies(others))
    ours, theirs = (o.param_groups[0]["gamma_now"] for o in (whole, resumed))
    assert ours == theirs != 0.025


@pytest.mark.parametrize(("schedule", "power"), [("lr", 1.0), ("sqrt_lr", 0.5)])
def test_gamma_keeps_its_value_in_a_warm_up_and_then_falls_with_the_lr(
    schedule: str, power: float
) -> None:
    params = make_params()
    optimizer = MARSAdamW(params, gamma=0.1, gamma_schedule=schedule)
    found = []
    for step, lr in enumerate([0.0, 0.1, 0.2, 0.4, 0.3, 0.1, 0.0]):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, params, [step])
        found.append(optimizer.param_groups[0]["gamma_now"])
    wanted = [0.1 * part**power for part in (1, 1, 1, 1, 0.75, 0.25, 0.0)]
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("correction", ["approx", "folded", "exact"])
def test_the_step_is_that_of_the_gamma_in_force(correction: str) -> None:
    ends = []
    for scheduled in (True, False):
        params = make_params()
        options: dict[str, Any] = {"gamma_schedule": "lr"} if scheduled else {}
        optimizer = MARSAdamW(params, gamma=0.1, correction=correction, clip=None, **options)

        def closure(params: Any = params, optimizer: MARS = optimizer) -> float:
            optimizer.zero_grad()
            loss = sum((p**3).sum() for p in params)
            loss.backward()
            return loss.item()

        for lr in (0.01, 0.01, 0.005, 0.002):
            for group in optimizer.param_groups:
                group["lr"] = lr
            if not scheduled:
                optimizer.param_groups[0]["gamma"] = 0.1 * lr / 0.01
            optimizer.step(closure)
        ends.append(copies(params))
    assert same(*ends)


def test_vectors_and_groups_without_a_correction_have_no_schedule() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, gamma="auto")
    run(optimizer, params, range(30))
    matrices, vectors = optimizer.param_groups
    assert vectors["gamma"] == 0.0
    assert "gamma_now" not in vectors
    assert all(gamma.PROBE not in optimizer.state[p] for p in vectors["params"])
    assert "gamma_now" in matrices


def test_parameters_that_join_late_or_pause_do_no_harm() -> None:
    params = make_params([(5, 3), (4, 4)])
    optimizer = MARSAdamW(params, gamma="auto", clip=None)
    for step in range(60):
        for param, grad in zip(params, make_grads(params, step), strict=True):
            param.grad = grad
        params[1].grad = None if step < 15 or step % 3 == 0 else params[1].grad
        optimizer.step()
    assert 0.0 <= optimizer.param_groups[0]["gamma_now"] <= gamma.HIGHEST
    assert all(p.isfinite().all() for p in params)


def test_a_group_can_say_auto_itself() -> None:
    (one, other) = make_params([(5, 3), (2, 2)])
    optimizer = MARSAdamW([{"params": [one], "gamma": "auto"}, {"params": [other]}], gamma=0.05)
    found = [(g["gamma"], g["gamma_schedule"]) for g in optimizer.param_groups]
    assert found == [(0.025, "auto"), (0.05, "constant")]


def test_describe_tells_the_gamma_in_force_and_counts_the_sample() -> None:
    params = make_params([(5, 3)], dtype=torch.float32)
    optimizer = MARSAdamW(params, gamma=0.1, gamma_schedule="lr")
    run(optimizer, params, range(1))
    optimizer.param_groups[0]["lr"] /= 2
    run(optimizer, params, range(1))
    assert "0.05 by lr" in optimizer.describe()
    optimizer = MARSAdamW(params, gamma="auto")
    run(optimizer, params, range(2))
    held = sum(v.nbytes for k, v in optimizer.state[params[0]].items() if k != "step")
    assert f"{held} B" in optimizer.describe()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gamma": "auto", "correction": "exact"}, "noise of two batches"),
    ({"gamma": "auto", "betas": (0.0, 0.9)}, r"betas\[0\] above 0"),
    ({"gamma": "auto", "gamma_schedule": "lr"}, "exclude each other"),
    ({"gamma": "auto", "capturable": True}, "one gamma"),
    ({"gamma_schedule": "cosine"}, r"gamma_schedule='cosine' must be one of 'constant', 'lr'"),
    ({"gamma": "automatic"}, "gamma='automatic' must be a number"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_what_cannot_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MARSAdamW(make_params(), **options)


def test_gradient_release_follows_the_lr_and_refuses_auto() -> None:
    with pytest.raises(ValueError, match="looks at the gradients of a group"):
        release_gradients(MARSAdamW(make_params(), gamma="auto"))
    ends = []
    for release in (False, True):
        params = make_params([(5, 3), (2, 2)])
        optimizer = MARSAdamW(params, gamma=0.1, gamma_schedule="lr", clip=None)
        if release:
            release_gradients(optimizer)
        for lr in (0.01, 0.005, 0.001):
            optimizer.param_groups[0]["lr"] = lr
            sum((p**3).sum() for p in params).backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(copies(params))
    assert same(*ends)


def test_sharded_parameters_are_refused_plainly() -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        param = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
        with pytest.raises(ValueError, match="does not take sharded parameters"):
            MARSAdamW([param], gamma="auto")
        optimizer = MARSAdamW([param])
        optimizer.param_groups[0]["gamma_schedule"] = "auto"
        param.grad = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
        with pytest.raises(ValueError, match="does not take sharded parameters"):
            optimizer.step()
    finally:
        distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*")
def test_a_compiled_step_says_that_it_cannot_change_gamma() -> None:
    torch._dynamo.reset()
    params = make_params([(5, 3)], dtype=torch.float32)
    optimizer = MARSAdamW(params, gamma_schedule="lr", gamma=0.1)
    run(optimizer, params, range(1))
    with pytest.raises(Exception, match="gamma_schedule cannot be compiled"):
        torch.compile(optimizer.step, backend="eager", fullgraph=True)()
    torch._dynamo.reset()


@pytest.mark.parametrize("schedule", ["auto", "auto_all"])
def test_the_sums_are_added_up_without_waiting_for_an_accelerator(schedule: str) -> None:
    with FakeTensorMode(), torch.no_grad():
        param = nn.Parameter(torch.empty(3, 2, device="cuda"))
        optimizer = MARS([param], gamma_schedule=schedule)
        for _ in range(gamma.FIRST - 1):  # then they are read, once in EVERY steps
            param.grad = torch.empty_like(param)
            optimizer.step()
