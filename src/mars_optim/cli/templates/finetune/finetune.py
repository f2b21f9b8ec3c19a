"""Fine-tuning for `mars pilot`: a transformers checkpoint by LoRA (`Lora`) or in full (`Full`).

Name your checkpoint and your text below. As it stands a tiny random model learns some of Python's
own sources, byte by byte, so that everything runs at once and offline.
"""

import os
import warnings
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.utils.logging import disable_progress_bar

MODEL = ""  # a folder with a checkpoint, or its name on the Hugging Face hub; "" for the tiny one
TEXT = ""  # a text file in UTF-8; "" for some of Python's own sources
LENGTH, BATCH = 64, 8  # tokens in a window, windows in a batch
RANK = 8  # of LoRA

disable_progress_bar()  # a pilot shows its own


class Full:
    """Trains all weights of the checkpoint; those with requires_grad = False stay as they are."""

    batch_tokens = LENGTH * BATCH

    def __init__(self, model: str = MODEL, text: str = TEXT) -> None:
        self.model = model
        raw = Path(text).read_bytes() if text else python_sources()
        tokens = tokens_of(raw, model)
        cut = len(tokens) * 9 // 10  # the last tenth is held out
        self.train, self.held_out = tokens[:cut], tokens[cut:]
        # other data are other runs; change it with the weights, if their name stays
        self.fingerprint = sha256(model.encode() + raw).hexdigest()

    def build_model(self, seed: int) -> nn.Module:
        """The checkpoint, ready to be trained; what is new in it is drawn from the seed."""
        if self.model:
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        else:
            model = tiny_model()
        model.config.use_cache = False
        torch.manual_seed(seed)
        return self.prepared(model).train()

    def prepared(self, model: nn.Module) -> nn.Module:
        """Freeze here what is not to be trained, such as the embeddings."""
        return model

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        """Windows of the text: (BATCH, LENGTH + 1)."""
        generator = torch.Generator().manual_seed(hash((seed, step, micro)) % 2**63)
        starts = torch.randint(len(self.train) - LENGTH, (BATCH,), generator=generator)
        return torch.stack([self.train[s : s + LENGTH + 1] for s in starts])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean loss of a batch, nats per token."""
        logits = model(input_ids=batch[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """Mean loss over the first windows of the held-out text."""
        device = next(model.parameters()).device
        model.eval()
        windows = self.held_out.unfold(0, LENGTH + 1, LENGTH)[: max(1, tokens // LENGTH)]
        parts = windows.split(4 * BATCH)
        total = sum(self.loss(model, part.to(device)).item() * len(part) for part in parts)
        model.train()
        return total / len(windows)


class Lora(Full):
    """Trains LoRA's matrices beside every linear layer; the checkpoint itself is frozen."""

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model with its trained parameters: see peft's LoraConfig."""
        from peft import LoraConfig, get_peft_model  # pip install 'mars-optim[finetune]'

        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        with warnings.catch_warnings():  # peft asks transformers by names that it will give up
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(model, config)


def tiny_model() -> nn.Module:
    """A random Llama over bytes, the same each time; its head is tied to its embeddings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def tokens_of(raw: bytes, model: str) -> Tensor:
    """By the checkpoint's tokenizer; bytes where it has none."""
    if not model or (Path(model).is_dir() and not any(Path(model).glob("tokenizer*"))):
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8).long()
    tokenizer = AutoTokenizer.from_pretrained(model)
    return torch.tensor(tokenizer(raw.decode("utf-8"), add_special_tokens=False)["input_ids"])


def python_sources() -> bytes:
    """Half a megabyte of the standard library."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return b"".join(file.read_bytes() for file in files)[: 2**19]
