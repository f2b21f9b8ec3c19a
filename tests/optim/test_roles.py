"""Which role a parameter has, and what is warned of where a rule does not suit it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, param_groups
from tests.support.models import GPT, ConvNet, names_by_kind

RULES = ["adamw", "lion", "shampoo", "muon"]


class Transformer(nn.Module):
    """timm's names: DeiT with Swin's tables, a depthwise stem, and XCiT's and GRN's scales."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.dist_token = nn.Parameter(torch.randn(1, 1, 8))
        self.reg_token = nn.Parameter(torch.randn(1, 4, 8))
        self.pos_embed = nn.Parameter(torch.randn(1, 6, 8))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 8, 2)})
        self.conv_dw = nn.Conv2d(8, 8, 3, groups=8)
        attention = nn.Module()
        attention.qkv = nn.Linear(8, 24)
        attention.relative_position_bias_table = nn.Parameter(torch.randn(9, 2))
        attention.temperature = nn.Parameter(torch.ones(2, 1, 1))
        grn = nn.Module()
        grn.weight = nn.Parameter(torch.ones(1, 1, 1, 8))
        block = nn.ModuleDict({"attn": attention, "fc": nn.Linear(8, 8), "grn": grn})
        self.blocks = nn.Sequential(block)
        self.norm = nn.LayerNorm((4, 8))
        self.head = nn.Linear(8, 10)
        self.head_dist = nn.Linear(8, 10)


class Mixture(nn.Module):
    """A router called gate, beside experts that have a gate of their own."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"gate": nn.Linear(8, 16, bias=False), "up": nn.Linear(8, 16, bias=False)}
        self.gate = nn.Linear(8, 2, bias=False)
        self.experts = nn.ModuleList([nn.ModuleDict(layers)])


class StateSpace(nn.Module):
    """Mamba's own parameters, and one of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.randn(8, 4))
        self.D = nn.Parameter(torch.ones(8))
        self.in_proj = nn.Linear(8, 16, bias=False)
        self.skew = nn.Parameter(torch.randn(4, 4))
        self.step = nn.Linear(8, 1, bias=False)
        self.blocks = nn.ModuleList([nn.Linear(8, 8, bias=False)])


