"""``clip_over="global"``: one norm over all tensors of the optimizer, one scale for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW, release_gradients
from tests.support.cases import BACKENDS, copies, make_grads, make_params, run

SHAPES = [(5, 3), (4, 2, 3, 3), (2, 2)]
GAMMA, BETA1 = 0.1, 0.5
GAIN = GAMMA * BETA1 / (1 - BETA1)


def made(params: list[nn.Parameter], clip: float = 0.5, **options: Any) -> MARS:
    """One group for each parameter, so that the norm runs over groups."""
    groups = [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(params)]
    return MARS(groups, gamma=GAMMA, betas=(BETA1, 0.9), clip=clip, clip_over="global", **options)


def first_moments_by_hand(params: list[nn.Parameter], clip: float, steps: int) -> list[Tensor]:
    ms = [torch.zeros_like(p) for p in params]
    lasts = [torch.zeros_like(p) for p in params]
    for step in range(steps):
        grads = make_grads(params, step)
        cs = [g + GAIN * (g - last) for g, last in zip(grads, lasts, strict=True)]
        norm = torch.linalg.vector_norm(torch.cat([c.flatten() for c in cs]))
        scale = min(1.0, clip / float(norm))
        ms = [BETA1 * m + (1 - BETA1) * scale * c for m, c in zip(ms, cs, strict=True)]
        lasts = grads
    return ms


@pytest.mark.parametrize("clip", [0.5, 10.0])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["adamw", "lion", "muon"])
def test_the_norm_runs_over_all_groups(rule: str, backend: str, clip: float) -> None:
    params = make_params(SHAPES)
    optimizer = made(params, clip, rule=rule, **BACKENDS[backend])
    run(optimizer, params, range(3))
    wanted = first_moments_by_hand(params, clip, 3)
    torch.testing.assert_close([optimizer.state[p]["exp_avg"] for p in params], wanted)


def test_dtypes_of_several_kinds_share_the_norm() -> None:
    params = make_params(SHAPES)
    params[1] = nn.Parameter(params[1].detach().float())
    optimizer = made(params, state_dtype=torch.float64)
    run(optimizer, params, range(3))
    wanted = first_moments_by_hand([nn.Parameter(p.double()) for p in params], 0.5, 3)
    got = [optimizer.state[p]["exp_avg"].double() for p in params]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


def test_vectors_and_groups_without_such_a_clip_do_not_count() -> None:
    params, alone = make_params([(5, 3), (7,), (2, 2)]), make_params([(5, 3)])
    groups = [{"params": params[:2]}, {"params": params[2:], "clip_over": "tensor"}]
    with_others = MARSAdamW(groups, clip=0.1, clip_over="global")
    by_itself = MARSAdamW(alone, clip=0.1)
    for step in range(3):
        grads = make_grads(params, step)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        alone[0].grad = grads[0].clone()
        with_others.step()
        by_itself.step()
    torch.testing.assert_close(params[0], alone[0], rtol=1e-12, atol=1e-14)


def test_a_single_tensor_is_clipped_as_by_its_own_norm() -> None:
    for correction in ("approx", "exact"):
        ends = []
        for over in ("tensor", "global"):
            (x,) = params = make_params([(5, 3)])
            optimizer = MARSAdamW(params, clip=0.1, clip_over=over, correction=correction)

            def closure(x: nn.Parameter = x, optimizer: MARS = optimizer) -> float:
                optimizer.zero_grad()
                loss = (x**2).sum()
                loss.backward()
                return loss.item()

            for _ in range(3):
                optimizer.step(closure)
            ends += copies(params)
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)


def test_a_nan_anywhere_stops_all_that_share_the_norm() -> None:
    params = make_params(SHAPES)
    optimizer = made(params)
    for param, grad in zip(params, make_grads(params, 0), strict=True):
        param.grad = grad
    params[0].grad[0, 0] = float("nan")
    optimizer.step()
    assert all(p.isnan().all() for p in params)


def test_telemetry_counts_what_the_common_norm_clips() -> None:
    params = make_params(SHAPES)
    optimizer = made(params, clip=1e-3)
    optimizer.measure()
    run(optimizer, params, range(3))
    assert {t.clip_rate for t in optimizer.telemetry()} == {1.0}


def test_describe_says_so() -> None:
    assert "0.5 over all" in made(make_params(SHAPES)).describe()


def test_gradient_release_refuses_it() -> None:
    with pytest.raises(ValueError, match=r"clip_over='global' needs all gradients"):
        release_gradients(made(make_params(SHAPES)))


def test_an_older_state_dict_loads_as_clipped_by_tensor() -> None:
    params = make_params(SHAPES)
    optimizer = MARSAdamW(params)
    run(optimizer, params, range(1))
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["clip_over"], group["cautious"]
    again = MARSAdamW(params)
    again.load_state_dict(saved)
    assert {(g["clip_over"], g["cautious"]) for g in again.param_groups} == {("tensor", False)}
    run(again, params, range(1))
