"""split= as a caller says it: by a word, by patterns, or by both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from mars_optim import MARS, param_groups
from mars_optim.experiment.tasks.gpt import GPT
from tests.optim.test_fused import GPT2, LLAMA, build, fused_in, splits

pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own are not ours to fix


def test_sizes_of_a_pattern_are_along_a_layers_outputs() -> None:
    model = build("GPT2LMHeadModel", GPT2)
    found = splits(model, {r"c_attn": (16, 32), r"mlp\.c_fc": 4, r"mlp\.c_proj": ((32, 32), 0)})
    assert found["transformer.h.0.attn.c_attn.weight"] == ((16, 32), 1)
    assert found["transformer.h.0.mlp.c_fc.weight"] == ((16,) * 4, 1)
    assert found["transformer.h.0.mlp.c_proj.weight"] == 2
    assert found["transformer.h.0.attn.c_proj.weight"] is None


def test_a_pattern_wins_over_the_word() -> None:
    model = build("Phi3ForCausalLM", LLAMA)
    found = splits(model, ("fused", {"gate_up": None}))
    assert [found[fused_in(model, layer)[0]] for layer in ("qkv_proj", "gate_up_proj")] == [
        (24, 12, 12),
        None,
    ]


def test_weights_cut_alike_share_a_group_that_says_so() -> None:
    groups = param_groups(build("Phi3ForCausalLM", {**LLAMA, "num_hidden_layers": 2}),
                          rule="muon", split="fused")  # fmt: skip
    matrices = [g for g in groups if g["kind"] == "matrix"]
    assert {g["split"]: len(g["params"]) for g in matrices} == {(24, 12, 12): 2, None: 4, 2: 2}
    assert "split (24, 12, 12)" in str(groups)
    assert len(MARS(groups).param_groups) == len(groups)


def test_a_layout_that_a_name_alone_tells_is_listed_as_guessed() -> None:
    groups = param_groups(GPT(vocabulary=8, context=4, layers=1, width=8, heads=2), rule="muon",
                          split="fused")  # fmt: skip
    guessed = groups.guesses["blocks.*.attention.qkv.weight"]
    assert guessed == "a matrix, split 3 by its layer's name"


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(8, 24, bias=False)
        self.out = nn.Linear(8, 8, bias=False)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"split": "qkv"}, r"split='qkv' must be one of 'fused', 'heads'"),
    ({"split": "head"}, r"did you mean 'heads'"),
    ({"split": ("fused", "heads")}, r"has two words: give only one"),
    ({"split": 3}, r"split=3 must be 'fused' or 'heads', a dict such as \{'qkv': 3\}"),
    ({"split": (3,)}, r"split=\(3,\) must be 'fused' or 'heads', a dict"),
    ({"split": ("fused", 3)}, r"split=\('fused', 3\) must be 'fused' or 'heads', a dict"),
    ({"split": {3: 3}}, r"split: 3 must be a string, a regular expression"),
    ({"split": {"query_key_value": ((8, 8, 8), 1.0)}}, r"give a whole number n"),
    (
        {"split": "fused"},
        r"not known how query_key_value\.weight of shape \(24, 8\) in Odd is fused\. Give "
        r"split=\('fused', \{'query_key_value': \.\.\.\}\); None there leaves it whole",
    ),
    ({"split": {"nothing": 3}}, r"split: 'nothing' matches no parameter"),
    ({"split": {"(": 3}}, r"split: '\(' is not a regular expression"),
    ({"split": {"query": (8, 8)}}, r"split\['query'\]=\(8, 8\) does not fit query_key_value\.wei"),
    ({"split": {"query": "three"}}, r"split\['query'\]='three' does not split"),
    ({"split": "fused", "rule": "adamw"}, r"which rule='adamw' does not use"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_a_split_that_cannot_be_is_named_with_the_way_out(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        param_groups(Odd(), **{"rule": "muon", "heads": (), **options})


def test_an_unknown_layout_is_said_or_left_whole() -> None:
    for value in (3, None):
        groups = param_groups(
            Odd(), rule="muon", heads=(), split=("fused", {"query_key_value": value})
        )
        assert {g["split"] for g in groups} == {value, None}


def test_a_pattern_of_vectors_matches_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"split: 'bias' matches no matrix"):
        param_groups(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), rule="muon",
                     split={"bias": 2}, heads=())  # fmt: skip


WRAPS: dict[str, Any] = {
    "compile": torch.compile,
    "checkpoint": checkpoint_wrapper,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*script_method.*")
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_wrapped_layer_is_cut_as_the_layer_alone(wrap: Any) -> None:
    model = GPT(vocabulary=8, context=4, layers=1, width=8, heads=2)
    attention = model.blocks[0].attention
    attention.qkv = wrap(attention.qkv)
    for word, pieces in (("fused", 3), ("heads", 6)):
        groups = param_groups(model, rule="muon", split=word)
        (cut,) = [g for g in groups if g["split"] == pieces]
        assert len(cut["params"]) == 1
        assert "qkv" in cut["params"][0][0]


def test_a_wrapped_conv1d_is_cut_along_its_columns() -> None:
    model = build("GPT2LMHeadModel", GPT2)
    attention = model.transformer.h[0].attn
    attention.c_attn = torch.compile(attention.c_attn)
    found = splits(model, "fused")
    assert found["transformer.h.0.attn.c_attn._orig_mod.weight"] == ((16, 16, 16), 1)


def test_heads_of_torchs_attention_with_other_keys_are_cut() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2, kdim=6, vdim=4)})
    groups = param_groups(model, rule="muon", split="heads")
    cut = {name for g in groups if g["split"] == 2 for name, _ in g["params"]}
    assert cut == {"a.q_proj_weight", "a.k_proj_weight", "a.v_proj_weight"}
