"""``cautious`` and a clip over all tensors, of any optimizer by ``variance_reduce``."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from mars_optim import MARSAdamW, variance_reduce
from tests.support.cases import copies, make_grads, make_params, run, same


def adamw(params: list[nn.Parameter], **options: Any) -> torch.optim.AdamW:
    vectors = [p for p in params if p.ndim < 2]
    matrices = [p for p in params if p.ndim > 1]
    groups = [
        {"params": matrices, "betas": (0.95, 0.99)},
        {"params": vectors, "betas": (0.9, 0.95)},
    ]
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, **options)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"cautious": True},
        {"clip_over": "global", "clip": 0.5},
        {"cautious": True, "clip_over": "global", "clip": 0.5},
        {"cautious": True, "clip": None},
    ],
    ids=str,
)
def test_with_adamw_they_equal_marsadamw(
    options: dict[str, Any], maximize: bool, fused: bool
) -> None:
    ours, theirs = make_params(), make_params()
    mars = MARSAdamW(ours, lr=0.01, weight_decay=0.1, gamma=0.3, maximize=maximize, **options)
    wrapped = adamw(theirs, maximize=maximize, fused=fused)
    variance_reduce(wrapped, gamma=0.3, **options)
    run(mars, ours, range(6))
    run(wrapped, theirs, range(6))
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


OTHERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01, decoupled_weight_decay=True, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon([x for x in p if x.ndim == 2], lr=0.01, weight_decay=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_cautious_step_keeps_what_goes_against_the_gradient(name: str) -> None:
    """From the same point, state and gradient, masked and not."""
    params = make_params()
    optimizer: Optimizer = OTHERS[name](params)
    variance_reduce(optimizer, gamma=0.3, beta1=0.9, cautious=True)
    run(optimizer, params, range(3))
    twins, twin = copy.deepcopy((params, optimizer))
    twin.defaults.reduction.cautious = False  # the same without its mask
    start = copies(params)
    run(optimizer, params, [3])
    run(twin, twins, [3])
    lr, decay = optimizer.param_groups[0]["lr"], 0.0 if name == "sgd" else 0.1
    for x, y, before, g in zip(params, twins, start, make_grads(params, 3), strict=True):
        if name == "muon" and x.ndim != 2:
            continue
        kept = before * (1 - lr * decay)
        step = y.detach() - kept
        mask = (step * g < 0).double()
        wanted = kept + step * mask / mask.mean().clamp(min=1e-3)
        torch.testing.assert_close(x.detach(), wanted, rtol=1e-9, atol=1e-12)


def test_uncorrected_step_along_the_gradient_is_left_whole() -> None:
    ours, theirs = make_params(), make_params()
    sgd = torch.optim.SGD(ours, lr=0.01)
    variance_reduce(sgd, gamma=0.0, clip=None, beta1=0.0, cautious=True)
    run(sgd, ours)
    run(torch.optim.SGD(theirs, lr=0.01), theirs)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def test_clip_over_all_has_one_norm_for_tensors_of_all_groups() -> None:
    params = make_params([(5, 3), (4, 4)])
    groups = [{"params": [p]} for p in params]
    sgd = torch.optim.SGD(groups, lr=1.0)
    variance_reduce(sgd, gamma=0.0, clip=0.5, clip_over="global", beta1=0.0)
    start, grads = copies(params), make_grads(params, 1)
    run(sgd, params, [1])
    norm = torch.cat([g.flatten() for g in grads]).norm()
    assert norm > 0.5
    for before, p, g in zip(start, params, grads, strict=True):
        torch.testing.assert_close(before - p.detach(), g * (0.5 / norm), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_as_cautious(way: Any) -> None:
    params = make_params()
    optimizer = adamw(params)
    variance_reduce(optimizer, gamma=0.3, cautious=True, clip_over="global")
    run(optimizer, params, range(2))
    twins, twin = way((params, optimizer))
    assert same(run(optimizer, params, range(2, 5)), run(twin, twins, range(2, 5)))


def test_a_failed_step_is_not_masked_afterwards() -> None:
    params = make_params()
    optimizer = adamw(params)
    variance_reduce(optimizer, gamma=0.3, cautious=True)
    run(optimizer, params, range(2))

    def broken(*_: Any) -> None:
        raise RuntimeError("no step")

    hook = optimizer.register_step_pre_hook(broken)  # after ours, which has copied the parameters
    with pytest.raises(RuntimeError, match="no step"):
        run(optimizer, params, [2])
    hook.remove()
    with torch.no_grad():
        for param in params:
            param.add_(1.0)  # by hand: no part of any step
    moved = copies(params)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert same(run(optimizer, params, [3]), moved)


class Mixed(torch.optim.SGD):
    """As schedule-free optimizers are: parameters are a mixture of other points."""

    def train(self) -> None: ...

    def eval(self) -> None: ...


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (Mixed, {"cautious": True}, r"Mixed mixes its parameters from points of its own"),
    (torch.optim.SGD, {"clip_over": "all"}, r"clip_over='all' must be one of 'tensor', 'global'"),
    (torch.optim.SGD, {"cautious": 1}, r"cautious=1 must be True or False"),
    (torch.optim.SGD, {"gamma": "atuo"}, r"gamma='atuo' must be 'auto' or a number"),
    (torch.optim.SGD, {"clip": "x"}, r"clip='x' must be 'auto' or a number above 0"),
]


@pytest.mark.parametrize(("cls", "options", "message"), REFUSED)
def test_meaningless_options_leave_the_optimizer_alone(
    cls: Any, options: dict[str, Any], message: str
) -> None:
    optimizer = cls(make_params(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        variance_reduce(optimizer, **options)
    assert not optimizer._optimizer_step_pre_hooks
    assert "mars_gamma" not in optimizer.param_groups[0]


def test_flat_pieces_are_not_masked() -> None:
    piece: Tensor = nn.Parameter(torch.ones(8))
    piece._is_flat_param = True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"cautious=True takes the mean over a whole tensor.*Fals"):
        variance_reduce(
            torch.optim.SGD([piece], lr=0.1, momentum=0.9),
            optimize_1d=True,
            clip=None,
            cautious=True,
        )
