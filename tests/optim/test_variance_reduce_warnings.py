"""Where variance_reduce would do nothing, or no right thing, it says so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSAdamW, variance_reduce
from mars_optim.optim.tools.wrap import VarianceReduction


def vectors(*sizes: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(n)) for n in sizes]


def test_optimizer_of_vectors_alone_is_refused_with_advice() -> None:
    sgd = torch.optim.SGD(vectors(30, 4), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"SGD has no tensor of two .*optimize_1d=True .*gamma=0"):
        variance_reduce(sgd)
    assert VarianceReduction.of(sgd) is None
    assert not sgd._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    "asked", [{"gamma": 0.0}, {"optimize_1d": True}, {"optimize_1d": True, "clip": None}]
)
def test_what_was_asked_for_is_done_to_vectors_alone(asked: dict[str, Any]) -> None:
    (p,) = vectors(30)
    sgd = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    variance_reduce(sgd, **asked)
    for _ in range(2):
        p.grad = torch.randn_like(p)
        sgd.step()


def test_step_with_nothing_to_correct_warns_once_beforehand() -> None:
    frozen, bias = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3))
    sgd = torch.optim.SGD([frozen, bias], lr=0.1, momentum=0.9)
    variance_reduce(sgd)
    before, bias.grad = bias.detach().clone(), torch.ones(3)
    with pytest.warns(UserWarning, match="SGD: variance_reduce corrects no gradient of this step"):
        sgd.step()
    assert not torch.equal(bias, before)
    sgd.step()


def test_vectors_stepped_now_and_then_give_no_warning() -> None:
    weight, bias = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3))
    sgd = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9)
    variance_reduce(sgd)
    weight.grad = torch.ones(3, 3)
    sgd.step()
    weight.grad, bias.grad = None, torch.ones(3)
    sgd.step()


def flattened_later(sgd: torch.optim.Optimizer) -> nn.Parameter:
    """As DeepSpeed does: half of all tensors, in one piece."""
    (group,) = sgd.param_groups
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]).chunk(2)[0])
    flat.grad = torch.randn_like(flat)
    group["params"] = [flat]
    return flat


@pytest.mark.parametrize("copied", [False, True])
def test_swapped_in_flat_pieces_are_refused_before_a_step(copied: bool) -> None:
    weight, bias = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6))
    for options, words in (({}, "corrects no 1-D tensor"), ({"optimize_1d": True}, "clip=1 needs")):
        sgd = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9)
        variance_reduce(sgd, **options)
        sgd = copy.deepcopy(sgd) if copied else sgd
        flat = flattened_later(sgd)
        before = flat.detach().clone()
        with pytest.raises(
            ValueError, match=f"DeepSpeed ZeRO.*{words}.*optimize_1d=True, clip=None"
        ):
            sgd.step()
        assert torch.equal(flat, before)


def test_swapped_in_flat_pieces_are_corrected_if_asked_for() -> None:
    weight = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    variance_reduce(sgd, gamma=0.1, optimize_1d=True, clip=None)
    flat = flattened_later(sgd)
    whole = nn.Parameter(weight.detach().clone())
    one = torch.optim.SGD([whole], lr=0.1, momentum=0.9)
    variance_reduce(one, gamma=0.1, clip=None)
    for _ in range(4):
        whole.grad = torch.randn_like(whole)
        flat.grad = whole.grad.flatten()[:15].clone()
        one.step()
        sgd.step()
    torch.testing.assert_close(flat, whole.flatten()[:15], rtol=1e-12, atol=0)


class Outside(torch.optim.Optimizer):
    """Steps the optimizer inside it, which has the state."""

    def __init__(self, inside: torch.optim.Optimizer) -> None:
        super().__init__(inside.param_groups, inside.defaults)
        self.inside = inside

    def step(self, closure: Any = None) -> None:
        self.inside.step(closure)


def test_wrapper_that_keeps_no_state_is_refused_at_second_step() -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    outside = Outside(torch.optim.SGD([weight], lr=0.1, momentum=0.9))
    variance_reduce(outside)
    weight.grad = torch.randn(3, 3)
    outside.step()
    before = weight.detach().clone()
    with pytest.raises(
        RuntimeError, match=r"Outside keeps no state for the parameters .*call variance_red"
    ):
        outside.step()
    assert torch.equal(weight, before)


def test_a_mars_that_corrects_is_not_corrected_twice() -> None:
    params = [nn.Parameter(torch.randn(3, 3))]
    with pytest.raises(ValueError, match=r"MARSAdamW corrects its gradients itself.*gamma=0"):
        variance_reduce(MARSAdamW(params))
    variance_reduce(MARSAdamW(params), gamma=0.0, clip=0.5)
    variance_reduce(MARSAdamW(params, gamma=0.0))


OTHERS = [torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Rprop, torch.optim.ASGD]


@pytest.mark.parametrize("kind", [*OTHERS, torch.optim.Adafactor])
def test_cautious_alone_needs_no_first_moment(kind: Any) -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    optimizer = kind([weight])
    variance_reduce(optimizer, gamma=0.0, clip=None, cautious=True)
    weight.grad = torch.randn(3, 3)
    optimizer.step()
    optimizer.param_groups[0]["mars_gamma"] = 0.1
    with pytest.raises(ValueError, match="give variance_reduce"):
        optimizer.step()


def test_a_wrapped_optimizer_follows_a_model_that_is_cast() -> None:
    model = nn.Linear(3, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    variance_reduce(sgd)
    for dtype in (torch.float32, torch.float64, torch.float64):
        model.to(dtype)
        model.zero_grad()
        model(torch.ones(2, 3, dtype=dtype)).sum().backward()
        sgd.step()
    assert {s["mars_last_grad"].dtype for s in sgd.state.values() if len(s) > 1} == {torch.float64}


def test_vectors_without_momentum_do_not_forbid_auto() -> None:
    groups = [
        {"params": [nn.Parameter(torch.randn(3, 3))], "momentum": 0.9},
        {"params": vectors(4), "momentum": 0.0},
    ]
    variance_reduce(torch.optim.SGD(groups, lr=0.1), gamma="auto")
    with pytest.raises(ValueError, match="momentum above 0"):
        variance_reduce(torch.optim.SGD(groups, lr=0.1), gamma="auto", optimize_1d=True)


def test_auto_has_nothing_for_a_clip_over_all_tensors() -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for make in (
        lambda: variance_reduce(sgd, gamma="auto", clip_over="global"),
        lambda: MARSAdamW([weight], gamma="auto", clip_over="global"),
    ):
        with pytest.raises(ValueError, match=r"clip_over='global' has nothing to clip by"):
            make()


def test_a_groups_own_clip_is_enough_for_a_clip_over_all() -> None:
    first, second = (nn.Parameter(torch.randn(3, 3)) for _ in range(2))
    own = {"gamma": 0.025, "gamma_schedule": "constant", "correction": "approx", "clip": 1.0}
    groups: list[dict[str, Any]] = [{"params": [first], **own}, {"params": [second]}]
    assert MARS(groups, gamma="auto", clip_over="global").param_groups
