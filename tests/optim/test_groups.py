"""``param_groups``: which parameter of a model gets which rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, ParamGroups, param_groups
from tests.support.cases import make_grads, needs_compiler, run
from tests.support.models import (
    GPT,
    MODELS,
    ConvNet,
    Experts,
    HuggingFaceLike,
    Shared,
    names_by_kind,
    tensors,
)

RULES = ["adamw", "lion", "shampoo", "muon"]
LINEAR = {f"blocks.{i}.{layer}.weight" for i in (0, 1) for layer in ("qkv", "proj")}
NORMS = {
    f"{module}.{name}"
    for module in ("norm", "blocks.0.norm", "blocks.1.norm")
    for name in ("weight", "bias")
}
VECTORS = NORMS | {f"blocks.{i}.qkv.bias" for i in (0, 1)}

# model, options, kind -> names
ROUTES: list[tuple[Any, dict[str, Any], dict[str, set[str]]]] = [
    (
        lambda: GPT(tied=True),
        {},
        {"matrix": LINEAR, "embedding": {"wte.weight", "wpe.weight"}, "vector": VECTORS},
    ),
    (
        lambda: GPT(tied=False),
        {},
        {
            "matrix": LINEAR,
            "embedding": {"wte.weight", "wpe.weight"},
            "head": {"lm_head.weight"},
            "vector": VECTORS,
        },
    ),
    (
        ConvNet,
        {},
        {
            "matrix": {"stem.weight", "pointwise.weight"},
            "head": {"fc.weight"},
            "vector": {"norm.weight", "norm.bias", "pointwise.bias", "fc.bias"},
        },
    ),
    (
        ConvNet,
        {"heads": ()},
        {
            "matrix": {"stem.weight", "pointwise.weight", "fc.weight"},
            "vector": {"norm.weight", "norm.bias", "pointwise.bias", "fc.bias"},
        },
    ),
    (
        ConvNet,
        {"heads": [r"^fc\."]},
        {
            "matrix": {"stem.weight", "pointwise.weight"},
            "head": {"fc.weight"},
            "vector": {"norm.weight", "norm.bias", "pointwise.bias", "fc.bias"},
        },
    ),
    (Experts, {}, {"matrix": {"up"}, "router": {"router.weight"}, "vector": {"gain"}}),
    (Experts, {"matrices": "router"}, {"matrix": {"up", "router.weight"}, "vector": {"gain"}}),
    (
        Experts,
        {"embeddings": "router"},
        {"matrix": {"up"}, "embedding": {"router.weight"}, "vector": {"gain"}},
    ),
    (
        HuggingFaceLike,
        {},
        {"matrix": {"hidden.weight"}, "embedding": {"tokens.weight"}, "head": {"decoder.weight"}},
    ),
]


@pytest.mark.parametrize(("build", "options", "kinds"), ROUTES)
@pytest.mark.parametrize("rule", RULES)
def test_parameters_are_sorted_by_module_and_name(
    build: Any, options: dict[str, Any], kinds: dict[str, set[str]], rule: str
) -> None:
    assert names_by_kind(param_groups(build(), rule=rule, **options)) == kinds


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_every_trainable_parameter_is_claimed_exactly_once(name: str, rule: str) -> None:
    model = MODELS[name]()
    frozen = next(model.parameters()).requires_grad_(False)
    groups = param_groups(model, rule=rule, no_decay=[r"weight$|up|gain"])
    claimed = [id(p) for p in tensors(groups)]
    assert sorted(claimed) == sorted(id(p) for p in model.parameters() if p is not frozen)
    optimizer = MARS(groups)
    assert sorted(map(id, tensors(optimizer.param_groups))) == sorted(claimed)
    assert len(optimizer.param_groups) == len(groups)  # sorted already, nothing left to split


@pytest.mark.parametrize("rule", RULES)
def test_embeddings_and_heads_get_adamw_under_matrix_rules(rule: str) -> None:
    groups = param_groups(GPT(tied=False), rule=rule, gamma=0.05)
    by_kind = {group["kind"]: group for group in groups}
    for kind in ("embedding", "head"):
        group = by_kind[kind]
        if rule in ("shampoo", "muon"):
            assert (group["rule"], group["gamma"], group["clip"]) == ("adamw", 0.0, None)
            assert group["betas"] == (0.9, 0.95)
        else:
            assert (group["rule"], group["gamma"], group["clip"]) == (rule, 0.05, 1.0)
            assert group["betas"] == (0.95, 0.99)
    vectors = by_kind["vector"]
    assert (vectors["rule"], vectors["gamma"], vectors["clip"]) == ("adamw", 0.0, None)


# options -> expected (lr, weight_decay) of matrix, embedding, head, vector
VALUES: list[tuple[dict[str, Any], dict[str, tuple[float, float]]]] = [
    (
        {},
        {
            "matrix": (3e-3, 0.01),
            "embedding": (3e-3, 0.0),
            "head": (3e-3, 0.01),
            "vector": (3e-3, 0.0),
        },
    ),
    (
        {"lr": 0.1, "weight_decay": 0.2, "lr_1d": 0.3, "weight_decay_1d": 0.4},
        {
            "matrix": (0.1, 0.2),
            "embedding": (0.1, 0.0),
            "head": (0.1, 0.2),
            "vector": (0.3, 0.4),
        },
    ),
    (
        {"rule": "muon", "lr": 0.1, "lr_1d": 0.3},
        {
            "matrix": (0.1, 0.01),
            "embedding": (0.3, 0.0),
            "head": (0.3, 0.01),
            "vector": (0.3, 0.0),
        },
    ),
    (
        {"rule": "muon", "lr_1d": 0.3, "lr_embedding": 0.5, "decay_embeddings": True},
        {
            "matrix": (3e-3, 0.01),
            "embedding": (0.5, 0.01),
            "head": (0.5, 0.01),
            "vector": (0.3, 0.0),
        },
    ),
    (
        {"lr_1d": 0.0, "lr_embedding": 0.0},
        {
            "matrix": (3e-3, 0.01),
            "embedding": (0.0, 0.0),
            "head": (0.0, 0.01),
            "vector": (0.0, 0.0),
        },
    ),
]


@pytest.mark.parametrize(("options", "wanted"), VALUES)
def test_each_kind_has_the_documented_rate_and_decay(
    options: dict[str, Any], wanted: dict[str, tuple[float, float]]
) -> None:
    groups = param_groups(GPT(tied=False), **options)
    assert {g["kind"]: (g["lr"], g["weight_decay"]) for g in groups} == wanted


def test_no_decay_takes_matching_parameters_of_every_kind() -> None:
    groups = param_groups(
        GPT(tied=False),
        decay_embeddings=True,
        weight_decay_1d=0.1,
        no_decay=["wpe", "proj", "norm"],
    )
    undecayed = {n for g in groups if g["weight_decay"] == 0.0 for n, _ in g["params"]}
    proj = {f"blocks.{i}.proj.weight" for i in (0, 1)}
    assert undecayed == {"wpe.weight"} | proj | NORMS
    assert all("no decay by name" in g["why"] for g in groups if g["weight_decay"] == 0.0)


def test_no_decay_finds_a_tied_head_under_its_other_name() -> None:
    groups = param_groups(GPT(tied=True), decay_embeddings=True, no_decay="lm_head")
    undecayed = [g for g in groups if g["weight_decay"] == 0.0 and g["kind"] == "embedding"]
    assert [n for g in undecayed for n, _ in g["params"]] == ["wte.weight"]
    assert "tied" in undecayed[0]["why"]
    assert "no decay by name" in undecayed[0]["why"]


@pytest.mark.parametrize(
    ("pattern", "name"), [("again", "first.weight"), ("key", "query"), ("query", "query")]
)
def test_shared_parameter_is_found_under_each_of_its_names(pattern: str, name: str) -> None:
    groups = param_groups(Shared(), no_decay=[pattern])
    undecayed = [n for g in groups if g["weight_decay"] == 0.0 for n, _ in g["params"]]
    assert undecayed == [name]


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (ConvNet, {"no_decay": ["stam"]}, r"no_decay.*'stam' matches no parameter.*stem\.weight"),
        (ConvNet, {"matrices": ["stam"]}, r"matrices.*'stam' matches no parameter"),
        (ConvNet, {"no_decay": ["("]}, r"no_decay.*'\('.*regular expression"),
        (ConvNet, {"heads": ["["]}, r"heads.*'\['.*regular expression"),
        (ConvNet, {"embeddings": "*"}, r"embeddings.*'\*'.*regular expression"),
        (ConvNet, {"rule": "muonn"}, r"rule='muonn'.*did you mean 'muon'"),
        (nn.ReLU, {}, r"no trainable parameters"),
        (lambda: ConvNet().requires_grad_(False), {}, r"no trainable parameters"),
    ],
)
def test_bad_request_is_refused_with_the_way_out(
    build: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        param_groups(build(), **options)


# --- shapes ---------------------------------------------------------------------------------------


def step_once(param: nn.Parameter, grad: torch.Tensor, **options: Any) -> torch.Tensor:
    param.grad = grad
    MARSM([param], **options).step()
    return param.detach()


def test_convolutions_under_muon_step_as_matrices_of_filters() -> None:
    model = ConvNet().double()
    flat = nn.Parameter(model.stem.weight.detach().flatten(1).clone())
    optimizer = MARS(param_groups(model, rule="muon"))
    (grad,) = make_grads([model.stem.weight], 0)
    model.stem.weight.grad = grad
    optimizer.step()
    wanted = step_once(flat, grad.flatten(1))
    torch.testing.assert_close(model.stem.weight.detach().flatten(1), wanted, rtol=1e-12, atol=0)


def test_experts_under_muon_step_as_one_matrix_each() -> None:
    model = Experts().double()
    apart = [nn.Parameter(expert.clone()) for expert in model.up.detach()]
    optimizer = MARS(param_groups(model, rule="muon", clip=None))  # the clip is per tensor
    (grad,) = make_grads([model.up], 0)
    model.up.grad = grad
    optimizer.step()
    for expert, alone, its_grad in zip(model.up.detach(), apart, grad, strict=True):
        wanted = step_once(alone, its_grad, clip=None)
        torch.testing.assert_close(expert, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(4, 3, 3), nn.ConvTranspose1d(4, 3, 5)], ids=str
)
def test_transposed_convolution_is_no_stack_of_kernels(layer: nn.Module) -> None:
    matrices = [g for g in param_groups(layer, rule="muon") if g["kind"] == "matrix"]
    assert [g["stacked"] for g in matrices] == [False]


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_printed_groups_show_each_kind_rule_and_size(name: str) -> None:
    groups = param_groups(MODELS[name](), rule="muon", lr=0.125, weight_decay=0.25)
    assert isinstance(groups, ParamGroups)
    assert str(groups) == groups.describe()
    header, *lines = groups.describe().splitlines()
    rows = [line for line in lines if not line.startswith("- ")]  # notes stand below the table
    assert header.split()[:3] == ["kind", "rule", "correction"]
    assert len(rows) == len(groups)
    for row, group in zip(rows, groups, strict=True):
        sizes = [p.numel() for _, p in group["params"]]
        assert row.split()[:2] == [group["kind"], group["rule"]]
        assert f" {len(sizes)} " in row
        assert f" {sum(sizes):,} " in row
        assert row.endswith(group["why"])
        assert "  0.125  " in row


def test_optimizer_describes_its_groups_as_they_are_now() -> None:
    model = GPT(tied=True)
    groups = param_groups(model, rule="muon")
    optimizer = MARS(groups)
    assert optimizer.describe() == groups.describe()
    run(optimizer, tensors(optimizer.param_groups), [0])
    optimizer.param_groups[0]["lr"] = torch.tensor(0.75)
    assert "  0.75  " in optimizer.describe().splitlines()[1]


@pytest.mark.parametrize(
    ("options", "path", "why"),
    [
        pytest.param({"rule": "adamw"}, "native", "CPU kernels", marks=needs_compiler),
        ({"rule": "adamw", "gamma": 0.0, "clip": None}, "fused", ""),
        ({"rule": "muon"}, "foreach", "rule='muon' has no CPU kernel"),
        ({"rule": "lion", "foreach": True}, "foreach", "asked for by foreach=True"),
        ({"rule": "lion", "foreach": False}, "reference", "asked for by foreach=False"),
        ({"rule": "lion", "stochastic_rounding": True}, "foreach", "stochastic rounding"),
    ],
    ids=str,
)
def test_table_tells_which_path_is_taken_and_why_no_faster_one(
    options: dict[str, Any], path: str, why: str
) -> None:
    matrix = nn.Parameter(torch.ones(3, 2, dtype=torch.bfloat16))
    text = MARS([matrix], **options).describe()
    header, row, *_ = text.splitlines()
    assert row[header.index("path") :].startswith(path)
    assert (f"- path {path}: " in text) == bool(why)
    assert why in text


@pytest.mark.parametrize("correction", ["approx", "exact"])
@pytest.mark.parametrize("changes", [True, False])
def test_correction_without_effect_is_reported_by_describe(changes: bool, correction: Any) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = MARS([("weight", weight)], correction=correction, lr=0.1 if changes else 0.0)
    for t in range(3):
        assert "ratio" not in optimizer.describe()

        def closure(t: int = t) -> float:
            optimizer.zero_grad()
            batch = t if changes and correction == "approx" else 1.0
            (weight.square() * batch).sum().backward()
            return 0.0

        optimizer.step(closure)
    assert ("correction ratio 0 in the group of weight" in optimizer.describe()) != changes


def test_zero_momentum_is_reported_to_cancel_the_correction() -> None:
    optimizer = MARS([nn.Parameter(torch.ones(3, 2))], betas=(0.0, 0.99))
    assert "! betas[0]=0 makes the correction of the adamw group 0" in optimizer.describe()
