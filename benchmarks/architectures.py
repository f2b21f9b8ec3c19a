"""Groups that `param_groups(rule="muon")` makes of public architectures, into
docs/architectures.md.

    python -m benchmarks.architectures

Each is built from its own config in transformers, tiny and without memory (meta device): names,
types and the order of sizes are the real ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mars_optim import param_groups

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
_ENCODER = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
_DECODER = {**_ENCODER, "vocab_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 2}
_HEADED = {**_DECODER, "head_dim": 8}
_OLDER = {**_ENCODER, "vocab_size": 64, "max_position_embeddings": 32}
_VISION = {**_ENCODER, "image_size": 16, "patch_size": 8}
_IMAGES = {**_VISION, "num_labels": 10}
_SEQUENCES = dict(
    vocab_size=64,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
)
_PURPOSES = dict(hidden_sizes=[8, 16], depths=[1, 1])
_FEW = dict(vocab_size=64, hidden_size=16, num_hidden_layers=1)
_ROUTED = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)

# name -> class in transformers, config's class, its arguments
ARCHITECTURES: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        dict(n_layer=1, n_head=2, n_embd=16, vocab_size=64, n_positions=32),
    ),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _OLDER),
    "Bloom": ("BloomForCausalLM", "BloomConfig", dict(_FEW, n_layer=1, n_head=2)),
    "Falcon": ("FalconForCausalLM", "FalconConfig", dict(_FEW, num_attention_heads=2)),
    "OPT": (
        "OPTForCausalLM",
        "OPTConfig",
        dict(_OLDER, ffn_dim=32, word_embed_proj_dim=16),
    ),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", _DECODER),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _HEADED),
    "Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _HEADED),
    "Phi": ("PhiForCausalLM", "PhiConfig", _DECODER),
    "Mixtral": ("MixtralForCausalLM", "MixtralConfig", dict(_DECODER, num_local_experts=4)),
    "OLMoE": ("OlmoeForCausalLM", "OlmoeConfig", {**_DECODER, **_ROUTED}),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig", dict(_HEADED, num_local_experts=4)),
    "Llama 4": (
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        dict(_HEADED, num_local_experts=4, intermediate_size_mlp=32, interleave_moe_layer_step=1),
    ),
    "DeepSeek-V3": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        dict(
            _DECODER,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            first_k_dense_replace=1,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=4,
        ),
    ),
    "Qwen3-Next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **_HEADED,
            **_ROUTED,
            "num_hidden_layers": 4,
            "shared_expert_intermediate_size": 8,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "Switch": (
        "SwitchTransformersForConditionalGeneration",
        "SwitchTransformersConfig",
        dict(
            vocab_size=64,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            num_experts=2,
            num_sparse_encoder_layers=1,
            num_sparse_decoder_layers=1,
        ),
    ),
    "Mamba": ("MambaForCausalLM", "MambaConfig", dict(_FEW, state_size=4, time_step_rank=2)),
    "Mamba-2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        dict(_FEW, state_size=4, num_heads=4, head_dim=8, n_groups=2),
    ),
    "Jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        dict(
            _DECODER,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            mamba_d_state=4,
            mamba_dt_rank=2,
        ),
    ),
    "RWKV": ("RwkvForCausalLM", "RwkvConfig", dict(_FEW, attention_hidden_size=16)),
    "RecurrentGemma": (
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {**_DECODER, "num_hidden_layers": 3, "lru_width": 16},
    ),
    "BERT": ("BertForMaskedLM", "BertConfig", _OLDER),
    "BERT, classes": ("BertForSequenceClassification", "BertConfig", _OLDER),
    "DeBERTa-v2": (
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        dict(_OLDER, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"]),
    ),
    "T5": (
        "T5ForConditionalGeneration",
        "T5Config",
        dict(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
    ),
    "BART": (
        "BartForConditionalGeneration",
        "BartConfig",
        dict(_SEQUENCES, max_position_embeddings=32),
    ),
    "Whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        dict(
            _SEQUENCES,
            num_mel_bins=8,
            max_source_positions=8,
            max_target_positions=8,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
    ),
    "Wav2Vec2": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        dict(
            _ENCODER,
            vocab_size=64,
            conv_dim=[8, 8],
            conv_stride=[2, 2],
            conv_kernel=[3, 3],
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        ),
    ),
    "ViT": ("ViTForImageClassification", "ViTConfig", _IMAGES),
    "DeiT": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", _IMAGES),
    "BEiT": (
        "BeitForImageClassification",
        "BeitConfig",
        dict(_IMAGES, use_relative_position_bias=True, use_mask_token=True),
    ),
    "MAE": (
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        dict(
            _VISION,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
        ),
    ),
    "Swin": (
        "SwinForImageClassification",
        "SwinConfig",
        dict(
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=2,
            image_size=16,
            patch_size=2,
            num_labels=10,
        ),
    ),
    "ResNet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        dict(_PURPOSES, embedding_size=8, num_labels=10),
    ),
    "ConvNeXt V2": (
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        dict(_PURPOSES, num_stages=2, num_labels=10),
    ),
    "SegFormer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        dict(
            _PURPOSES,
            num_encoder_blocks=2,
            sr_ratios=[2, 1],
            num_attention_heads=[1, 2],
            patch_sizes=[3, 3],
            strides=[2, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=8,
            num_labels=10,
        ),
    ),
    "CLIP": (
        "CLIPModel",
        "CLIPConfig",
        dict(
            text_config=dict(_OLDER, projection_dim=8),
            vision_config=dict(_VISION, projection_dim=8),
            projection_dim=8,
        ),
    ),
}

INTRODUCTION = (
    "# Which parameters go to Newton-Schulz\n\n"
    'What `param_groups(model, rule="muon")` makes of {number} public architectures, each built '
    "from its own config in transformers {version}.\n"
    "Made by `python -m benchmarks.architectures`; the full names that are expected are in "
    "`tests/optim/architectures.json`.\n\n"
    'Only the column "matrices" is orthogonalised; experts are stacks of matrices.\n'
    "All else gets plain AdamW, and so do vectors (`ndim < 2`), which are left out here.\n"
    "Names are shortened to the layer's.\n"
    "*Italic* is what no module's type told, and what printing the groups lists as guessed.\n\n"
    "| architecture | matrices | embeddings, tokens, tables | heads | routers | no matrix |\n"
    "|---|---|---|---|---|---|\n"
)


FUSED = (
    "\n## Several matrices in one weight\n\n"
    'What `param_groups(model, rule="muon", split="fused")` cuts, with the tiny sizes of these '
    "models; of an architecture that is not listed no weight is cut.\n"
    "Mamba's `in_proj`, which holds two, stays whole.\n"
    'With `split="heads"` queries, keys and values are cut head by head, also where they are '
    "weights of their own.\n"
    "[How blocks are stepped](optimizers.md#blocks-inside-one-matrix).\n\n"
    "| architecture | layer: its blocks |\n"
    "|---|---|\n"
)


def build(name: str) -> nn.Module:
    """The architecture with tiny sizes on the meta device."""
    import transformers

    model, config, options = ARCHITECTURES[name]
    with torch.device("meta"):
        made = getattr(transformers, model)(getattr(transformers, config)(**options))
    assert isinstance(made, nn.Module)
    return made


def roles(model: nn.Module) -> dict[str, list[str]]:
    """Names by kind, those of repeated blocks once; vectors of one dimension are left out."""
    found: dict[str, list[str]] = {}
    for group in param_groups(model, rule="muon"):
        kind = "stack" if group["stacked"] else group["kind"]
        for name, param in group["params"]:
            short = anywhere(name)
            if param.ndim > 1 and short not in found.setdefault(kind, []):
                found[kind].append(short)
    return {kind: names for kind, names in found.items() if names}


def anywhere(name: str) -> str:
    """A name without the numbers of blocks."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def row(name: str) -> str:
    """The table's line."""
    model = build(name)
    guesses = param_groups(model, rule="muon").guesses
    by_kind = roles(model)

    def cell(*kinds: str) -> str:
        shown: dict[str, None] = {}
        for full in (full for kind in kinds for full in by_kind.get(kind, [])):
            short = full.removesuffix(".weight").removesuffix(".*").rpartition(".")[2]
            shown[f"*{short}*" if full in guesses else short] = None
        return ", ".join(shown).replace("_", "\\_")

    columns = (("matrix", "stack"), ("embedding",), ("head",), ("router",), ("other", "vector"))
    return "| " + " | ".join([name, *(cell(*kinds) for kinds in columns)]) + " |\n"


