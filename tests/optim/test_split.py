"""How a group of parameters becomes the groups that the optimizer keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo, param_groups
from tests.support.cases import BACKENDS, OPTIMIZERS, RULE_OF, make_params, run, same
from tests.support.models import MODELS, tensors

ELEMENTWISE = [MARSAdamW, MARSLion]
MATRIX = [MARSShampoo, MARSM]


def shapes(group: dict[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in group["params"]]


@pytest.mark.parametrize("cls", RULE_OF)
def test_vectors_become_a_plain_adamw_group_of_their_own(cls: type[MARS]) -> None:
    optimizer = cls(make_params([(7,), (5, 3), (), (4, 2, 3, 3)]))
    matrices, vectors = optimizer.param_groups
    assert shapes(matrices) == [(5, 3), (4, 2, 3, 3)]
    assert shapes(vectors) == [(7,), ()]
    assert matrices["rule"] == RULE_OF[cls]
    assert (matrices["gamma"], matrices["clip"], matrices["betas"]) == (0.025, 1.0, (0.95, 0.99))
    assert (vectors["rule"], vectors["gamma"], vectors["clip"]) == ("adamw", 0.0, None)
    assert vectors["betas"] == (0.9, 0.95)


@pytest.mark.parametrize("cls", ELEMENTWISE)
def test_optimize_1d_keeps_vectors_with_matrices_if_elementwise(cls: type[MARS]) -> None:
    (group,) = cls(make_params(), optimize_1d=True).param_groups
    assert len(group["params"]) == 4


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("cls", MATRIX)
def test_optimize_1d_gives_vectors_mars_adamw_under_matrix_rules(
    cls: type[MARS], correction: str
) -> None:
    matrices, vectors = cls(make_params(), optimize_1d=True, correction=correction).param_groups
    assert matrices["rule"] == RULE_OF[cls]
    assert vectors["rule"] == "adamw"
    for key in ("lr", "betas", "weight_decay", "gamma", "clip", "correction"):
        assert vectors[key] == matrices[key], key


@pytest.mark.parametrize("shapes_given", [[(5, 3), (2, 2)], [(7,), ()]])
def test_group_of_one_kind_stays_one_group(shapes_given: list[tuple[int, ...]]) -> None:
    (group,) = MARSAdamW(make_params(shapes_given)).param_groups
    assert shapes(group) == shapes_given


def test_given_groups_are_split_separately_and_left_unchanged() -> None:
    one, two = make_params(), make_params(seed=1)
    given = [{"params": one, "lr": 0.1}, {"params": two, "weight_decay": 0.0, "host": "kept"}]
    optimizer = MARSM(given)
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 2, 2, 2]
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1, 3e-3, 3e-3]
    assert [g.get("host") for g in optimizer.param_groups] == [None, None, "kept", "kept"]
    assert given == [
        {"params": one, "lr": 0.1},
        {"params": two, "weight_decay": 0.0, "host": "kept"},
    ]


# constructor's arguments, the group's own, what its vectors then get
PRECEDENCE: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"lr": 0.1}, {}, {"lr": 0.1}),
    ({"lr": 0.1, "lr_1d": 0.2}, {}, {"lr": 0.2}),
    ({"lr": 0.1, "lr_1d": 0.2}, {"lr": 0.3}, {"lr": 0.3}),
    ({"lr": 0.1, "lr_1d": 0.2}, {"lr": 0.3, "lr_1d": 0.4}, {"lr": 0.4}),
    ({"lr": 0.1, "lr_1d": 0.0}, {}, {"lr": 0.0}),
    ({"lr": 0.1}, {"lr_1d": 0.0}, {"lr": 0.0}),
    ({"weight_decay": 0.1}, {}, {"weight_decay": 0.1}),
    ({"weight_decay_1d": 0.2}, {}, {"weight_decay": 0.2}),
    ({"weight_decay_1d": 0.0}, {}, {"weight_decay": 0.0}),
    ({"weight_decay_1d": 0.2}, {"weight_decay": 0.0}, {"weight_decay": 0.0}),
    ({"weight_decay_1d": 0.2}, {"weight_decay_1d": 0.0}, {"weight_decay": 0.0}),
    (
        {"weight_decay_1d": 0.2},
        {"weight_decay": 0.0, "weight_decay_1d": 0.3},
        {"weight_decay": 0.3},
    ),
    ({"betas": (0.7, 0.8)}, {}, {"betas": (0.9, 0.95)}),
    ({"betas_1d": (0.5, 0.6)}, {}, {"betas": (0.5, 0.6)}),
    ({"betas_1d": (0.5, 0.6)}, {"betas_1d": (0.3, 0.4)}, {"betas": (0.3, 0.4)}),
    ({"eps": 1e-4}, {}, {"eps": 1e-4}),
    ({"eps": 1e-4}, {"eps": 1e-3}, {"eps": 1e-3}),
    ({"maximize": True}, {}, {"maximize": True}),
    ({}, {"maximize": True}, {"maximize": True}),
    ({}, {"foreach": True}, {"foreach": True}),
]


@pytest.mark.parametrize("cls", RULE_OF)
@pytest.mark.parametrize(("constructor", "own", "wanted"), PRECEDENCE)
def test_value_of_vectors_comes_from_the_nearest_that_gave_one(
    cls: type[MARS], constructor: dict[str, Any], own: dict[str, Any], wanted: dict[str, Any]
) -> None:
    optimizer = cls([{"params": make_params(), **own}], **constructor)
    _, vectors = optimizer.param_groups
    assert {key: vectors[key] for key in wanted} == wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", RULE_OF)
def test_zero_gradient_vector_in_a_no_decay_group_stays_put(cls: type[MARS], backend: str) -> None:
    kept, decayed = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer = cls(
        [{"params": [kept], "weight_decay": 0.0}, {"params": [decayed]}],
        weight_decay=0.1,
        weight_decay_1d=0.1,
        **BACKENDS[backend],
    )
    for _ in range(100):
        kept.grad, decayed.grad = torch.zeros_like(kept), torch.zeros_like(decayed)
        optimizer.step()
    assert torch.equal(kept.detach(), torch.ones(3, dtype=torch.float64))
    assert decayed.detach() == pytest.approx((1 - 3e-3 * 0.1) ** 100, rel=1e-12)


@pytest.mark.parametrize("optimize_1d", [False, True])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_groups_passed_to_another_optimizer_stay_the_same(make: Any, optimize_1d: bool) -> None:
    first, second = make_params(), make_params()
    options = dict(optimize_1d=optimize_1d, lr_1d=0.01, weight_decay_1d=0.3, betas_1d=(0.5, 0.6))
    one = make(zip("abcd", first, strict=True), **options)
    twins = dict(zip(map(id, first), second, strict=True))
    groups = [{**g, "params": [twins[id(p)] for p in g["params"]]} for g in one.param_groups]
    other = MARS(groups, lr=9.0, gamma=0.9, betas_1d=(0.0, 0.0), weight_decay_1d=9.0)
    bare = [{k: v for k, v in g.items() if k != "params"} for g in one.param_groups]
    assert [{k: v for k, v in g.items() if k != "params"} for g in other.param_groups] == bare
    assert same(run(one, first), run(other, second))


@pytest.mark.parametrize("name", MODELS)
def test_groups_of_param_groups_pass_through_unchanged(name: str) -> None:
    groups = param_groups(MODELS[name](), rule="muon", gamma=0.07, lr_1d=0.2)
    optimizer = MARS(groups, lr=9.0, gamma=0.9)
    assert len(optimizer.param_groups) == len(groups)
    for kept, given in zip(optimizer.param_groups, groups, strict=True):
        assert tensors([kept]) == tensors([given])
        assert {k: kept[k] for k in given if k != "params"} == {
            k: v for k, v in given.items() if k != "params"
        }


def test_groups_of_torch_adamw_are_understood() -> None:
    adamw = torch.optim.AdamW(make_params(), lr=0.02, betas=(0.8, 0.9), weight_decay=0.3)
    matrices, vectors = MARSAdamW(adamw.param_groups).param_groups
    assert (matrices["lr"], matrices["betas"], matrices["weight_decay"]) == (0.02, (0.8, 0.9), 0.3)
    assert (vectors["lr"], vectors["weight_decay"]) == (0.02, 0.3)


# constructor's arguments, the group's own, its clip
CLIPS: list[tuple[dict[str, Any], dict[str, Any], float | None]] = [
    ({}, {}, 1.0),
    ({}, {"clip": None}, None),
    ({}, {"clip": 0.5}, 0.5),
    ({"clip": 0.5}, {}, 0.5),
    ({"clip": 0.5}, {"clip": "auto"}, 1.0),
    ({"clip": None}, {}, None),
    ({"correction": "folded"}, {}, None),
    ({"correction": "folded"}, {"correction": "approx"}, 1.0),
    ({"correction": "folded"}, {"correction": "approx", "clip": 0.5}, 0.5),
    ({}, {"correction": "folded"}, None),
    ({"clip": 0.5}, {"correction": "folded"}, None),  # which keeps no gradient to clip
]


@pytest.mark.parametrize(("constructor", "own", "clip"), CLIPS)
def test_clip_is_group_or_constructor_value_and_none_if_folded(
    constructor: dict[str, Any], own: dict[str, Any], clip: float | None
) -> None:
    matrices, _ = MARSM([{"params": make_params(), **own}], **constructor).param_groups
    assert matrices["clip"] == clip


def test_each_group_may_have_a_rule_and_correction_of_its_own() -> None:
    one, two = make_params([(5, 3)]), make_params([(5, 3)], seed=1)
    optimizer = MARS(
        [
            {"params": one, "rule": "muon", "correction": "folded"},
            {"params": two, "rule": "lion", "gamma": 0.1},
        ]
    )
    assert [(g["rule"], g["correction"], g["clip"]) for g in optimizer.param_groups] == [
        ("muon", "folded", None),  # folded has no clip, so "auto" is none
        ("lion", "approx", 1.0),
    ]
    apart = make_params([(5, 3)]), make_params([(5, 3)], seed=1)
    run(optimizer, one)
    optimizer.zero_grad()
    run(optimizer, two)
    run(MARSM(apart[0], correction="folded"), apart[0])
    run(MARSLion(apart[1], gamma=0.1), apart[1])
    assert same([*one, *two], [*apart[0], *apart[1]])


# class, an option that no trajectory may be indifferent to
OPTIONS: list[tuple[type[MARS], dict[str, Any]]] = [
    (MARSAdamW, {"lr": 0.1}),
    (MARSAdamW, {"lr_1d": 0.1}),
    (MARSAdamW, {"betas": (0.8, 0.99)}),
    (MARSAdamW, {"betas": (0.95, 0.9)}),
    (MARSAdamW, {"betas_1d": (0.8, 0.95)}),
    (MARSAdamW, {"betas_1d": (0.9, 0.9)}),
    (MARSAdamW, {"eps": 0.1}),
    (MARSAdamW, {"weight_decay": 0.5}),
    (MARSAdamW, {"weight_decay_1d": 0.5}),
    (MARSAdamW, {"amsgrad": True}),
    (MARSAdamW, {"gamma": 0.1}),
    (MARSAdamW, {"clip": None}),
    (MARSAdamW, {"clip": 0.1}),
    (MARSAdamW, {"correction": "folded"}),
    (MARSAdamW, {"optimize_1d": True}),
    (MARSAdamW, {"maximize": True}),
    (MARSLion, {"optimize_1d": True}),
    (MARSShampoo, {"optimize_1d": True}),
    (MARSShampoo, {"ns_steps": 4}),
    (MARSM, {"ns_steps": 4}),
    (MARSM, {"ns_coefficients": (2.0, -1.5, 0.5)}),
]


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
def test_no_option_is_accepted_and_ignored(cls: type[MARS], options: dict[str, Any]) -> None:
    plain, changed = make_params(), make_params()
    assert not same(run(cls(plain), plain), run(cls(changed, **options), changed))


@pytest.mark.parametrize("edit", [lambda ps: ps.pop(), lambda ps: ps.append(make_params()[0])])
def test_a_host_may_change_the_parameters_of_named_groups(edit: Any) -> None:
    named = [(f"p{i}", p) for i, p in enumerate(make_params())]
    optimizer = MARS(named)
    edit(optimizer.param_groups[0]["params"])
    for _, p in named:
        p.grad = torch.ones_like(p)
    optimizer.step()
