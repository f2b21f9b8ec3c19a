"""A faithful stand-in of nanoGPT: its model's names, configure_optimizers and ckpt.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unsqueeze(1) for y in self.c_attn(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.squeeze(1))  # type: ignore[no-any-return]


class NanoBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class NanoGPT(nn.Module):
    def __init__(self, vocabulary: int = 17, context: int = 8, width: int = 8) -> None:
        super().__init__()
        parts = {
            "wte": nn.Embedding(vocabulary, width),
            "wpe": nn.Embedding(context, width),
            "h": nn.ModuleList([NanoBlock(width) for _ in range(2)]),
            "ln_f": nn.LayerNorm(width),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.transformer["wte"](idx) + self.transformer["wpe"](torch.arange(idx.shape[1]))
        for block in self.transformer["h"]:  # type: ignore[union-attr]
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))  # type: ignore[no-any-return]

    def configure_optimizers(
        self, weight_decay: float, learning_rate: float, betas: Any, make: Any
    ) -> torch.optim.Optimizer:
        param_dict = dict(self.named_parameters())
        param_dict = {pn: p for pn, p in param_dict.items() if p.requires_grad}
        decay_params = [p for n, p in param_dict.items() if p.dim() >= 2]
        nodecay_params = [p for n, p in param_dict.items() if p.dim() < 2]
        optim_groups = [
            {"params": decay_params, "weight_decay": weight_decay},
            {"params": nodecay_params, "weight_decay": 0.0},
        ]
        return make(optim_groups, lr=learning_rate, betas=betas)  # type: ignore[no-any-return]


def nano(make: Any) -> tuple[NanoGPT, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = NanoGPT()
    return model, model.configure_optimizers(0.1, 3e-3, (0.9, 0.95), make)


def train_nano(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randint(17, (4, 9), generator=torch.Generator().manual_seed(step))
        loss = functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def saved_nano(path: Path, make: Any = torch.optim.AdamW) -> None:
    model, optimizer = nano(make)
    train_nano(model, optimizer, range(3))
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": {"n_layer": 2, "n_embd": 8, "block_size": 8, "bias": True},
        "iter_num": 3,
        "best_val_loss": torch.tensor(1e9),
        "config": {"dataset": "shakespeare_char", "learning_rate": 3e-3},
    }
    torch.save(checkpoint, path)
