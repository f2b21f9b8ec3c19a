"""Public architectures, tiny: what :mod:`.architectures` builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
