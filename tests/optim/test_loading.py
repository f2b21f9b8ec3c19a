"""State as torch and other programs bring it: load hooks, counters, foreign checkpoints."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW
from tests.support.cases import BACKENDS, make_params, run, same

WIDE = {"state_dtype": torch.float32}


def named(order: str) -> tuple[dict[str, nn.Parameter], MARS]:
    params = {n: nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16)) for n in order}
    return params, MARSAdamW(list(params.items()), **WIDE)


def by_name(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """torch's documented way to load by names."""
    groups = saved["param_groups"]
    ids = {n: i for g in groups for n, i in zip(g["param_names"], g["params"], strict=True)}
    now = optimizer.state_dict()["param_groups"]
    names = [(i, n) for g in now for n, i in zip(g["param_names"], g["params"], strict=True)]
    return {"param_groups": now, "state": {i: saved["state"][ids[n]] for i, n in names if n in ids}}


@pytest.mark.parametrize("order", ["cab", "abcz"])
def test_a_load_hook_decides_which_state_is_whose(order: str) -> None:
    params, optimizer = named("abc")
    for k, p in enumerate(params.values()):
        p.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(k)).bfloat16()
    optimizer.step()
    others, again = named(order)
    again.register_load_state_dict_pre_hook(by_name)
    seen = []
    again.register_load_state_dict_post_hook(lambda o: seen.append(o.state[others["a"]]["exp_avg"]))
    again.load_state_dict(optimizer.state_dict())
    for name in "abc":
        mine, its = again.state[others[name]]["exp_avg"], optimizer.state[params[name]]["exp_avg"]
        assert mine.dtype == torch.float32
        assert torch.equal(mine, its)
    assert torch.equal(seen[0], optimizer.state[params["a"]]["exp_avg"])  # and before post-hooks
    for p in others.values():
        p.grad = torch.ones_like(p)
    again.step()


COUNTERS: dict[str, Callable[[Tensor], Any]] = {
    "int": int,
    "float": float,
    "numpy": lambda t: np.int64(t),
    "int64": lambda t: t.long(),
    "float64": lambda t: t.double(),
    "bfloat16": lambda t: t.bfloat16(),
    "one element": lambda t: t.reshape(1),
}
PATHS = {**BACKENDS, "plain AdamW": {"gamma": 0.0, "clip": None}}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", COUNTERS)
@pytest.mark.parametrize("live", [False, True])
def test_a_step_counter_of_any_kind_counts_on(kind: str, path: str, live: bool) -> None:
    params, others = make_params(dtype=torch.float32), make_params(dtype=torch.float32)
    one, other = (MARSAdamW(ps, **PATHS[path]) for ps in (params, others))
    run(one, params, range(2))
    run(other, others, range(2))
    changed = copy.deepcopy(other.state_dict())
    for state in other.state.values() if live else changed["state"].values():
        state["step"] = COUNTERS[kind](state["step"])
    if not live:
        other.load_state_dict(changed)
        other = pickle.loads(pickle.dumps(other))
        others = [p for g in other.param_groups for p in g["params"]]
        order = [p for g in one.param_groups for p in g["params"]]
        for p, q in zip(order, others, strict=True):
            p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        one.step()
        other.step()
        assert same(order, others)
    else:
        assert same(run(one, params, range(2, 4)), run(other, others, range(2, 4)))
    for state in other.state.values():
        assert state["step"].dtype == torch.float32
        assert state["step"].shape == ()


def test_bf16_step_counter_in_checkpoint_goes_on_past_256() -> None:
    params = make_params([(2, 2)])
    optimizer = MARSAdamW(params)
    run(optimizer, params, range(1))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"] = torch.tensor(256.0, dtype=torch.bfloat16)
    optimizer.load_state_dict(saved)
    run(optimizer, params, range(3))
    assert optimizer.state[params[0]]["step"] == 259


@pytest.mark.parametrize("step", [-1.0, float("nan"), float("inf"), "3", None, torch.ones(2)])
def test_invalid_step_counter_is_refused_before_loading(step: Any) -> None:
    params = make_params([(2, 2)])
    optimizer = MARSAdamW([("w", params[0])])
    run(optimizer, params, range(1))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0] |= {"step": step, "exp_avg": torch.zeros(2, 2)}
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"state of w: step="):
        optimizer.load_state_dict(saved)
    assert torch.equal(optimizer.state[params[0]]["exp_avg"], before["state"][0]["exp_avg"])
    assert optimizer.state[params[0]]["step"] == 1


@pytest.mark.parametrize("shapes", [[(2, 2)], [(2, 2), (2,)]])
def test_a_checkpoint_of_adamw_is_refused_with_a_hint_at_migrate(shapes: Any) -> None:
    params = make_params(shapes)
    adamw = torch.optim.AdamW([{"params": [p]} for p in params])
    run(adamw, params, range(1))
    optimizer = MARSAdamW(params)
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\(state_dict"):
        optimizer.load_state_dict(adamw.state_dict())
    assert not optimizer.state
    assert optimizer.param_groups[0]["rule"] == "adamw"
