"""GPT-2 with the tensors of ``shapes.gpt2``: for what an optimizer's step is a share of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GPT2(nn.Module):
    """Pre-norm blocks with biases, causal attention, a tied head."""

    def __init__(
        self, *, layers: int = 12, width: int = 768, context: int = 1024, vocabulary: int = 50304
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def loss(self, tokens: Tensor) -> Tensor:
        """(batch, time + 1) of token ids -> mean cross entropy of the next token."""
        x = self.wte(tokens[:, :-1]) + self.wpe.weight[: tokens.shape[1] - 1]
        logits = F.linear(self.norm(self.blocks(x)), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); heads of 64 where the width allows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        b, t, w = x.shape
        heads = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, w // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, w))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return y


def tokens(*, batch: int, time: int, vocabulary: int) -> Tensor:
    """Random token ids, (batch, time + 1)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (batch, time + 1), generator=generator)
