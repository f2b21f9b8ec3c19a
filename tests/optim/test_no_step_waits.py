"""No step waits for the accelerator: meta tensors stand in for it, and each operation is looked at.

A step may compute with tensors on the CPU, and copy them over without waiting. Operations with
tensors of both are found, since most take the one over by a copy that waits; and so are tensors
that are made of Python's numbers on the accelerator. Reading a number raises, as it does on meta.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mars_optim import MARS, release_gradients, variance_reduce
from mars_optim.optim.backends import loop
from mars_optim.optim.telemetry import Telemetry
from tests.optim.test_gamma_on_gpu import FORMS as GAMMA_FORMS

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
    *GAMMA_FORMS,
    {"gamma_schedule": "sqrt_lr", "foreach": True},
]


class Waits(TorchDispatchMode):
    """Operations that would wait for an accelerator, and the line of ours that called them."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

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
        if len(devices) > 1 and not at_once(str(func), args, kwargs):
            self.found.append(f"{func} at {our_line()}")
        return out


def at_once(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether it is a copy that does not wait."""
    if "_to_copy" in name:
        return bool(kwargs.get("non_blocking"))
    return ".copy_" in name and bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))


class MadeThere(TorchFunctionMode):
    """Tensors that are made of numbers on the accelerator, by a copy that waits."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        of_numbers = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if of_numbers and out.device.type == "meta":
            self.found.append(f"{func} at {our_line()}")
        return out


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Everything that waits within, as far as it has come."""
    found: list[str] = []
    with Waits(found), MadeThere(found):
        yield found


def our_line() -> str:
    """The innermost line of the package that is being run."""
    lines = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack()]
    return ([line for line in lines if "mars_optim/optim" in line] or ["the test"])[-1]


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
        with watched() as waits:
            optimizer.step()
        found += waits if step else []
    return found


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_step_waits_for_the_accelerator(form: dict[str, Any], capturable: bool) -> None:
    params, optimizer = accelerator(**form, capturable=capturable)
    assert waits_of(params, optimizer, 24) == []


@pytest.mark.parametrize("form", [{}, {"gamma": "auto"}, {"rule": "muon"}], ids=str)
def test_no_measured_step_waits_for_the_accelerator(
    form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telemetry, "MOST", 4)  # so that readings are added up here
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
        with watched() as waits:
            model(torch.empty(5, 30, device="meta")).sum().backward()
            optimizer.step()
        found += waits if step else []
    assert found == []


def test_what_waits_is_seen() -> None:
    here, there = torch.zeros(()), torch.empty(3, device="meta")
    with watched() as waits:
        here.to("meta", non_blocking=True)
        there.copy_(here, non_blocking=True)
        assert waits == []
        here.to("meta")
        there.copy_(here)
        torch.where(there > 0, there, here)
        torch.tensor(1.0, device="meta")
        torch.as_tensor([1.0], device="meta")
    assert len(waits) == 5
    with pytest.raises(RuntimeError):
        there.sum().item()


def test_the_loop_that_reads_numbers_is_in_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket: Any = SimpleNamespace(
        params=[SimpleNamespace(device=torch.device("cuda"))], shards=None
    )
    for captures in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda c=captures: c)
        assert ("cannot be captured" in (loop.why_not(bucket) or "")) == captures


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
    found: list[str] = []

    def looked_at(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with Waits(found):
                return graph(*args)

        return run

    compiled = torch.compile(optimizer.step, backend=looked_at)
    for _ in range(2):
        compiled()
    assert found == []
