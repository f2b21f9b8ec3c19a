"""Settings edited in the middle of a run: every path goes on as the oracle does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mars_optim import MARS, MARSAdamW, MARSLion
from tests.support.cases import make_grads

SHAPES = ((3, 2), (4, 3), (2, 2, 2))
WAYS: dict[str, dict[str, Any]] = {
    "auto": {},  # native, or torch's fused where there is no correction
    "foreach": {"foreach": True},
    "no fused": {"fused": False},
    "capturable": {"foreach": True, "capturable": True},
}
# A setting, or two that go together, and what they may become.
EDITS: list[dict[str, Any]] = [
    *({"correction": "approx", "clip": clip} for clip in (None, 0.5, 1.0)),
    {"correction": "folded", "clip": None},
    *({"gamma": gamma} for gamma in (0.0, 0.025, 0.3)),
    *({"betas": betas} for betas in ((0.95, 0.99), (0.5, 0.9), (0.0, 0.5))),
    *({"cautious": value} for value in (False, True)),
    *({"maximize": value} for value in (False, True)),
    *({"amsgrad": value} for value in (False, True)),
    *({"weight_decay": value} for value in (0.0, 0.3)),
    *({"lr": value} for value in (0.0, 0.1, torch.tensor(0.05, dtype=torch.float64))),
    *({"eps": value} for value in (1e-8, 1e-2)),
    *({"rule": rule} for rule in ("adamw", "lion", "shampoo", "muon")),
    *({"clip_over": value} for value in ("tensor", "global")),
    {"ns_steps": 3},
    *({"stacked": value} for value in (False, True)),
]
HISTORIES = st.lists(
    st.tuples(st.lists(st.sampled_from(EDITS), max_size=3), st.integers(1, 3)),
    min_size=1,
    max_size=7,
)


def run(
    history: list[tuple[list[dict[str, Any]], int]], dtype: torch.dtype, **options: Any
) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """Parameters and states after all edits, each followed by some steps."""
    generator = torch.Generator().manual_seed(0)
    params = [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in SHAPES
    ]
    optimizer = MARS(params, lr=0.01, **options)
    (group,) = optimizer.param_groups
    step = 0
    for edits, steps in history:
        for edit in edits:
            group.update(edit)
        if group["rule"] != "adamw":
            group["amsgrad"] = False
        if group["correction"] == "folded":
            group["clip"] = None
        for _ in range(steps):
            for param, grad in zip(params, make_grads(params, step), strict=True):
                param.grad = grad.to(dtype)
            optimizer.step()
            step += 1
    return [p.detach() for p in params], [optimizer.state[p] for p in params]


def assert_equal(ours: Any, theirs: Any, rtol: float, atol: float) -> None:
    for x, y in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)
    for state, wanted in zip(ours[1], theirs[1], strict=True):
        assert state.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(state[name], wanted[name], rtol=rtol, atol=atol)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@settings(max_examples=60)
@given(history=HISTORIES)
def test_any_edits_in_a_run_leave_every_path_where_the_oracle_is(
    way: dict[str, Any], history: list[Any]
) -> None:
    oracle = run(history, torch.float64, foreach=False)
    assert_equal(run(history, torch.float64, **way), oracle, 1e-8, 1e-9)


@settings(max_examples=60)
@given(history=HISTORIES)
def test_any_edits_leave_mixed_dtypes_where_the_oracle_is(history: list[Any]) -> None:
    """Float64 state of float32 parameters: rounded once a step, whoever computes it."""
    history = [
        ([e for e in edits if e.get("rule") not in ("shampoo", "muon")], n) for edits, n in history
    ]
    options: dict[str, Any] = {"state_dtype": torch.float64}
    oracle = run(history, torch.float32, foreach=False, **options)
    assert_equal(run(history, torch.float32, **options), oracle, 1e-4, 1e-5)


@pytest.mark.parametrize("cls", [MARSAdamW, MARSLion])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_stored_gradient_is_never_stale(cls: Any, way: dict[str, Any]) -> None:
    param = nn.Parameter(torch.zeros(8, 8))
    optimizer = cls([param], **way)
    (group,) = optimizer.param_groups
    others = ({"correction": "folded", "clip": None}, {"gamma": 0.0}, {"clip": None})
    for step, edit in enumerate(({}, *others)):
        group.update({"correction": "approx", "clip": 1.0, "gamma": 0.025, **edit})
        param.grad = make_grads([param], step)[0]
        optimizer.step()
        assert torch.equal(optimizer.state[param]["last_grad"], param.grad), edit
