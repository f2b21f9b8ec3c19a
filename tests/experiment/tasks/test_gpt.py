"""The small GPT is GPT-2's architecture."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.experiment.tasks import GPT

SIZES = dict(vocabulary=50, context=12, layers=2, width=16, heads=4)


def gpt(**sizes: Any) -> GPT:
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


def test_weights_start_at_inverse_root_width_smaller_if_residual():
    for name, p in gpt(width=128, layers=3, vocabulary=256, context=64).named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, torch.ones_like(p))
            continue
        residual = "attention.out" in name or "mlp.down" in name
        std = 128**-0.5 / (6**0.5 if residual else 1)
        assert p.std().item() == pytest.approx(std, rel=0.05)
        assert p.mean().item() == pytest.approx(0, abs=std / 10)


def test_attention_is_causal_softmax_of_scaled_products(tokens: Tensor):
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


@pytest.mark.parametrize(
    ("layers", "heads", "width", "parameters"),
    [  # published as 124 M, 354 M (or 355 M), 773 M (774 M) and 1.56 B
        (12, 12, 768, 124_373_760),
        (24, 16, 1024, 354_599_936),
        (36, 20, 1280, 773_582_080),
        (48, 25, 1600, 1_556_840_000),
    ],
)
def test_published_gpt2_sizes_have_their_parameter_counts(
    layers: int, heads: int, width: int, parameters: int
):
    with torch.device("meta"):
        model = GPT(vocabulary=50304, context=1024, layers=layers, heads=heads, width=width)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_biases_start_at_0_in_every_norm_and_linear_but_the_head():
    model = gpt(bias=True)
    biases = {name: p for name, p in model.named_parameters() if name.endswith("bias")}
    modules = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.LayerNorm)]
    assert biases.keys() == {f"{name}.bias" for name in modules if name != "head"}
    assert not any(p.any() for p in biases.values())


def test_gpt2_initial_deviation_is_0_02_and_smaller_if_residual():
    sizes = dict(vocabulary=500, layers=3, width=128, init="gpt2")
    for name, p in gpt(**sizes).named_parameters():
        if p.ndim == 2:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            expected = 0.02 / 6**0.5 if residual else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.1), name


def test_attention_logits_are_divided_by_their_block_number():
    model = gpt(layers=3, scale_attention_by_layer=True)
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(1))
    for number, block in enumerate(model.blocks, start=1):
        attention = block.attention
        q, k, v = attention.qkv(x).view(2, 12, 3, 4, 4).permute(2, 0, 3, 1, 4)
        logits = (q @ k.mT / (2.0 * number)).masked_fill(torch.ones(12, 12).triu(1) > 0, -1e9)
        expected = attention.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(2, 12, 16))
        torch.testing.assert_close(attention(x), expected)


def test_the_default_model_is_bit_by_bit_what_it_has_always_been():
    digest = sha256()
    for p in gpt().state_dict().values():
        digest.update(p.numpy().tobytes())
    assert digest.hexdigest() == "35f1c142bdc81fb72320d031608a8467985f1cc40398030ce6133a0315b3a4c7"


def test_a_base_of_its_own_size_changes_no_bit(tokens: Tensor):
    plain, based = gpt(), gpt(base_width=16, base_layers=2)
    assert torch.equal(plain(tokens), based(tokens))
    assert plain.transfer is None
    assert based.transfer is not None
    assert (based.transfer.width, based.transfer.depth) == (1.0, 1.0)


def test_a_base_keeps_embeddings_and_shrinks_matrices():
    wide = gpt(width=256, layers=4, base_width=16, base_layers=2)
    assert wide.wte.weight.std().item() == pytest.approx(16**-0.5, rel=0.05)
    up = wide.blocks[0].mlp.up.weight
    assert up.std().item() == pytest.approx(256**-0.5, rel=0.05)
    down = wide.blocks[3].mlp.down.weight
    assert down.std().item() == pytest.approx(256**-0.5 / (2 * 2) ** 0.5, rel=0.05)


def test_a_base_multiplies_logits_and_branches(tokens: Tensor):
    based = gpt(width=32, layers=4, base_width=16, base_layers=2)
    plain = gpt(width=32, layers=4)
    plain.load_state_dict(based.state_dict())
    with torch.no_grad():
        for block in plain.blocks:
            block.attention.out.weight.mul_(0.5)
            block.mlp.down.weight.mul_(0.5)
        plain.norm.weight.mul_(0.5)
    torch.testing.assert_close(based(tokens), plain(tokens))
