"""The small GPT is GPT-2's architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mars_optim.tasks import GPT

SIZES = dict(vocabulary=50, context=12, layers=2, width=16, heads=4)


def gpt(**sizes: int) -> GPT:
    torch.manual_seed(0)
    return GPT(**{**SIZES, **sizes})


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("t", range(12))
def test_changing_a_token_changes_no_logit_before_it_and_its_own(tokens: Tensor, t: int):
    model = gpt()
    changed = tokens.clone()
    changed[:, t] = (changed[:, t] + 1) % 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.isclose(before[:, t:], after[:, t:], rtol=0, atol=1e-7).all(-1).any()


def test_the_sequences_of_a_batch_do_not_see_each_other(tokens: Tensor):
    model = gpt()
    together, alone = model(tokens), torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(together, alone)


def test_a_shorter_window_gives_the_same_logits(tokens: Tensor):
    model = gpt()
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5])


def test_the_position_of_a_token_matters():
    same = torch.zeros(1, 12, dtype=torch.long)
    logits = gpt()(same)
    assert not torch.allclose(logits[:, 0], logits[:, 5], atol=1e-4)


def test_the_head_is_the_embedding():
    model = gpt()
    assert model.head.weight is model.wte.weight
    assert [n for n, _ in model.named_parameters() if "wte" in n or "head" in n] == ["wte.weight"]
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    assert model.wte.weight.grad is not None
    assert model.wte.weight.grad[1:].abs().sum() > 0  # through the head: only token 0 went in


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        dict(vocabulary=256, context=64, width=64, heads=2),
        dict(layers=5),
        dict(heads=1),
        dict(heads=16),
        dict(width=24, context=3),
    ],
)
def test_the_number_of_parameters_is_the_formula(sizes: dict[str, Any]):
    s = {**SIZES, **sizes}
    w = s["width"]
    expected = (s["vocabulary"] + s["context"]) * w + s["layers"] * (12 * w * w + 2 * w) + w
    assert sum(p.numel() for p in gpt(**sizes).parameters()) == expected


def test_matrices_start_at_one_over_the_root_of_the_width_and_residual_ones_smaller():
    for name, p in gpt(width=128, layers=3, vocabulary=256, context=64).named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, torch.ones_like(p))
            continue
        residual = "attention.out" in name or "mlp.down" in name
        std = 128**-0.5 / (6**0.5 if residual else 1)
        assert p.std().item() == pytest.approx(std, rel=0.05)
        assert p.mean().item() == pytest.approx(0, abs=std / 10)


def test_attention_is_softmax_of_scaled_products_over_earlier_positions(tokens: Tensor):
    attention = gpt().blocks[0].attention
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    q, k, v = attention.qkv(x).chunk(3, -1)
    heads = []
    for h in range(4):
        part = slice(4 * h, 4 * h + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))