class LastLayer(nn.Module):
    """Nothing tells the head but its place."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8, bias=False)
        self.down = nn.Linear(8, 3, bias=False)


class Sized(nn.Module):
    """Two heads as wide as the classes, told by the model, none by its name."""

    num_classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 5, bias=False)])
        self.one = nn.Linear(8, 5, bias=False)
        self.two = nn.Linear(8, 5, bias=False)
        self.after = nn.Linear(8, 6, bias=False)


def of_more_dimensions(groups: list[dict[str, Any]]) -> dict[str, set[str]]:
    pairs = [(g["kind"], name) for g in groups for name, p in g["params"] if p.ndim > 1]
    return {kind: {n for k, n in pairs if k == kind} for kind, _ in pairs}


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (
            Transformer,
            {
                "matrix": {"patch_embed.proj.weight"}
                | {f"blocks.0.{layer}.weight" for layer in ("attn.qkv", "fc")},
                "embedding": {"cls_token", "dist_token", "reg_token", "pos_embed"}
                | {"blocks.0.attn.relative_position_bias_table"},
                "head": {"head.weight", "head_dist.weight"},
                "other": {"conv_dw.weight"},
                "vector": {"blocks.0.attn.temperature", "blocks.0.grn.weight"}
                | {"norm.weight", "norm.bias"},
            },
        ),
        (
            Mixture,
            {
                "matrix": {"experts.0.gate.weight", "experts.0.up.weight"},
                "router": {"gate.weight"},
            },
        ),
        (
            StateSpace,
            {
                "matrix": {"in_proj.weight", "blocks.0.weight"},
                "other": {"skew", "step.weight"},
                "vector": {"A_log"},
            },
        ),
        (
            Sized,
            {"matrix": {"blocks.0.weight", "after.weight"}, "head": {"one.weight", "two.weight"}},
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
            {"matrix": {"0.weight"}, "head": {"2.weight"}},
        ),
        (lambda: nn.Linear(4, 3), {"matrix": {"weight"}}),
        (lambda: nn.LSTM(4, 3), {"matrix": {"weight_ih_l0", "weight_hh_l0"}}),
        (
            lambda: nn.ModuleList([nn.MultiheadAttention(4, 2)]),
            {"matrix": {"0.in_proj_weight", "0.out_proj.weight"}},
        ),
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3)),
            {
                "vector": {"parametrizations.weight.original0"},
                "matrix": {"parametrizations.weight.original1"},
            },
        ),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_parameters_are_sorted_by_type_role_and_shape(
    build: Any, kinds: dict[str, set[str]], rule: str
) -> None:
    assert of_more_dimensions(param_groups(build(), rule=rule)) == kinds


@pytest.mark.parametrize("name", ["module", "_orig_mod"])
def test_a_wrapped_models_last_layer_is_its_head_too(name: str) -> None:
    wrapped = nn.ModuleDict({name: nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 3)})})
    plain = nn.Module()
    plain.add_module(name, LastLayer())
    assert of_more_dimensions(param_groups(plain, rule="muon"))["head"] == {f"{name}.down.weight"}
    assert "head" not in of_more_dimensions(param_groups(wrapped, rule="muon"))  # a dict: a block


def test_guessed_roles_are_listed_once_per_repeated_block() -> None:
    groups = param_groups(Transformer(), rule="muon")
    table = "blocks.*.attn.relative_position_bias_table"
    tokens = {"cls_token", "dist_token", "reg_token", "pos_embed", table}
    assert groups.guesses == {
        **dict.fromkeys(tokens, "an embedding"),
        **dict.fromkeys(("head.weight", "head_dist.weight"), "a head"),
    }
    assert f"\n- guessed: {table} is an embedding\n" in groups.describe()
    assert param_groups(StateSpace(), rule="muon").guesses == {
        "A_log": "a vector",
        "skew": "no matrix (a parameter of StateSpace itself)",
    }
    assert not param_groups(Mixture(), embeddings=(), heads=(), matrices="gate").guesses


# --- warnings at run time -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "named", "message"),
    [
        (lambda: GPT(tied=False), True, "embedding or head: wte.weight, wpe.weight, lm_head.we"),
        (ConvNet, True, r"embedding or head: fc\.weight; param_groups\(model\) gives"),
        (Transformer, True, "embedding or head: cls_token, dist_token, reg_token and 4 more"),
        (lambda: nn.Embedding(20_000, 2), False, r"embedding or head: a parameter of shape \(20"),
    ],
)
def test_newton_schulz_on_embedding_or_head_warns_when_built(
    build: Any, named: bool, message: str
) -> None:
    model = build()
    given = model.named_parameters() if named else model.parameters()
    with pytest.warns(UserWarning, match=f"^MARSM gives to Newton-Schulz what .*{message}"):
        MARSM(given)


def test_router_scale_and_experts_in_one_are_warned_of_too() -> None:
    with pytest.warns(UserWarning, match=r"a router: router\.weight"):
        MARSM([("router.weight", nn.Parameter(torch.ones(4, 8)))])
    with pytest.warns(UserWarning, match=r"a scale: mixer\.A_log"):
        MARSM([("mixer.A_log", nn.Parameter(torch.ones(8, 4)))])
    experts = ("experts.up", nn.Parameter(torch.ones(4, 8, 6)))
    with pytest.warns(UserWarning, match=r"a stack of experts.*: experts\.up; 'stacked': True in"):
        MARSM([experts])
    MARSM([{"params": [experts], "stacked": True}])


def test_role_warning_comes_for_added_but_not_sorted_groups() -> None:
    optimizer = MARSM([("blocks.0.weight", nn.Parameter(torch.ones(4, 4)))])
    with pytest.warns(UserWarning, match=r"an embedding or head: lm_head\.weight"):
        optimizer.add_param_group({"params": [("lm_head.weight", nn.Parameter(torch.ones(9, 4)))]})
    MARS(param_groups(GPT(tied=False), rule="muon", matrices="lm_head"))
    MARS(GPT(tied=False).named_parameters())  # element by element: nothing to warn of


class Adapted(nn.Module):
    """As PEFT keeps LoRA: of an embedding in a dict of parameters, of a matrix in modules."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_embedding_A = nn.ParameterDict({"default": torch.zeros(2, 11)})
        self.lora_embedding_B = nn.ParameterDict({"default": torch.zeros(8, 2)})
        self.trainable_tokens_delta = nn.ParameterDict({"default": torch.zeros(3, 8)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})


@pytest.mark.parametrize("rule", RULES)
def test_lora_of_an_embedding_is_an_embedding(rule: str) -> None:
    groups = param_groups(Adapted(), rule=rule)
    embedding = {f"lora_embedding_{x}.default" for x in "AB"} | {"trainable_tokens_delta.default"}
    assert names_by_kind(groups) == {"matrix": {"lora_A.default.weight"}, "embedding": embedding}
    by_kind = {g["kind"]: g["rule"] for g in groups}
    assert by_kind["embedding"] == ("adamw" if rule in ("shampoo", "muon") else rule)


def test_lora_of_an_embedding_under_a_matrix_rule_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="what looks like an embedding or head"):
        told = MARSM(Adapted().named_parameters()).describe()
    assert "lora_embedding_A.default looks like an embedding" in told
