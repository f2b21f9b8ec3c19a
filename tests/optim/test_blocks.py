"""Several matrices in one weight (``split``) are stepped as separate weights would be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW
from mars_optim.optim.blocks import Split
from tests.support.cases import make_grads, make_params, run, same

# name: shape, split, stacked, and how a weight is cut into separate ones
CUTS: dict[str, tuple[tuple[int, ...], Any, bool, Any]] = {
    "rows": ((40, 16), (24, 8, 8), False, lambda x: x.split((24, 8, 8))),
    "equal rows": ((40, 16), 5, False, lambda x: x.split(8)),
    "columns": ((16, 40), ((24, 8, 8), 1), False, lambda x: x.split((24, 8, 8), 1)),
    "rounds": ((40, 16), ((2, 1, 1), 0, 10), False, lambda x: rounds_of(x)),
    "columns in rounds": (
        (16, 8),
        ((1, 1), 1, 4),
        False,
        lambda x: (x[:, ::2], x[:, 1::2]),
    ),
    "kernels": ((6, 2, 3), (4, 2), False, lambda x: x.split((4, 2))),
    "experts": ((3, 8, 4), 2, True, lambda x: x.split(4, 1)),
    "columns of experts": ((3, 4, 8), ((4, 4), 1), True, lambda x: x.split(4, 2)),
}
OPTIONS: list[dict[str, Any]] = [
    {"clip": 1.0},
    {"clip": 0.1, "cautious": True},
    {"clip": 0.1, "foreach": False},
    {"clip": 0.1, "clip_over": "global"},
    {"clip": None, "weight_decay": 0.1, "maximize": True},
    {"correction": "folded", "ns_steps": 3},
    {"clip": 0.1, "state_dtype": torch.float64},
]


def rounds_of(x: Tensor) -> list[Tensor]:
    """Ten rounds of two rows, one row and one row."""
    parts = x.view(10, 4, -1)
    return [parts[:, :2].flatten(0, 1), parts[:, 2], parts[:, 3]]


def separate(tensors: list[Any], cut: Any) -> list[Tensor]:
    return [part.detach().clone().contiguous() for x in tensors for part in cut(x)]


def whole_and_apart(name: str, dtype: torch.dtype, weights: int = 2, **options: Any) -> Any:
    """Fused weights under one optimizer, and their parts under another."""
    shape, split, stacked, cut = CUTS[name]
    fused = [nn.Parameter(x.to(dtype)) for x in make_grads([torch.empty(shape)] * weights, 7)]
    parts = [nn.Parameter(x) for x in separate(fused, cut)]
    groups = [{"params": fused, "split": split, "stacked": stacked}]
    return (
        (fused, MARS(groups, lr=0.1, gamma=0.1, **options)),
        (parts, MARS([{"params": parts, "stacked": stacked}], lr=0.1, gamma=0.1, **options)),
        cut,
    )


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("rule", "dtype"), [("muon", torch.float32), ("shampoo", torch.float64)], ids=str
)
@pytest.mark.parametrize("weights", [1, 2])  # one alone is in no batch of equal blocks
@pytest.mark.parametrize("name", CUTS)
def test_blocks_step_bit_for_bit_like_separate_weights(
    name: str, weights: int, rule: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    (fused, one), (parts, other), cut = whole_and_apart(name, dtype, weights, rule=rule, **options)
    for step in range(4):
        grads = [g * 0.05 for g in make_grads(fused, step)]
        for params, given in ((fused, grads), (parts, separate(grads, cut))):
            for param, grad in zip(params, given, strict=True):
                param.grad = grad.clone()
        one.step()
        other.step()
        assert same(separate(fused, cut), parts)
        assert same([p.grad for p in fused], grads)  # only read
    for key in other.state[parts[0]].keys() - {"step"}:
        ours = separate([one.state[p][key] for p in fused], cut)
        assert same(ours, [other.state[q][key] for q in parts]), key
    assert [one.state[p]["step"] for p in fused] == [4.0] * weights


def test_without_a_split_a_fused_weight_steps_otherwise() -> None:
    (fused, one), _, _ = whole_and_apart("rows", torch.float64, rule="muon")
    blend = MARS([nn.Parameter(p.detach().clone()) for p in fused], rule="muon", lr=0.1, gamma=0.1)
    run(one, fused)
    run(blend, blend.param_groups[0]["params"])
    assert not same(fused, blend.param_groups[0]["params"])


def test_scale_of_a_block_is_of_its_own_shape() -> None:
    """Orthogonal blocks of 2 x 6 and 4 x 6: 0.2 sqrt(6) and, by columns of 6 x 2, the same."""
    for split, shape in (((2, 4), (6, 6)), (((2, 4), 1), (6, 6))):
        weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        options = dict(gamma=0.0, clip=None, lr=1.0, weight_decay=0.0, betas=(0.0, 0.9))
        optimizer = MARS([{"params": [weight], "split": split}], rule="muon", ns_steps=30,
                         ns_coefficients=(1.875, -1.25, 0.375), **options)  # fmt: skip
        weight.grad = make_grads([weight], 0)[0]
        optimizer.step()
        dim = 0 if split == (2, 4) else 1
        for block in weight.detach().split((2, 4), dim):
            block = block if dim == 0 else block.T
            wanted = (0.2 * 6**0.5) ** 2 * torch.eye(len(block), dtype=torch.float64)
            torch.testing.assert_close(block @ block.T, wanted, rtol=1e-9, atol=1e-9)


def test_split_is_saved_copied_and_resumed() -> None:
    (fused, one), _, _ = whole_and_apart("columns in rounds", torch.float64, rule="muon")
    run(one, fused, range(2))
    twins = copy.deepcopy(fused)
    groups = [{"params": twins, "split": CUTS["columns in rounds"][1]}]
    other = MARS(groups, rule="muon", lr=0.1, gamma=0.1)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.param_groups[0]["split"] == ((1, 1), 1, 4)
    run(one, fused, range(2, 4))
    run(other, twins, range(2, 4))
    assert same(fused, twins)


def test_split_is_the_programs_whatever_a_checkpoint_says() -> None:
    for saved, own in ((None, (24, 8, 8)), (5, (24, 8, 8)), ((24, 8, 8), None)):
        params = make_params([(40, 16)])
        source = MARS([{"params": params, "split": saved}], rule="muon", lr=0.1, gamma=0.1)
        run(source, params, range(2))
        twins = copy.deepcopy(params)
        optimizer = MARS([{"params": twins, "split": own}], rule="muon", lr=0.1, gamma=0.1)
        optimizer.load_state_dict(copy.deepcopy(source.state_dict()))
        assert optimizer.param_groups[0]["split"] == own
        source.param_groups[0]["split"] = own
        assert same(run(source, params, [2]), run(optimizer, twins, [2]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*")
def test_compiled_step_takes_blocks() -> None:
    (fused, one), (parts, other), cut = whole_and_apart("rows", torch.float64, rule="muon")
    step = torch.compile(one.step, backend="eager", fullgraph=True)
    for at in range(2):
        grads = make_grads(fused, at)
        for params, given in ((fused, grads), (parts, separate(grads, cut))):
            for param, grad in zip(params, given, strict=True):
                param.grad = grad
        step()
        other.step()
    for ours, theirs in zip(separate(fused, cut), parts, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


MISFITS: list[tuple[tuple[int, ...], Any, str]] = [
    ((6, 4), (3, 2), r"split=\(3, 2\) .* shape \(6, 4\): it has 6 rows, not 3 \+ 2 = 5\."),
    ((6, 4), ((3, 2), 1), r"it has 4 columns, not 3 \+ 2 = 5"),
    ((6, 4), ((1, 1), 0, 2), r"it has 6 rows, not 2 times 1 \+ 1 = 4"),
    ((6, 4), 4, r"6 rows are not 4 equal blocks"),
    ((6, 4, 2), ((2, 2), 1), r"its columns are kernels.* only the rows"),
    ((6, 4), "qkv", r"split='qkv' does not split"),
    ((6, 4), (), r"split=\(\) does not split"),
    ((6, 4), (3, -3), r"split=\(3, -3\) does not split"),
    ((6, 4), ((3, 3), 2), r"split=\(\(3, 3\), 2\) does not split"),
    ((6, 4), ((3, 3), 0, 1, 1), r"does not split"),
    ((6, 4), True, r"split=True does not split"),
]


@pytest.mark.parametrize(("shape", "split", "message"), MISFITS)
def test_split_that_does_not_fit_is_named_before_the_first_step(
    shape: tuple[int, ...], split: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MARS([{"params": [("h.attn", torch.ones(shape))], "split": split}], rule="muon")
    assert "(64, 16, 16)" in str(caught.value)  # the way out
    if "does not split" not in message:
        assert "h.attn" in str(caught.value)


def test_a_split_edited_in_is_checked_before_anything_moves() -> None:
    weight = nn.Parameter(torch.ones(6, 4))
    optimizer = MARS([weight], rule="muon")
    weight.grad = torch.ones(6, 4)
    optimizer.param_groups[0]["split"] = 4
    with pytest.raises(ValueError, match="6 rows are not 4 equal blocks"):
        optimizer.step()
    assert not optimizer.state
    assert torch.equal(weight.detach(), torch.ones(6, 4))


def test_split_of_a_rule_of_elements_is_refused() -> None:
    with pytest.raises(ValueError, match=r"split=3 belongs to Newton-Schulz, .*rule='adamw'"):
        MARSAdamW([{"params": [torch.ones(6, 4)], "split": 3}])


def test_vectors_of_a_group_with_a_split_have_none() -> None:
    groups = MARS([{"params": [torch.ones(6, 4), torch.ones(6)], "split": 3}], rule="muon")
    assert [group["split"] for group in groups.param_groups] == [3, None]


def test_rows_of_a_block_are_counted_up_to_any_end() -> None:
    for split in (Split((3, 2, 2)), Split((2, 1), 0, 4), Split(3, 0, 2)):
        shape = torch.Size((12 if split.rounds > 1 else 7, 2))
        for block in split.blocks(shape, stacked=False):
            inside = [
                block.start <= row % block.period < block.start + block.size
                for row in range(shape[0])
            ]
            assert [block.before(end) for end in range(shape[0] + 1)] == [
                sum(inside[:end]) for end in range(shape[0] + 1)
            ]
