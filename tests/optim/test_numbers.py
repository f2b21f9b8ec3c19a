"""Numbers as users and schedules have them, and edits that are refused without a trace."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mars_optim import MARS, MARSAdamW
from mars_optim.optim.groups.keys import OPTIONS
from tests.support.cases import copies, make_params, run, same

NUMBERS: dict[str, tuple[Any, Any]] = {  # of another kind, and Python's
    "lr": (np.float32(0.125), 0.125),
    "betas": (np.array([0.5, 0.75]), (0.5, 0.75)),
    "eps": (np.float64(1e-8), 1e-8),
    "weight_decay": (np.int64(0), 0),
    "gamma": (np.float16(0.25), 0.25),
    "clip": (np.array(2), 2.0),
    "amsgrad": (np.bool_(True), True),
    "cautious": (np.bool_(False), False),
    "maximize": (np.bool_(True), True),
    "foreach": (np.bool_(False), False),
    "ns_steps": (np.int32(3), 3),
    "ns_coefficients": (np.array([3.0, -4.0, 2.0]), (3.0, -4.0, 2.0)),
    "weight_decay_1d": (np.float32(0.5), 0.5),
    "lr_1d": (np.float32(0.25), 0.25),
    "betas_1d": (np.array([0.5, 0.5]), (0.5, 0.5)),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("where", ["constructor", "group", "edit"])
def test_numpys_numbers_are_numbers(name: str, where: str) -> None:
    rule = "muon" if name.startswith("ns_") else "adamw"
    ends = []
    for value in NUMBERS[name]:
        params = make_params()
        options = {name: value} if where != "edit" else {}
        if where == "group":
            optimizer = MARS([{"params": params, **options}], rule=rule)
        else:
            optimizer = MARS(params, rule=rule, **options)
        run(optimizer, params, range(2))
        if where == "edit" and not name.endswith("_1d"):
            for group in optimizer.param_groups:
                group[name] = value if group["kind"] == "matrix" or name == "lr" else group[name]
        ends.append(run(optimizer, params, range(2, 4)))
        assert optimizer.describe()
    assert same(*ends)


def test_a_checkpoint_does_not_need_numpy() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, lr=np.float32(0.1), betas=(np.float32(0.5), np.float64(0.9)))
    run(optimizer, params, range(1))
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("total", [4, 7, 10])
def test_schedule_ending_below_zero_by_rounding_ends_at_zero(total: int, as_tensor: bool) -> None:
    params = make_params()
    lr: Any = torch.tensor(6e-4, dtype=torch.float64) if as_tensor else 6e-4
    optimizer = MARSAdamW(params, lr=lr, gamma_schedule="lr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, end_factor=0.0, total_iters=total)
        for t in range(total):
            run(optimizer, params, [t])
            schedule.step()
    assert optimizer.param_groups[0]["lr"] < 0
    before = copies(params)
    assert same(run(optimizer, params, [total]), before)


@pytest.mark.parametrize("lr", [-1e-3, -1e-9, np.float32(-1e-6), torch.tensor(-1e-4)])
def test_a_learning_rate_that_is_really_negative_is_refused(lr: Any) -> None:
    params = make_params()
    optimizer = MARSAdamW(params)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match=r"lr=-.* at least 0"):
        run(optimizer, params, range(1))


# --- refused edits --------------------------------------------------------------------------------

NAN = float("nan")
BAD: dict[str, list[Any]] = {
    "lr": [-1.0, NAN, "x", None, torch.ones(2), True],
    "betas": [(1.0, 0.9), (0.9,), 0.9, "xy", (0.9, NAN)],
    "eps": [-1.0, NAN, "x", True],
    "weight_decay": [-1.0, None, NAN],
    "gamma": [-1.0, "x", NAN, None, "auto"],
    "gamma_schedule": ["atuo", None, 3, torch.tensor(1.0)],
    "clip": [0.0, "x", NAN, "auto"],
    "clip_over": ["every", None],
    "correction": ["foled", None, 1],
    "rule": ["adam", None, 0],
    "cautious": [1, None, "yes"],
    "amsgrad": [0, None],
    "maximize": [1, "no"],
    "foreach": ["yes", 1],
    "fused": ["no", 0],
    "ns_steps": [0, 100, 2.5, True],
    "ns_coefficients": [(1.0, 2.0), 3.0],
    "state_dtype": [torch.int8, "float32"],
    "last_grad_dtype": ["bfloat16"],
    "stochastic_rounding": [None, 1],
    "capturable": [2, None],
}


def frozen(optimizer: MARS) -> Any:
    return copy.deepcopy(optimizer.state_dict())


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(a == b)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    steps=st.integers(0, 2),
    second=st.booleans(),
    options=st.sampled_from([{}, {"gamma": "auto"}, {"gamma_schedule": "lr"}, {"gamma": 0.0}]),
)
def test_a_refused_edit_leaves_no_traces_and_the_run_goes_on(
    data: st.DataObject, steps: int, second: bool, options: dict[str, Any]
) -> None:
    key = data.draw(st.sampled_from(sorted(BAD)))
    value = data.draw(st.sampled_from(BAD[key]))
    params, twins = (make_params([(3, 2), (2, 4)]) for _ in range(2))
    one, other = (
        MARSAdamW([{"params": [a]}, {"params": [b]}], **options) for a, b in (params, twins)
    )
    run(one, params, range(steps))
    run(other, twins, range(steps))
    group = one.param_groups[second]
    kept, before = group[key], frozen(one)
    group[key] = value
    with pytest.raises(ValueError, match=r"must|cannot|needs|exclude"):
        run(one, params, [steps])
    group[key] = kept
    assert alike(frozen(one), before)
    assert same(
        run(one, params, range(steps, steps + 2)), run(other, twins, range(steps, steps + 2))
    )


@pytest.mark.parametrize("options", [{}, {"gamma": "auto"}])
def test_impossible_kernel_request_is_refused_without_a_trace(options: Any) -> None:
    params = [torch.nn.Parameter(torch.ones(6, 2)[::2]), *make_params([(3, 2)])]
    optimizer = MARSAdamW([{"params": [p]} for p in params[::-1]], **options)
    run(optimizer, params, range(2))
    late = torch.nn.Parameter(torch.ones(4, 2)[::2])
    optimizer.add_param_group({"params": [late]})
    for group in optimizer.param_groups:
        group["cautious"] = group["fused"] = True
    before = frozen(optimizer)
    for p in (*params, late):
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="fused=True is not possible here"):
        optimizer.step()
    assert alike(frozen(optimizer), before)


# --- keys of groups -------------------------------------------------------------------------------

HOSTS = (
    "initial_lr max_lr min_lr base_lr lr_scale lr_mult wd_mult weight_decay_mult decay_mult "
    "weight_decay_scale base_weight_decay initial_weight_decay bias_correction beta1 beta2 beta3 "
    "momentum max_momentum base_momentum swa_lr is_decoupled_lr use_muon name group_name "
    "decoupled_weight_decay differentiable nesterov dampening warmup_steps weight_lr_power "
    "is_expert_parallel eps1 l2 layer_id betas_scale gamma_host rule_of_host"
).split()


@pytest.mark.parametrize("key", HOSTS)
def test_what_hosts_write_is_taken_through(key: str) -> None:
    for group in MARS([{"params": make_params(), key: 1.0}]).param_groups:
        assert group[key] == 1.0


@given(st.sampled_from(sorted(OPTIONS)), st.data())
@settings(deadline=None)
def test_a_slip_of_the_pen_is_named(name: str, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(name) - 1))
    slips = [name.upper(), name[:i] + name[i] + name[i:], name[:-2] + name[:-3:-1]]
    if len(name) > 3:
        slips.append(name[:i] + name[i + 1 :])
    slip = data.draw(st.sampled_from([s for s in slips if s not in OPTIONS and s not in HOSTS]))
    with pytest.raises(ValueError, match=f"unknown key '{slip}'.*did you mean '"):
        MARS([{"params": make_params([(2, 2)]), slip: 1.0}])


@given(st.sampled_from(sorted(OPTIONS)), st.sampled_from(["mult", "scale", "base", "host"]))
@settings(deadline=None)
def test_a_word_more_is_no_slip(name: str, word: str) -> None:
    for key in (f"{name}_{word}", f"{word}_{name}"):
        assert MARS([{"params": make_params([(2, 2)]), key: 1.0}]).param_groups[0][key] == 1.0
