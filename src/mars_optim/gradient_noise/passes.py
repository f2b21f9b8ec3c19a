"""Gradients at given parameters and batches, of which no trace stays."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..optim.groups.names import tensors_of
from ..optim.two_gradient import buffers_of, copy_all
from .dots import widened

LossFunction = Callable[[nn.Module, Any], Tensor]
Group = Mapping[str, Any]


class Trail:
    """The parameters of a run's last steps, newest last: where its last gradients were taken.

    Args:
        params: of the model that is trained.
        length: how many points to keep; memory is as many copies of the parameters.
    """

    def __init__(self, params: Iterable[Tensor], length: int) -> None:
        self.params = list(params)
        self.points: deque[list[Tensor]] = deque(maxlen=length)

    def record(self) -> None:
        """Keep the parameters as they are now. Call it before every optimizer step."""
        self.points.append([p.detach().clone() for p in self.params])


class Passes:
    """Gradients of one model; use it inside :func:`untouched`.

    Args:
        model: in the mode (train or eval) in which it is to be measured.
        loss_fn: (model, batch) -> mean loss, 0-d.
        params: for which gradients are wanted.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction, params: Sequence[Tensor]) -> None:
        self.model, self.loss_fn, self.params = model, loss_fn, list(params)

    def gradient(self, batch: Any, seed: int) -> list[Tensor]:
        """Gradient of the loss of ``batch``; equal seeds draw equal random numbers (dropout).

        It is 0 for frozen parameters, as for those that the loss does not use. In float32 at least;
        a complex one is real with a last dimension of 2.

        Raises:
            ValueError: if all are frozen, or the gradient is not finite.
        """
        torch.manual_seed(seed)
        trained = [p for p in self.params if p.requires_grad]
        if not trained:
            raise ValueError("groups hold no parameter with requires_grad=True: there is no noise")
        with torch.enable_grad():
            loss = self.loss_fn(self.model, batch)
        found = iter(torch.autograd.grad(loss, trained, allow_unused=True))
        grads = [next(found) if p.requires_grad else None for p in self.params]
        pairs = zip(grads, self.params, strict=True)
        wide = [widened(torch.zeros_like(p) if g is None else g) for g, p in pairs]
        if not all(bool(torch.isfinite(g).all()) for g in wide):
            raise ValueError(
                f"the gradient of a batch (loss {loss.item():g}) is not finite, so there is no "
                "noise to measure: leave such batches out, or measure in float32"
            )
        return wide

    def go_to(self, point: Sequence[Tensor]) -> None:
        """Set the parameters."""
        copy_all(self.params, list(point))


@contextlib.contextmanager
def untouched(model: nn.Module, params: Sequence[Tensor]) -> Iterator[None]:
    """On the way out, after an exception too, all is as it was, bit for bit.

    All: parameters, their ``grad``, buffers, and the random states of the CPU and of the
    parameters' devices.
    """
    devices = sorted({p.device.index for p in params if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), buffers_of(model):
        here = [p.detach().clone() for p in params]
        try:
            yield
        finally:
            copy_all(list(params), here)


def checked_groups(groups: Iterable[Group]) -> list[Group]:
    """The groups, each with a list of its parameters.

    Raises:
        TypeError: for groups that are no dicts with ``params``.
        ValueError: for a parameter that is listed twice.
    """
    found: list[Group] = []
    for group in groups:
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(
                f"groups must be dicts with 'params', as optimizer.param_groups are, not "
                f"{type(group).__name__}: give mars_optim.param_groups(model)"
            )
        params = group["params"]
        found.append({**group, "params": [params] if isinstance(params, Tensor) else list(params)})
    tensors = [id(t) for group in found for t in tensors_of(group)]
    if len(set(tensors)) < len(tensors):
        raise ValueError(
            "groups list a parameter twice, so it would count twice: give each parameter once"
        )
    return found


def indices_of(groups: Sequence[Group]) -> list[list[int]]:
    """The numbers of each group's parameters in the list of all."""
    ends = [0, *accumulate(len(tensors_of(group)) for group in groups)]
    return [list(range(start, end)) for start, end in pairwise(ends)]
