"""No step waits for the accelerator: meta tensors stand in for it, and each operation is looked at.

What a step may do with a tensor on the CPU: compute with it there, or copy it over without waiting.
An operation with tensors of both takes the one over by a copy that waits, where it takes it at all.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mars_optim import MARS, release_gradients, variance_reduce

FORMS: list[dict[str, Any]] = [
    {},
    {"foreach": True},
    {"rule": "lion"},
    {"rule": "muon"},
    {"rule": "shampoo"},
    {"cautious": True},
    {"clip_over": "global"},
    {"amsgrad": True},
    {"correction": "folded", "gamma": 0.1},
    {"gamma": "auto"},
    {"gamma": "auto", "foreach": True},
    {"gamma": "auto", "rule": "lion"},
    {"gamma": "auto", "rule": "muon"},
    {"gamma_schedule": "least_error"},
    {"gamma_schedule": "lr"},
    {"gamma_schedule": "sqrt_lr", "foreach": True},
]
READS = ("_local_scalar_dense", "nonzero", "masked_select")


class Waits(TorchDispatchMode):
    """Operations that would wait for an accelerator, and the line of ours that called them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [x for x in pytree.tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        devices = {x.device.type for x in tensors}
        if self.waits(str(func), devices, args, kwargs):
            lines = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack()]
            ours = [line for line in lines if "mars_optim/optim" in line]
            self.found.append(f"{func} at {ours[-1] if ours else 'the test'}")
        return out

    @staticmethod
    def waits(name: str, devices: set[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        if any(read in name for read in READS):
            return "meta" in devices
        if len(devices) < 2:
            return False
        copies = "_to_copy" in name or "copy_" in name
        at_once = kwargs.get("non_blocking") or (".copy_" in name and len(args) > 2 and args[2])
        return not (copies and at_once)


def accelerator(**options: Any) -> tuple[list[torch.nn.Parameter], MARS]:
    shapes = (300, 70), (64, 9), (64, 9), (17,)
    params = [torch.nn.Parameter(torch.empty(s, device="meta")) for s in shapes]
    return params, MARS(params, **{"lr": torch.tensor(1e-3, device="meta"), **options})


def waits_of(
    params: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: int
) -> list[str]:
    """Operations that wait in these steps, the first apart, which makes state."""
    found: list[str] = []
    for step in range(steps):
        for param in params:
            param.grad = torch.empty_like(param)
        if step % 7 == 3:
            params[1].grad = None
        with Waits() as spy:
            optimizer.step()
        found += spy.found if step else []
    return found


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_step_waits_for_the_accelerator(form: dict[str, Any], capturable: bool) -> None:
    params, optimizer = accelerator(**form, capturable=capturable)
    assert waits_of(params, optimizer, 24) == []


@pytest.mark.parametrize("form", [{}, {"gamma": "auto"}, {"rule": "muon"}], ids=str)
def test_no_measured_step_waits_for_the_accelerator(form: dict[str, Any]) -> None:
    params, optimizer = accelerator(**form)
    optimizer.measure(2)
    assert waits_of(params, optimizer, 24) == []


@pytest.mark.parametrize("form", [{}, {"gamma": "auto"}], ids=str)
def test_no_wrapped_step_waits_for_the_accelerator(form: dict[str, Any]) -> None:
    params = [torch.nn.Parameter(torch.empty(s, device="meta")) for s in ((64, 9), (30, 7))]
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    variance_reduce(optimizer, **form)
    assert waits_of(params, optimizer, 24) == []


@pytest.mark.parametrize("form", [{}, {"gamma": "auto"}], ids=str)
def test_no_released_step_waits_for_the_accelerator(form: dict[str, Any]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 7)).to("meta")
    optimizer = MARS(model.parameters(), **form)
    release_gradients(optimizer)
    found: list[str] = []
    for step in range(24):
        with Waits() as spy:
            model(torch.empty(5, 30, device="meta")).sum().backward()
            optimizer.step()
        found += spy.found if step else []
    assert found == []


def test_what_waits_is_seen() -> None:
    here, there = torch.zeros(()), torch.empty(3, device="meta")
    with Waits() as spy:
        here.to("meta", non_blocking=True)
        assert spy.found == []
        here.to("meta")
        there.copy_(here)
        torch.where(there > 0, there, here)
        with pytest.raises((RuntimeError, NotImplementedError)):
            there.sum().item()
    assert len(spy.found) >= 3


def test_the_loop_that_reads_numbers_cannot_be_captured() -> None:
    params, optimizer = accelerator(foreach=False, capturable=True)
    params[0].grad = torch.empty_like(params[0])
    with pytest.raises(ValueError, match=r"foreach=False cannot be captured.*leave foreach=None"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*")
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize(
    "form",
    [{"gamma": "auto"}, {"gamma": "auto", "rule": "muon"}, {"gamma_schedule": "least_error"}],
    ids=str,
)
def test_a_step_that_chooses_gamma_compiles(form: dict[str, Any], capturable: bool) -> None:
    torch._dynamo.reset()
    params, optimizer = accelerator(**form, lr=1e-3, capturable=capturable)
    for param in params:
        param.grad = torch.empty_like(param)
    optimizer.step()
    compiled = torch.compile(optimizer.step, backend="eager")
    for _ in range(2):
        compiled()
