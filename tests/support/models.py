"""Small models, one of each kind that ``param_groups`` has to sort."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width, bias=False)


class GPT(nn.Module):
    """Token and position embeddings, blocks, a head that may share the tokens' matrix."""

    def __init__(self, *, tied: bool, width: int = 8, vocabulary: int = 11) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(5, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.pointwise = nn.Conv1d(4, 6, 1)
        self.fc = nn.Linear(6, 10)


class Experts(nn.Module):
    """Four experts in one 3-D parameter, behind a router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, 8, 6))
        self.gain = nn.Parameter(torch.ones(8))


class HuggingFaceLike(nn.Module):
    """Names its output layer by a method, not by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 8, bias=False)
        self.decoder = nn.Linear(8, 11, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder


class Shared(nn.Module):
    """One layer under two names, and one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.again = self.first
        self.query = nn.Parameter(torch.randn(4, 4))
        self.key = self.query


MODELS = {
    "tied GPT": lambda: GPT(tied=True),
    "untied GPT": lambda: GPT(tied=False),
    "ConvNet": ConvNet,
    "experts": Experts,
    "Hugging Face": HuggingFaceLike,
    "shared": Shared,
}


def names_by_kind(groups: list[dict]) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for group in groups:
        kinds.setdefault(group["kind"], set()).update(name for name, _ in group["params"])
    return kinds


def tensors(groups: list[dict]) -> list[Tensor]:
    return [p[1] if isinstance(p, tuple) else p for g in groups for p in g["params"]]
