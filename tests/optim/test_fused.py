"""Fused weights by a model's classes and config, compared with the model's own work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import param_groups
from mars_optim.experiment.tasks.gpt import GPT
from mars_optim.optim.blocks import Split

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own are not ours to fix

LLAMA: dict[str, Any] = dict(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, intermediate_size=24, max_position_embeddings=16, head_dim=6,
    pad_token_id=0, attn_implementation="eager",
)  # fmt: skip
OLDER: dict[str, Any] = {**LLAMA, "num_key_value_heads": None, "head_dim": None}
FALCON: dict[str, Any] = dict(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, alibi=False
)
EXPERTS: dict[str, Any] = dict(num_local_experts=3, num_experts_per_tok=2)
GPT2: dict[str, Any] = dict(n_layer=1, n_head=4, n_embd=16, vocab_size=32, n_positions=16)
QWEN_NEXT: dict[str, Any] = dict(
    num_hidden_layers=4, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=6,
    linear_value_head_dim=4, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=8,
    shared_expert_intermediate_size=8,
)  # fmt: skip

JETMOE: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_key_value_heads": 2,
    "kv_channels": 4, "intermediate_size": 24, "num_local_experts": 3,
}  # fmt: skip
MARKS: dict[str, Any] = dict(bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
DEEPSEEK: dict[str, Any] = {
    **OLDER, "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": None,
    "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "first_k_dense_replace": 1,
}  # fmt: skip

# name: class without its ending, config, layer, split="fused", split="heads"
ATTENTION: dict[str, tuple[str, dict[str, Any], str, Any, Any]] = {
    "GPT-2": ("GPT2LMHeadModel", GPT2, "c_attn", ((16, 16, 16), 1), ((4,) * 12, 1)),
    "Phi-3": ("Phi3ForCausalLM", LLAMA, "qkv_proj", (24, 12, 12), 8),
    "GPT-NeoX": ("GPTNeoXForCausalLM", OLDER, "query_key_value", ((4, 4, 4), 0, 4), 12),
    "Bloom": (
        "BloomForCausalLM",
        dict(vocab_size=32, hidden_size=16, n_layer=1, n_head=4),
        "query_key_value",
        ((4, 4, 4), 0, 4),
        12,
    ),
    "Falcon": ("FalconForCausalLM", FALCON, "query_key_value", (16, 4, 4), 6),
    "Falcon, heads": (
        "FalconForCausalLM",
        {**FALCON, "multi_query": False},
        "query_key_value",
        ((4, 4, 4), 0, 4),
        12,
    ),
    "Falcon, groups": (
        "FalconForCausalLM",
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        "query_key_value",
        ((8, 4, 4), 0, 2),
        8,
    ),
    "MPT": (
        "MptForCausalLM",
        dict(vocab_size=32, d_model=16, n_heads=4, n_layers=1, max_seq_len=16),
        "Wqkv",
        3,
        12,
    ),
    "GPT-BigCode": ("GPTBigCodeForCausalLM", GPT2, "c_attn", (16, 4, 4), 6),
    "the built-in GPT": ("GPT", {}, "qkv", 3, 12),
}
GATED: dict[str, tuple[str, dict[str, Any], str, Any]] = {
    "Phi-3": ("Phi3ForCausalLM", LLAMA, "gate_up_proj", 2),
    "Mixtral": ("MixtralForCausalLM", {**LLAMA, **EXPERTS}, "gate_up_proj", 2),
    "gpt-oss": ("GptOssForCausalLM", {**LLAMA, **EXPERTS}, "gate_up_proj", ((1, 1), 1, 24)),
    "Llama 4": (
        "Llama4ForCausalLM",
        {**LLAMA, **EXPERTS, "intermediate_size_mlp": 24, "interleave_moe_layer_step": 1},
        "gate_up_proj",
        ((24, 24), 1),
    ),
    "Granite": (
        "GraniteMoeSharedForCausalLM",
        {**LLAMA, "head_dim": 4, "num_local_experts": 3, "shared_intermediate_size": 20},
        "shared_mlp.input_linear",
        2,
    ),
    "JetMoe": ("JetMoeForCausalLM", JETMOE, "mlp.input_linear", 2),
    "ModernBERT": ("ModernBertModel", {**OLDER, **MARKS}, "mlp.Wi", 2),
}


def build(model: str, config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    if model == "GPT":
        made: nn.Module = GPT(vocabulary=32, context=16, layers=1, width=16, heads=4)
    else:
        names = {"GPT2LMHeadModel": "GPT2Config", "Llama4ForCausalLM": "Llama4TextConfig"}
        name = names.get(model, re.sub("ForCausalLM|Model", "Config", model))
        made = getattr(transformers, model)(getattr(transformers, name)(**config)).eval()
    with torch.no_grad():
        for name, param in made.named_parameters():
            if "bias" in name:
                param.zero_()
            elif param.ndim > 1:
                param.normal_(std=0.5)
    return made


def splits(model: nn.Module, split: Any) -> dict[str, Any]:
    groups = param_groups(model, rule="muon", split=split)
    return {name: group["split"] for group in groups for name, _ in group["params"]}


def fused_in(model: nn.Module, layer: str) -> tuple[str, nn.Parameter]:
    found = [(n, p) for n, p in model.named_parameters() if f".{layer}" in n and p.ndim > 1]
    return found[0]


def without(param: nn.Parameter, split: Any, numbers: tuple[int, ...]) -> Iterator[None]:
    """The weight while some of its blocks are zero."""
    kept = param.detach().clone()
    for number in numbers:
        block = Split.of("", split).blocks(param.shape, stacked=param.ndim > 2)[number]
        where = block.where(range(param.shape[block.dim]))
        with torch.no_grad():
            block.put(param, where, torch.zeros_like(block.of(param, where)))
    yield
    with torch.no_grad():
        param.copy_(kept)


def seen(model: nn.Module, path: str, *, before: bool) -> Tensor:
    """Inputs or outputs of a module in a pass over some tokens."""
    told: list[Tensor] = []
    module = model.get_submodule(path)

    def look(_: nn.Module, given: Any, output: Any = None) -> None:
        out = output[0] if isinstance(output, tuple) else output
        told.append((given[0] if before else out).detach().clone())

    hook = (module.register_forward_pre_hook if before else module.register_forward_hook)(look)
    with torch.no_grad():
        model(torch.tensor([[3, 7, 1, 9, 30, 2]]))
    hook.remove()
    return told[0]


def mixed(model: nn.Module, fused: str) -> Tensor:
    """The heads' outputs, which the layer after the attention is given."""
    around = fused.rsplit(".", 2)[0]
    after = ("c_proj", "o_proj", "dense", "out_proj", "out")
    children = dict(model.get_submodule(around).named_children())
    return seen(model, f"{around}.{next(n for n in after if n in children)}", before=True)