def cut_row(name: str) -> str:
    """The second table's line; nothing where each matrix is a weight of its own."""
    found: dict[str, None] = {}
    for group in param_groups(build(name), rule="muon", split="fused"):
        if group["split"] is not None:
            short = {
                anywhere(n).removesuffix(".weight").rpartition(".")[2] for n, _ in group["params"]
            }
            found |= {f"{layer}: {in_words(group['split'])}": None for layer in sorted(short)}
    cell = "; ".join(found).replace("_", "\\_")
    return f"| {name} | {cell} |\n" if found else ""


def in_words(value: Any) -> str:
    """A group's split, for a reader."""
    if isinstance(value, int):
        return f"{value} equal blocks of rows"
    nested = value if isinstance(value[0], tuple) else (value, 0)
    sizes, dim, rounds = (*nested, 1)[:3]
    times = f", {rounds} times in turn" if rounds > 1 else ""
    return f"{' + '.join(map(str, sizes))} {('rows', 'columns')[dim]}{times}"


def page() -> str:
    """The whole page."""
    intro = INTRODUCTION.format(number=len(ARCHITECTURES), version=version("transformers"))
    table = intro + "".join(row(name) for name in ARCHITECTURES)
    return table + FUSED + "".join(cut_row(name) for name in ARCHITECTURES)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
