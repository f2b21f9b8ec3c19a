"""A tiny problem on which any optimizer is tried: quadratics of known curvature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ..any_optimizer import AnyOptimizer
from ..ranks import seed_all

SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (64, 64),  # 8-bit states begin at 4096 elements
    "wide": (4, 6),
    "vector": (6,),
    "scalar": (),
    "kernel": (4, 3, 3, 3),
}
KINDS = {"matrix": "matrix", "wide": "matrix", "kernel": "matrix"}
"""Kinds of parameters, as :func:`~mars_optim.param_groups` names them; all others are vectors."""


class Trial:
    """Parameters in a quadratic bowl, and the optimizer on them.

    Args:
        chosen: what is tried.
        shapes: names out of SHAPES.
        lr: in place of the optimizer's own.
        dtype: of the parameters.
        closure: whether each step is handed one.
        keys: of a parameter's own group, by name.
        options: changes of the optimizer's.
        turned: whether matrices lie in memory column by column.
        create_graph: whether gradients keep their graph, for second derivatives.
    """

    def __init__(
        self,
        chosen: AnyOptimizer,
        shapes: Sequence[str],
        *,
        lr: float | None = None,
        dtype: torch.dtype = torch.float32,
        closure: bool = False,
        keys: Mapping[str, Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        turned: bool = False,
        create_graph: bool = False,
    ) -> None:
        self.closure, self.create_graph = closure, create_graph
        self.targets = {name: _drawn(name, 1).to(dtype) for name in shapes}
        self.curvature = {name: (0.5 + _drawn(name, 2).abs()).to(dtype) for name in shapes}
        self.params: dict[str, nn.Parameter] = {
            name: nn.Parameter(_turned(_drawn(name, 3).to(dtype), turned)) for name in shapes
        }
        self.silent: set[str] = set()  # these get no gradient
        self.zero: set[str] = set()  # these get a gradient of zeros
        self.memory: dict[str, Tensor] = {}  # where gradients are written, if anywhere
        self.at = 0
        seed_all(0)
        groups = _groups(chosen, self.params, keys or {})
        self.optimizer: Optimizer = chosen.on(groups, lr, **(options or {}))
        switch_mode(self.optimizer, training=True)

    def loss(self) -> Tensor:
        """Loss of the parameters as they are, 0-d."""
        total = torch.zeros(())
        for name, p in self.params.items():
            if name not in self.silent:
                bowl = 0.5 * self.curvature[name] * (p - self.targets[name]).square()
                total = total + (0.0 if name in self.zero else 1.0) * bowl.sum()
        return total

    def gradient(self) -> Any:
        """Make the gradient anew, by its formula; the loss where a closure has to return it."""
        for p in self.params.values():
            p.grad = None
        if self.create_graph:
            with torch.enable_grad():
                torch.autograd.backward(self.loss(), create_graph=True)
            return None
        with torch.no_grad():
            for name, p in self.params.items():
                if name not in self.silent:
                    grad = self.curvature[name] * (p - self.targets[name])
                    grad = torch.zeros_like(p) if name in self.zero else grad
                    p.grad = self.memory[name].copy_(grad) if self.memory else grad
            return self.loss() if self.closure else torch.zeros(())

    def step(self, count: int = 1) -> Trial:
        """Take steps as the training loop does: it seeds before each."""
        for _ in range(count):
            seed_all(0, self.at)
            self.gradient()
            self.update()
            self.at += 1
        return self

    def update(self) -> None:
        """One step on the gradient that is there."""
        if self.closure:
            self.optimizer.step(self.gradient)
        else:
            self.optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters."""
        return {name: p.detach().clone() for name, p in self.params.items()}

    def scale_lr(self, factor: float) -> None:
        """Multiply the groups' learning rates, as a schedule does."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * factor


def needs_closure(chosen: AnyOptimizer) -> bool:
    """Whether a step has to be handed a function that evaluates loss and gradient again.

    Its signature tells, or a step without one fails where a step with one does not.
    """
    parameters = inspect.signature(Trial(chosen, ["matrix"]).optimizer.step).parameters
    if "closure" not in parameters:
        return False
    if parameters["closure"].default is inspect.Parameter.empty:
        return True
    return not works(chosen) and works(chosen, closure=True)


def works(
    chosen: AnyOptimizer,
    shape: str = "matrix",
    *,
    closure: bool = False,
    create_graph: bool = False,
) -> bool:
    """Whether two steps on a tensor of this shape do not fail."""
    try:
        Trial(chosen, [shape], closure=closure, create_graph=create_graph).step(2)
    except Exception:
        return False
    return True


def switch_mode(optimizer: Optimizer, *, training: bool) -> None:
    """Call ``train()`` or ``eval()`` where the optimizer has them, as schedule-free ones do."""
    switch = getattr(optimizer, "train" if training else "eval", None)
    if callable(switch):
        switch()


def has_modes(optimizer: Optimizer) -> bool:
    """Whether the weights to be judged are others than those that are trained."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def _groups(
    chosen: AnyOptimizer, params: Mapping[str, Tensor], keys: Mapping[str, Mapping[str, Any]]
) -> Sequence[Any]:
    if not (keys or chosen.group_options):
        return list(params.values())
    of_kind = chosen.group_options
    return [
        {"params": [p], **keys.get(name, {}), **of_kind.get(KINDS.get(name, "vector"), {})}
        for name, p in params.items()
    ]


def _drawn(name: str, seed: int) -> Tensor:
    """Random numbers, the same for each name and seed whatever else is drawn."""
    generator = torch.Generator().manual_seed(100 * list(SHAPES).index(name) + seed)
    return torch.randn(SHAPES[name], generator=generator)


def _turned(matrix: Tensor, turned: bool) -> Tensor:
    """The same values, in the other order in memory."""
    return matrix.T.contiguous().T if turned else matrix