@pytest.mark.parametrize("name", ATTENTION)
def test_blocks_of_an_attention_are_its_queries_keys_and_values(name: str) -> None:
    cls, config, layer, fused, heads = ATTENTION[name]
    model = build(cls, config)
    path, param = fused_in(model, layer)
    assert splits(model, "fused")[path] == fused
    assert splits(model, "heads")[path] == heads
    outputs = {}
    for what, numbers in {"all": (), "q": (0,), "k": (1,), "v": (2,)}.items():
        for _ in without(param, fused, numbers):
            outputs[what] = mixed(model, path)
    assert outputs["v"].abs().max() == 0.0
    assert not torch.allclose(outputs["q"], outputs["all"], atol=1e-3)
    # without queries or without keys every position is attended alike
    torch.testing.assert_close(outputs["q"], outputs["k"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, case in ATTENTION.items() if n != "GPT-BigCode"])
def test_a_block_of_a_head_moves_that_head_alone(name: str) -> None:
    cls, config, layer, _, heads = ATTENTION[name]
    model = build(cls, config)
    path, param = fused_in(model, layer)
    whole = mixed(model, path)
    for _ in without(param, heads, (0,)):  # the first head's queries
        changed = mixed(model, path)
    moved = (changed - whole).abs().amax((0, 1)) > 1e-6
    size = whole.shape[-1] // 4
    assert moved[:size].any()
    assert not moved[size:].any()


@pytest.mark.parametrize("name", GATED)
def test_blocks_of_a_gated_layer_are_gate_and_up(name: str) -> None:
    cls, config, layer, fused = GATED[name]
    model = build(cls, config)
    path, param = fused_in(model, layer)
    assert splits(model, "fused")[path] == fused
    around = path.removesuffix(".weight").rpartition(".")[0]
    assert seen(model, around, before=False).abs().max() > 0.0
    for _ in without(param, fused, (0,)):
        assert seen(model, around, before=False).abs().max() == 0.0


def test_heads_of_separate_queries_come_from_the_config() -> None:
    for name in ("Llama", "Qwen3"):
        found = splits(build(f"{name}ForCausalLM", LLAMA), "heads")
        short = {key.split(".")[-2]: value for key, value in found.items() if "layers" in key}
        assert (short["q_proj"], short["k_proj"], short["v_proj"]) == (4, 2, 2)
        assert (short["o_proj"], short["down_proj"]) == (None, None)
        assert set(splits(build(f"{name}ForCausalLM", LLAMA), "fused").values()) == {None}


@pytest.mark.parametrize("version", ["V2", "V3"])
def test_latent_attention_is_cut_by_its_own_heads(version: str) -> None:
    model = build(f"Deepseek{version}ForCausalLM", DEEPSEEK)
    path, param = fused_in(model, "self_attn.kv_b_proj")
    queries = path.replace("kv_b_proj", "q_proj")
    assert splits(model, "fused")[path] == ((12, 10), 0, 2)
    assert splits(model, "fused")[queries] is None
    assert splits(model, "heads")[path] == (12, 10, 12, 10)
    assert splits(model, "heads")[queries] == 2  # of 20 each, though the config's head_dim is 8
    whole = mixed(model, path)
    for _ in without(param, ((12, 10), 0, 2), (1,)):
        assert mixed(model, path).abs().max() == 0.0
    for _ in without(param, (12, 10, 12, 10), (1,)):  # the first head's values
        changed = (mixed(model, path) - whole).abs().amax((0, 1)) > 1e-6
    assert changed[:10].all()
    assert not changed[10:].any()


