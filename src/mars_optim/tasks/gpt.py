"""A small GPT: pre-norm blocks, causal scaled-dot-product attention, tied head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GPT(nn.Module):
    """GPT-2's architecture without biases and dropout.

    Args:
        vocabulary: number of tokens.
        context: longest window.
        layers: blocks.
        width: of the residual stream, a multiple of ``heads``.
        heads: of attention.
    """

    def __init__(self, *, vocabulary: int, context: int, layers: int, width: int, heads: int):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight
        self._initialise(layers)

    def _initialise(self, layers: int) -> None:
        """N(0, 1 / width), residual projections scaled by a further 1 / sqrt(2 layers).

        GPT-2's 0.02 is for widths near a thousand: at 64, some seeds never learn to attend.
        """
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                std = self.wte.embedding_dim**-0.5
                nn.init.normal_(p, std=std / (2 * layers) ** 0.5 if residual else std)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) of token ids -> (batch, time, vocabulary) of logits."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: Tensor = self.out(y.transpose(1, 2).reshape(b, t, w))
        return mixed


class MLP(nn.Module):
    """width -> 4 width -> width with GELU."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        y: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return y
