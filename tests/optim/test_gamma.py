"""gamma that follows the learning rate, or the noise and the lag that the steps show."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSAdamW, gamma_numbers, param_groups, release_gradients
from mars_optim.optim import backends
from mars_optim.optim.backends import foreach
from mars_optim.optim.correction import GlobalNorm
from mars_optim.optim.hyperparameters import Settings
from tests.support.cases import copies, make_grads, make_params, run, same
from tests.support.toy import make_toy


@pytest.mark.parametrize("schedule", ["auto", "least_error", "lr", "sqrt_lr"])
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
def test_gamma_is_constant_in_warm_up_and_then_falls_with_lr(schedule: str, power: float) -> None:
    params = make_params()
    optimizer = MARSAdamW(params, gamma=0.1, gamma_schedule=schedule)
    found = []
    for step, lr in enumerate([0.0, 0.1, 0.2, 0.4, 0.3, 0.1, 0.0]):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, params, [step])
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
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


def test_a_parameter_that_never_has_a_gradient_gets_no_state() -> None:
    params = make_params([(5, 3), (4, 4)])
    optimizer = MARSAdamW(params, gamma="auto")
    for _ in range(2):
        params[0].grad = torch.ones_like(params[0])
        optimizer.step()
    assert list(optimizer.state) == params[:1]


def test_a_schedule_can_be_edited_in_the_run() -> None:
    params = make_params([(5, 3)])
    optimizer = MARSAdamW(params, gamma="auto")
    (group,) = optimizer.param_groups
    for name in ("auto", "least_error", "auto", "lr", "constant"):
        group["gamma_schedule"] = name
        run(optimizer, params, range(35))
        assert 0.0 <= group["gamma_now"] <= gamma_numbers.HIGHEST
    assert all(p.isfinite().all() for p in params)


def test_vectors_and_uncorrected_groups_have_no_gamma_schedule() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, gamma="auto")
    run(optimizer, params, range(30))
    matrices, vectors = optimizer.param_groups
    assert vectors["gamma"] == 0.0
    assert "gamma_now" not in vectors
    assert "gamma_probes" not in vectors
    assert "gamma_now" in matrices


def test_parameters_that_join_late_or_pause_do_no_harm() -> None:
    params = make_params([(5, 3), (4, 4)])
    optimizer = MARSAdamW(params, gamma="auto", clip=None)
    for step in range(60):
        for param, grad in zip(params, make_grads(params, step), strict=True):
            param.grad = grad
        params[1].grad = None if step < 15 or step % 3 == 0 else params[1].grad
        optimizer.step()
    assert 0.0 <= optimizer.param_groups[0]["gamma_now"] <= gamma_numbers.HIGHEST
    assert all(p.isfinite().all() for p in params)


def test_a_group_can_say_auto_itself() -> None:
    (one, other) = make_params([(5, 3), (2, 2)])
    optimizer = MARSAdamW([{"params": [one], "gamma": "auto"}, {"params": [other]}], gamma=0.05)
    keys = ("gamma", "gamma_schedule", "correction", "clip")
    found = [tuple(g[key] for key in keys) for g in optimizer.param_groups]
    assert found == [(0.1, "auto", "folded", None), (0.05, "constant", "approx", 1.0)]


def _by_options(**options: Any) -> MARS:
    return MARSAdamW(nn.Linear(3, 2).parameters(), **options)


AUTOS: dict[str, Callable[[], MARS]] = {
    "gamma": lambda: _by_options(gamma="auto"),
    "gamma_schedule": lambda: _by_options(gamma_schedule="auto"),
    "param_groups": lambda: MARSAdamW(param_groups(nn.Linear(3, 2), gamma="auto")),
}


@pytest.mark.parametrize("make", AUTOS.values(), ids=AUTOS)
def test_auto_takes_the_form_that_it_needs(make: Callable[[], MARS]) -> None:
    optimizer = make()
    matrix, vector = optimizer.param_groups
    assert (matrix["correction"], matrix["clip"]) == ("folded", None)
    assert vector["gamma"] == 0.0
    begin = 0.025 if make is AUTOS["gamma_schedule"] else 0.1  # its default, or what auto begins at
    assert matrix["gamma"] == begin
    assert f"{begin} by auto" in optimizer.describe()


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
    held += optimizer.param_groups[0]["gamma_probes"].nbytes
    assert f"{held} B" in optimizer.describe()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gamma": "auto", "correction": "exact"}, "needs correction='folded', not 'exact'"),
    ({"gamma": "auto", "correction": "approx"}, "needs correction='folded', not 'approx'"),
    ({"gamma": "auto", "clip": 1.0}, "clip=1.0 cannot be combined with correction='folded'"),
    ({"gamma_schedule": "least_error", "correction": "exact"}, "noise of two batches"),
    ({"gamma": "auto", "betas": (0.0, 0.9)}, r"betas\[0\] above 0"),
    ({"gamma": "auto", "gamma_schedule": "lr"}, "exclude each other"),
    ({"gamma_schedule": "cosine"}, r"gamma_schedule='cosine' must be one of 'constant', 'lr'"),
    ({"gamma": "automatic"}, "gamma='automatic' must be 'auto' or a number"),
]


def test_auto_for_groups_that_are_made_names_the_way_out() -> None:
    groups = param_groups(make_toy(), rule="muon")
    with pytest.raises(
        ValueError, match=r"not 'approx'.* Give gamma='auto' .*param_groups\(\.\.\."
    ):
        MARS(groups, gamma="auto")


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_what_cannot_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MARSAdamW(make_params(), **options)


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("schedule", ["auto", "least_error", "lr"])
def test_gradient_release_moves_gamma_as_the_usual_loop_does(
    schedule: Any, capturable: bool, passes: int
) -> None:
    ends = []
    for release in (False, True):
        params = make_params([(5, 3), (2, 2), (3, 4)])
        options: dict[str, Any] = dict(gamma_schedule=schedule, capturable=capturable)
        optimizer = MARSAdamW(params, gamma=0.1, correction="folded", **options)
        if release:
            release_gradients(optimizer, passes=passes)
        for step in range(65):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            used = params[: 2 if step % 4 == 1 else 3]
            for i in range(passes):
                noise = make_grads(params, passes * step + i)
                loss = sum(((p + n) ** 3).sum() for p, n in zip(used, noise, strict=False))
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        group = optimizer.param_groups[0]
        memory = optimizer.memory()["gamma"][0]
        memory["gamma_sums"] = [row[:-1] for row in memory.get("gamma_sums", [])]
        numbers = [torch.tensor(memory[key]) for key in sorted(memory)]
        ends.append([*copies(params), *numbers])
        assert float(group["gamma_now"]) != 0.1
    for alone, released in zip(*ends, strict=True):  # a group's sums are added tensor by tensor
        torch.testing.assert_close(released, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("rule", ["adamw", "lion", "muon"])
def test_the_multi_tensor_path_reads_gamma_from_a_tensor(rule: Any, correction: Any) -> None:
    ends = []
    for on_device in (False, True):
        params, grads = copies(make_params()[:2]), make_grads(make_params()[:2], 1)
        number = 0.3 if correction == "folded" else 0.1
        gamma: Any = torch.tensor(number, dtype=torch.float64) if on_device else number
        clip = None if correction == "folded" else 0.5
        group = {**MARS(copies(params), rule=rule, correction=correction).param_groups[0]}
        settings = replace(Settings.from_group(group), gamma=gamma, clip=clip, clip_over="global")
        states: list[Any] = [{} for _ in params]
        for p, state in zip(params, states, strict=True):
            backends.init_state(p, state, backends.state_dtypes(p.dtype, settings))
        norm = GlobalNorm()
        bucket = backends.Bucket(params, grads, states, settings, norm=norm)
        for _ in range(2):
            bucket.join_norm()
            foreach.step(bucket)
        ends.append(params)
    for by_number, by_tensor in zip(*ends, strict=True):
        torch.testing.assert_close(by_tensor, by_number, rtol=1e-12, atol=1e-12)


@pytest.mark.slow_but_one(among=4)
@pytest.mark.parametrize("capturable", [False, True], ids=["counted here", "counted there"])
@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("schedule", ["auto", "least_error", "lr", "sqrt_lr"])
def test_no_step_waits_for_an_accelerator(schedule: Any, correction: Any, capturable: bool) -> None:
    """Tensors on the meta device have no numbers to read, neither a gamma nor a sum."""
    if schedule == "auto" and correction == "approx":
        pytest.skip("auto is for the folded form")
    param = nn.Parameter(torch.empty(3, 2, device="meta"))
    lr = torch.tensor(0.1, device="meta")
    options: dict[str, Any] = dict(lr=lr, correction=correction, capturable=capturable)
    optimizer = MARS([param], gamma_schedule=schedule, clip=None, **options)
    for _ in range(gamma_numbers.FIRST + gamma_numbers.EVERY + 1):
        param.grad = torch.empty_like(param)
        optimizer.step()
    with pytest.raises(RuntimeError, match="meta"):
        float(optimizer.param_groups[0]["gamma_now"])
