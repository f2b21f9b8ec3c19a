"""A run is more than steps: schedulers, edits, checkpoints, copies, groups that come late."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, param_groups
from tests.support.cases import OPTIMIZERS, RULE_OF, make_params, run, same
from tests.support.toy import make_toy

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
Make = Callable[..., MARS]

# What an optimizer is built with, and what another is built with that takes its checkpoint over.
OPTIONS = dict(lr=0.02, betas=(0.9, 0.98), weight_decay=0.2, gamma=0.05, betas_1d=(0.8, 0.9))
OTHERS = dict(lr=0.5, betas=(0.5, 0.5), weight_decay=0.0, gamma=0.0, betas_1d=(0.0, 0.0), eps=1.0)


# --- schedulers -----------------------------------------------------------------------------------


@every_optimizer
def test_lambda_scheduler_reaches_every_group(make: Make) -> None:
    params = make_params()
    optimizer = make(params, lr=0.02, lr_1d=0.01)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0 / (1 + epoch))
    run(optimizer, params, [0])
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.005]


@every_optimizer
def test_one_cycle_sets_lr_and_beta1_of_the_very_next_step(make: Make) -> None:
    cycled, plain = make_params(), make_params()
    one, other = make(cycled), make(plain)
    scheduler = lr_scheduler.OneCycleLR(one, max_lr=[0.1, 0.05], total_steps=8)
    seen = []
    for step in range(7):
        for group, its_twin in zip(one.param_groups, other.param_groups, strict=True):
            its_twin["lr"], its_twin["betas"] = group["lr"], tuple(group["betas"])
        seen.append([(g["lr"], g["betas"][0]) for g in one.param_groups])
        assert same(run(one, cycled, [step]), run(other, plain, [step]))
        scheduler.step()
    for group in range(2):
        assert len({at_step[group] for at_step in seen}) >= 6  # it did cycle


def rates_after_a_plateau(optimizer: torch.optim.Optimizer) -> list[float]:
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(2):  # the second epoch is no better
        scheduler.step(1.0)
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_plateau_scheduler_lowers_a_tensor_rate_once() -> None:
    rate, more = torch.tensor(0.5), make_params()
    optimizer = MARSAdamW(make_params(), lr=rate)  # one list, two groups
    optimizer.add_param_group({"params": more})
    assert optimizer.param_groups[0]["lr"] is rate
    assert rates_after_a_plateau(copy.deepcopy(optimizer)) == [0.25] * 4
    assert rates_after_a_plateau(optimizer) == [0.25] * 4
    sorted_groups = param_groups(make_toy(), rule="muon", lr=torch.tensor(0.5), heads=())
    assert set(rates_after_a_plateau(MARS(sorted_groups))) == {0.25}


def test_groups_of_a_checkpoint_share_no_tensor_rate() -> None:
    optimizer = MARSAdamW(make_params(), lr=torch.tensor(0.5))
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["lr"] = saved["param_groups"][0]["lr"]
    optimizer.load_state_dict(saved)
    assert rates_after_a_plateau(optimizer) == [0.25, 0.25]
    with_defaults = pickle.loads(pickle.dumps(optimizer))
    for group in with_defaults.param_groups:
        del group["lr"]
    with_defaults = copy.deepcopy(with_defaults)  # takes the constructor's
    assert rates_after_a_plateau(with_defaults) == [0.25, 0.25]


# --- edits of a group -----------------------------------------------------------------------------

EDITS: dict[str, Any] = {
    "lr": 0.3,
    "betas": (0.5, 0.6),
    "eps": 0.1,
    "weight_decay": 0.7,
    "gamma": 0.4,
    "clip": 0.01,
    "rule": "lion",
    "amsgrad": True,
    "maximize": True,
    "correction": "folded",
}


def load_state_only(optimizer: MARS, source: MARS) -> None:
    """The state of ``source`` under the groups of ``optimizer``."""
    saved = copy.deepcopy(source.state_dict())
    saved["param_groups"] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(saved)


@pytest.mark.parametrize("key", EDITS)
def test_edit_of_a_group_takes_effect_at_the_next_step(key: str) -> None:
    edited, built = make_params(), make_params()
    options = {"clip": None} if key == "correction" else {}
    optimizer = MARSAdamW(edited, optimize_1d=True, **options)
    run(optimizer, edited, range(3))
    before = [p.detach().clone() for p in edited]
    (group,) = optimizer.param_groups
    group[key] = EDITS[key]

    rebuilt = MARS(built, optimize_1d=True, **{**options, key: EDITS[key]})
    load_state_only(rebuilt, optimizer)
    untouched = [nn.Parameter(x.clone()) for x in before]
    unedited = MARSAdamW(untouched, optimize_1d=True, **options)
    load_state_only(unedited, optimizer)
    for param, x in zip(built, before, strict=True):
        param.data.copy_(x)

    after = run(optimizer, edited, range(3, 6))
    assert same(after, run(rebuilt, built, range(3, 6)))
    assert not same(after, run(unedited, untouched, range(3, 6)))


def test_gamma_back_from_zero_has_a_fresh_last_gradient() -> None:
    (x,) = params = make_params([(5, 3)])
    optimizer = MARSAdamW(params)
    (group,) = optimizer.param_groups
    for step, gamma in enumerate((0.025, 0.0, 0.025)):
        group["gamma"] = gamma
        run(optimizer, params, [step])
        assert torch.equal(optimizer.state[x]["last_grad"], x.grad)


@pytest.mark.parametrize(
    ("key", "value"), [("lr", -1.0), ("betas", (1.0, 0.9)), ("rule", "adam"), ("clip", 0.0)]
)
def test_edit_out_of_range_is_refused_at_the_next_step(key: str, value: Any) -> None:
    params = make_params()
    optimizer = MARSAdamW(params)
    optimizer.param_groups[0][key] = value
    with pytest.raises(ValueError, match=key):
        run(optimizer, params, [0])


# --- checkpoints and copies -----------------------------------------------------------------------


def through_state_dict(optimizer: MARS, params: list[nn.Parameter]) -> tuple[MARS, list[Any]]:
    """As a training script resumes, but into an optimizer built with other values."""
    file = io.BytesIO()
    torch.save({"model": [p.detach() for p in params], "optim": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = [nn.Parameter(x) for x in saved["model"]]
    resumed = type(optimizer)(others, **OTHERS)
    resumed.load_state_dict(saved["optim"])
    return resumed, others


def through_deepcopy(optimizer: MARS, params: list[nn.Parameter]) -> tuple[MARS, list[Any]]:
    return copy.deepcopy((optimizer, params))


def through_pickle(optimizer: MARS, params: list[nn.Parameter]) -> tuple[MARS, list[Any]]:
    return pickle.loads(pickle.dumps((optimizer, params)))


COPIES = [through_state_dict, through_deepcopy, through_pickle]


@every_optimizer
@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_copy_goes_on_bit_for_bit(
    make: Make, duplicate: Callable[..., Any], dtype: torch.dtype
) -> None:
    params = make_params(dtype=dtype)
    optimizer = make(params, **OPTIONS)
    run(optimizer, params, range(3))
    copied, its_params = duplicate(optimizer, params)
    wanted = run(optimizer, params, range(3, 6))
    assert same(run(copied, its_params, range(3, 6)), wanted)
    for p, q in zip(params, its_params, strict=True):
        assert optimizer.state[p].keys() == copied.state[q].keys()


@every_optimizer
@pytest.mark.parametrize("duplicate", [through_deepcopy, through_pickle])
def test_group_added_after_a_copy_is_treated_as_before(
    make: Make, duplicate: Callable[..., Any]
) -> None:
    options = {**OPTIONS, "lr_1d": 0.3, "weight_decay_1d": 0.4}
    params = make_params()
    optimizer = make(params, **options)
    run(optimizer, params, range(2))
    copied, _ = duplicate(optimizer, params)
    late, its_late = make_params(seed=5), make_params(seed=5)
    optimizer.add_param_group({"params": late})
    copied.add_param_group({"params": its_late})
    assert same(run(optimizer, late), run(copied, its_late))
    tables = [o.describe().splitlines()[: 1 + len(o.param_groups)] for o in (copied, optimizer)]
    assert tables[0] == tables[1]


@every_optimizer
def test_group_added_after_the_start_steps_like_a_new_optimizer(make: Make) -> None:
    params, late, fresh = make_params(), make_params(seed=5), make_params(seed=5)
    optimizer = make(params, **OPTIONS)
    run(optimizer, params, range(3))
    optimizer.zero_grad()
    optimizer.add_param_group({"params": late})
    assert same(run(optimizer, late), run(make(fresh, **OPTIONS), fresh))


def test_checkpoint_without_a_new_key_takes_constructor_value() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, ns_steps=3)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["ns_steps"]
    optimizer.load_state_dict(saved)
    assert [group["ns_steps"] for group in optimizer.param_groups] == [3, 3]


# --- what parameters may be given as --------------------------------------------------------------


@pytest.mark.parametrize("cls", RULE_OF)
def test_parameters_may_come_from_a_generator(cls: type[MARS]) -> None:
    listed, generated = make_params(), make_params()
    one, other = cls(listed), cls(p for p in generated)
    assert same(run(one, listed), run(other, generated))
    grouped = make_params()
    assert same(run(cls([{"params": (p for p in grouped)}]), grouped), listed)


@pytest.mark.parametrize("cls", RULE_OF)
def test_names_of_parameters_stay_with_them(cls: type[MARS]) -> None:
    names = ["matrix", "kernel", "vector", "scalar"]
    named, bare = make_params(), make_params()
    optimizer = cls(zip(names, named, strict=True))
    assert [g["param_names"] for g in optimizer.param_groups] == [names[:2], names[2:]]
    assert same(run(optimizer, named), run(cls(bare), bare))


@pytest.mark.parametrize("cls", [MARSLion, MARSM])
def test_mixed_dtype_parameters_step_together_as_apart(cls: type[MARS]) -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    mixed = [p for dtype in dtypes for p in make_params([(5, 3)], dtype=dtype)]
    optimizer = cls(mixed)
    for dtype, param in zip(dtypes, mixed, strict=True):
        alone = make_params([(5, 3)], dtype=dtype)
        assert same(run(cls(alone), alone), run(optimizer, [param]))
        optimizer.zero_grad()
