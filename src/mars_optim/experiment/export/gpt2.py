"""Our GPT as transformers' GPT-2: the same numbers under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from ...errors import UserError
from ..plan.task import GptPlan

_NAMES = {
    "wte": "transformer.wte",
    "wpe": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_NAME = re.compile(r"(?:blocks\.(\d+)\.)?(.+)\.(weight|bias)")


def to_gpt2(
    task: GptPlan, state: Mapping[str, Tensor], *, tokens: int, end_of_text: int
) -> GPT2LMHeadModel:
    """A model of transformers with the logits of :class:`~mars_optim.experiment.tasks.GPT`.

    Args:
        task: of the run; sizes are those of ``state``, of which it tells what they do not.
        state: state dict of the GPT. Biases that it lacks become zeros.
        tokens: that the tokenizer knows; the ids above are padding, and never generated.
        end_of_text: id of the token between documents.

    Returns:
        In evaluation mode, float32, without dropout.

    Raises:
        UserError: if ``state`` is not of the model that ``task`` describes.
    """
    config = _config(task, state, end_of_text)
    if (task.vocabulary or tokens) != config.vocab_size or tokens > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokens:,} tokens and the model {config.vocab_size:,}: give "
            "the tokenizer that the model was trained with"
        )
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and written over
        model: GPT2LMHeadModel = GPT2LMHeadModel(config)
    model.train(False)
    ours = dict(_renamed(name, value * _multiplier(task, name)) for name, value in state.items())
    biases = {k: torch.zeros_like(v) for k, v in model.state_dict().items() if k.endswith("bias")}
    try:
        model.load_state_dict(biases | ours)
    except RuntimeError as error:
        raise UserError(f"the weights are not those of a GPT like the run's: {error}") from None
    model.generation_config = _generation(config, tokens)
    return model


def vocabulary_of(state: Mapping[str, Tensor]) -> int:
    """Tokens that a GPT knows, padding included.

    Raises:
        UserError: if ``state`` is of no GPT.
    """
    missing = {"wte.weight", "wpe.weight"} - state.keys()
    if missing:
        raise UserError(f"the weights are not those of a GPT: {min(missing)} is missing")
    return len(state["wte.weight"])


def _config(task: GptPlan, state: Mapping[str, Tensor], end_of_text: int) -> GPT2Config:
    vocabulary, width = vocabulary_of(state), state["wte.weight"].shape[1]
    context = len(state["wpe.weight"])
    layers = len({m[1] for m in map(_NAME.fullmatch, state) if m and m[1]})
    found = dict(context=context, layers=layers, width=width)
    for key, value in found.items():
        if value != getattr(task, key):
            raise UserError(
                f"the weights belong to another model: task.{key} is {getattr(task, key)} in "
                f"the run's manifest and {value} in its weights"
            )
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=task.heads,
        activation_function="gelu_new",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        scale_attn_by_inverse_layer_idx=task.scale_attention_by_layer,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        dtype="float32",
    )


def _multiplier(task: GptPlan, name: str) -> float:
    """Share of the logits' and branches' multipliers in a weight: GPT-2 has no multipliers."""
    if name.startswith("norm."):
        return task.base_width / task.width if task.base_width else 1.0
    if ".attention.out." in name or ".mlp.down." in name:
        return task.base_layers / task.layers if task.base_layers else 1.0
    return 1.0


def _renamed(name: str, value: Tensor) -> tuple[str, Tensor]:
    """transformers' name and orientation: its ``Conv1D`` keeps (in, out), ours (out, in)."""
    match = _NAME.fullmatch(name)
    theirs = match and _NAMES.get(match[2])
    if not match or not theirs:
        raise UserError(f"the weights are not those of a GPT like ours, which has no {name!r}")
    if match[1] is None:
        return f"{theirs}.{match[3]}", value
    return f"transformer.h.{match[1]}.{theirs}.{match[3]}", value.t() if value.ndim == 2 else value


def _generation(config: GPT2Config, tokens: int) -> GenerationConfig:
    generation = GenerationConfig.from_model_config(config)
    generation.max_length = config.n_positions  # there are no positions after it
    generation.suppress_tokens = list(range(tokens, config.vocab_size)) or None
    return generation
