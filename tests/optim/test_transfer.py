"""Settings of a larger model from those of a smaller one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mars_optim
from mars_optim.optim.transfer import MATRIX_WIDTH, Ratios, batch_betas, factors

RATIO = st.floats(0.01, 100.0)


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.up = nn.Linear(width, 4 * width)
        self.lm_head = nn.Linear(4 * width, 5, bias=False)


def by_kind(**ratios: float) -> dict[str, dict[str, Any]]:
    groups = mars_optim.param_groups(Net(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    return {g["kind"]: g for g in mars_optim.transferred(groups, **ratios)}


def test_nothing_changes_at_the_bases_own_size() -> None:
    groups = mars_optim.param_groups(Net(), lr=0.01)
    for before, after in zip(groups, mars_optim.transferred(groups), strict=True):
        assert {**after, "eps": None} == {**before, "eps": None, "betas": after["betas"]}
        assert after["betas"] == pytest.approx(before["betas"], abs=1e-15)
        assert after["eps"] == 1e-8


def test_width_divides_a_matrixs_rate_and_spares_the_others() -> None:
    found = by_kind(width=4.0)
    assert found["matrix"]["lr"] == 0.01 / 4
    assert found["matrix"]["weight_decay"] == 0.1  # lr times decay is 1/m
    assert {found[k]["lr"] for k in ("embedding", "head", "vector")} == {0.01}
    assert {g["eps"] for g in found.values()} == {1e-8 / 4}


@pytest.mark.parametrize("tied", [False, True])
def test_a_large_vocabularys_rate_falls_with_the_width(tied: bool) -> None:
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 5, bias=False))
    if tied:
        net[2].weight = net[0].weight
    groups = mars_optim.param_groups(net, rule="muon", lr=0.01)
    large = mars_optim.transferred(groups, width=16.0, large_vocabulary=True)
    rates = {g["kind"]: g["lr"] for g in large}
    assert rates["embedding"] == pytest.approx(0.01 / 4)
    assert rates["matrix"] == pytest.approx(0.01 / 4)  # muon's
    assert rates["vector"] == 0.01
    plain = mars_optim.transferred(groups, width=16.0)
    assert {g["kind"]: g["lr"] for g in plain}["embedding"] == 0.01


def test_depth_leaves_the_rates_and_divides_eps_of_matrices() -> None:
    found = by_kind(depth=5.0)
    assert {g["lr"] for g in found.values()} == {0.01}
    assert found["matrix"]["eps"] == pytest.approx(1e-8 / 5)
    assert found["vector"]["eps"] == 1e-8


def test_tokens_lower_every_rate_by_the_published_power() -> None:
    assert {g["lr"] for g in by_kind(tokens=10.0).values()} == {0.01 * 10**-0.32}


def test_a_batch_keeps_what_is_forgotten_in_a_token() -> None:
    matrix = by_kind(batch=4.0)["matrix"]
    assert matrix["lr"] == pytest.approx(0.02)
    assert matrix["betas"] == pytest.approx((0.6, 0.8))
    # decay of a token: lr decay steps, of which there are a quarter
    assert matrix["lr"] * matrix["weight_decay"] / 4 == pytest.approx(0.01 * 0.1)


def test_a_batch_beyond_the_noise_scale_raises_no_rate() -> None:
    assert Ratios(batch=64.0, noise_scale=4.0).useful_batch == 4.0
    assert Ratios(batch=64.0, noise_scale=0.5).useful_batch == 1.0  # the base is beyond it too
    assert Ratios(batch=0.25, noise_scale=0.5).useful_batch == 0.5


@given(m=RATIO, rule=st.sampled_from(sorted(MATRIX_WIDTH)))
def test_lr_times_the_norm_of_a_step_keeps_its_size(m: float, rule: str) -> None:
    # spectral norms of a square step at width m over those at 1, in the limit of aligned columns
    norm = {"adamw": m, "lion": m, "muon": math.sqrt(m), "shampoo": 1.0}[rule]
    assert factors("matrix", rule, Ratios(width=m)).lr * norm == pytest.approx(1.0)


@given(m=RATIO, t=RATIO, rule=st.sampled_from(sorted(MATRIX_WIDTH)))
def test_lr_times_decay_goes_with_one_over_width(m: float, t: float, rule: str) -> None:
    found = factors("matrix", rule, Ratios(width=m, tokens=t))
    assert found.lr * found.decay == pytest.approx(t**-0.32 / m)


@given(a=RATIO, b=RATIO)
def test_two_transfers_are_one(a: float, b: float) -> None:
    for rule in MATRIX_WIDTH:
        first = factors("matrix", rule, Ratios(width=a, depth=b))
        second = factors("matrix", rule, Ratios(width=b, depth=a))
        both = factors("matrix", rule, Ratios(width=a * b, depth=a * b))
        for name in ("lr", "decay", "eps", "start"):
            assert getattr(both, name) == pytest.approx(
                getattr(first, name) * getattr(second, name)
            )


@pytest.mark.parametrize("name", ["width", "depth", "tokens", "batch", "noise_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_ratio_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}=.* must be a finite number above 0"):
        mars_optim.transferred(mars_optim.param_groups(Net()), **{name: value})


@pytest.mark.parametrize("exponent", [-1.1, 1.1, float("nan")])
def test_an_exponent_of_tokens_out_of_range_is_refused(exponent: float) -> None:
    with pytest.raises(ValueError, match=f"tokens_exponent={exponent} must be from -1 to 1"):
        Ratios(tokens=2.0, tokens_exponent=exponent)


def test_the_exponent_of_tokens_is_the_callers() -> None:
    group = {"kind": "vector", "rule": "adamw", "lr": 1.0, "betas": (0.9, 0.95)}
    (scaled,) = mars_optim.transferred(
        [{**group, "weight_decay": 0.1}], tokens=16.0, tokens_exponent=-0.25
    )
    assert scaled["lr"] == 0.5
    assert scaled["weight_decay"] == 0.1


def test_a_batch_too_large_for_the_betas_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=20 times the base's leaves no average for betas"):
        batch_betas((0.9, 0.95), 20.0)


def test_groups_that_were_not_sorted_are_refused() -> None:
    with pytest.raises(ValueError, match="a group has no 'kind'"):
        mars_optim.transferred([{"params": [], "lr": 0.1}], width=2.0)


def test_transferred_groups_train() -> None:
    torch.manual_seed(0)
    net = Net()
    groups = mars_optim.transferred(mars_optim.param_groups(net, lr=0.01), width=2.0, tokens=2.0)
    optimizer = mars_optim.MARS(groups)
    net.lm_head(net.up(net.embed(torch.arange(5)))).square().mean().backward()
    optimizer.step()
    assert {g["kind"]: g["lr"] for g in optimizer.param_groups} == {
        g["kind"]: g["lr"] for g in groups
    }
