"""GPT-2: pre-norm blocks, causal scaled-dot-product attention, tied head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...optim.transfer import Ratios

Init = Literal["width", "gpt2"]


class GPT(nn.Module):
    """GPT-2's architecture without dropout.

    Args:
        vocabulary: number of tokens.
        context: longest window.
        layers: blocks.
        width: of the residual stream, a multiple of ``heads``.
        heads: of attention.
        bias: give the linear maps and norms a bias.
        init: "width" for N(0, 1 / width), "gpt2" for N(0, 0.02^2).
        scale_attention_by_layer: divide the attention's logits by the block's number, from 1.
        base_width: of the small model whose learning rates this one is given; 0 for none. Logits
            are multiplied by base_width / width, and embeddings start as in the small one
            (arXiv 2203.03466).
        base_layers: likewise; residual branches are multiplied by base_layers / layers
            (arXiv 2505.01618).

    Its ``transfer`` is what its learning rates are to be multiplied by, or None
    (:mod:`mars_optim.optim.transfer`).
    """

    transfer: Ratios | None = None

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        layers: int,
        width: int,
        heads: int,
        bias: bool = False,
        init: Init = "width",
        scale_attention_by_layer: bool = False,
        base_width: int = 0,
        base_layers: int = 0,
    ):
        super().__init__()
        m = width / base_width if base_width else 1.0
        d = layers / base_layers if base_layers else 1.0
        if base_width or base_layers:
            self.transfer = Ratios(width=m, depth=d)
        self.logit_multiplier = 1.0 / m
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        numbers = [i + 1 if scale_attention_by_layer else 1 for i in range(layers)]
        self.blocks = nn.Sequential(*(Block(width, heads, bias, n, 1.0 / d) for n in numbers))
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight
        base = base_width or width
        std = base**-0.5 if init == "width" else 0.02
        self._initialise(base_layers or layers, std, m**-0.5)

    def _initialise(self, layers: int, std: float, shrink: float) -> None:
        """N(0, std^2), residual projections scaled by a further 1 / sqrt(2 layers); biases 0.

        Matrices are scaled by ``shrink`` too, so that what they give keeps its size.

        GPT-2's 0.02 is for widths near a thousand: at 64, some seeds never learn to attend.
        """
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                std_p = std * shrink if name.startswith("blocks") else std
                nn.init.normal_(p, std=std_p / (2 * layers) ** 0.5 if residual else std_p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) of token ids -> (batch, time, vocabulary) of logits."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        x = self.norm(self.blocks(x))
        if self.logit_multiplier != 1.0:
            x = x * self.logit_multiplier
        logits: Tensor = self.head(x)
        return logits


class Block(nn.Module):
    """x + s attention(norm(x)), then x + s mlp(norm(x)), s the multiplier of the branches."""

    def __init__(
        self, width: int, heads: int, bias: bool = False, divisor: int = 1, branch: float = 1.0
    ):
        super().__init__()
        self.branch = branch
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, bias, divisor)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.mlp = MLP(width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        x = torch.add(x, self.attention(self.norm1(x)), alpha=self.branch)
        return torch.add(x, self.mlp(self.norm2(x)), alpha=self.branch)


class Attention(nn.Module):
    """Causal multi-head self-attention, its logits q k / (sqrt(head width) divisor)."""

    def __init__(self, width: int, heads: int, bias: bool = False, divisor: int = 1):
        super().__init__()
        self.heads = heads
        # None leaves the usual scale to torch
        self.scale = None if divisor == 1 else (width // heads) ** -0.5 / divisor
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        mixed: Tensor = self.out(y.transpose(1, 2).reshape(b, t, w))
        return mixed


class MLP(nn.Module):
    """width -> 4 width -> width with GELU."""

    def __init__(self, width: int, bias: bool = False):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        y: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return y