def test_queries_of_a_latent_are_cut_by_heads_too() -> None:
    model = build("DeepseekV3ForCausalLM", {**DEEPSEEK, "q_lora_rank": 6})
    path, param = fused_in(model, "self_attn.q_b_proj")
    assert param.shape == (40, 6)
    assert splits(model, "fused")[path] is None
    assert splits(model, "heads")[path] == 2


def test_in_proj_of_deberta_has_heads_of_all_three() -> None:
    config = {key: LLAMA[key] for key in LLAMA if "kv" not in key and "key_value" not in key}
    model = build("DebertaModel", {**config, "head_dim": None})
    path, param = fused_in(model, "self.in_proj")
    assert splits(model, "fused")[path] == ((4, 4, 4), 0, 4)
    attention = path.removesuffix(".in_proj.weight")
    assert seen(model, attention, before=False).abs().max() > 0.0
    for _ in without(param, ((4, 4, 4), 0, 4), (2,)):
        assert seen(model, attention, before=False).abs().max() == 0.0


class Grouped(nn.Module):
    """An attention that says by words of its own how many keys and values it has."""

    def __init__(self, **config: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(n_head=8, head_size=4, **config)
        self.qkv = nn.Linear(16, 48, bias=False)


@pytest.mark.parametrize("name", ["n_query_groups", "n_kv_heads", "n_kv_head"])
def test_grouped_queries_are_known_by_several_names(name: str) -> None:
    assert splits(nn.Sequential(Grouped(**{name: 2})), "fused")["0.qkv.weight"] == (32, 8, 8)


def test_a_config_that_cannot_tell_of_all_layers_is_no_crash() -> None:
    class Differing:
        n_head, n_query_groups, hidden_size = 8, 2, 32

        @property
        def head_dim(self) -> int:
            raise RuntimeError("head_dim is a per-layer attribute")

    model = Grouped()
    model.config = Differing()
    assert splits(nn.Sequential(model), "fused")["0.qkv.weight"] == (32, 8, 8)


def test_a_guess_that_the_size_of_heads_contradicts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not known how 0\.qkv\.weight of shape \(48, 16\)"):
        splits(nn.Sequential(Grouped(groups_by_another_name=2)), "fused")


class Keys(nn.Module):
    """An attention of 8 heads of 8 that does not say how many heads its keys have."""

    def __init__(self, inputs: int, outputs: int, layer: str = "qkv") -> None:
        super().__init__()
        self.num_heads = 8
        self.add_module(layer, nn.Linear(inputs, outputs))
        self.out = nn.Linear(64, inputs)


CausalSelfAttention = type("CausalSelfAttention", (Keys,), {})


def test_thirds_are_no_guess_where_keys_may_be_fewer() -> None:
    for attention in (Keys(64, 96), CausalSelfAttention(64, 96, "c_attn")):
        with pytest.raises(ValueError, match=r"not known how 0\.\w+\.weight of shape \(96, 64\)"):
            splits(nn.Sequential(attention), "fused")
    for inputs in (64, 48):  # the output layer takes 64, which is a third
        assert splits(nn.Sequential(Keys(inputs, 192)), "fused")["0.qkv.weight"] == 3
    nested = Keys(48, 192)
    nested.out = nn.Sequential(nn.Dropout(0.0), nn.Linear(64, 48))
    assert splits(nn.Sequential(nested), "fused")["0.qkv.weight"] == 3


def test_linear_attention_of_qwen_is_cut_by_its_heads_of_keys() -> None:
    found = splits(build("Qwen3NextForCausalLM", {**LLAMA, **QWEN_NEXT}), "fused")
    short = {key.split(".")[-2]: value for key, value in found.items() if "weight" in key}
    assert short["in_proj_qkvz"] == ((6, 6, 8, 8), 0, 2)
    assert short["in_proj_ba"] == ((2, 2), 0, 2)
    assert short["q_proj"] == ((6, 6), 0, 4)  # the query of each head, then its gate


def test_attention_of_torch_is_cut_into_thirds_and_heads() -> None:
    model = nn.TransformerEncoderLayer(12, 3)
    assert splits(model, "fused")["self_attn.in_proj_weight"] == 3
    assert splits(model, "heads")["self_attn.in_proj_weight"] == 9


def test_cross_attention_has_keys_and_values_alone() -> None:
    model = build("GPT2LMHeadModel", {**GPT2, "add_cross_attention": True})
    found = splits(model, "fused")
    assert found["transformer.h.0.crossattention.c_attn.weight"] == ((16, 16), 1)
    assert found["transformer.h.0.attn.c_attn.weight"] == ((16, 16, 16), 1)
    assert found["transformer.h.0.crossattention.q_attn.weight"] is None
