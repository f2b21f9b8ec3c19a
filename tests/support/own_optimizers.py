"""Optimizers as a user would write them, with state in places that are easy to forget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class Own(Optimizer):
    """Momentum whose groups keep a number and a list, as Prodigy's and AdEMAMix's do."""

    def __init__(
        self, params: Any, lr: float = 0.05, betas: tuple[float, float] = (0.9, 0.9)
    ) -> None:
        if not isinstance(betas, tuple):
            raise TypeError("betas must be a pair")
        super().__init__(params, {"lr": lr, "betas": betas, "d": 1.0, "past": []})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            group["d"] *= 0.97
            group["past"] = [*group["past"][-3:], group["d"]]
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, group)

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if "m" not in state:
            state["m"] = [torch.zeros_like(p)]
        state["m"][0].lerp_(grad, 1 - group["betas"][0])
        p.sub_(state["m"][0], alpha=group["lr"] * sum(group["past"]) / len(group["past"]))


class Average(Own):
    """Judged by the average of its weights; coming back to those that are trained rounds."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group["training"] = False

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        assert group["training"], "a step in evaluation mode"
        super().update(p, grad, group)
        state = self.state[p]
        state["average"] = torch.lerp(state.get("average", p), p, 0.1)

    def train(self) -> None:
        self.switch(training=True)

    def eval(self) -> None:
        self.switch(training=False)

    @torch.no_grad()
    def switch(self, *, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] is training:
                continue
            group["training"] = training
            for p in group["params"]:
                if "average" in self.state[p]:
                    # there: half of the way to the average; back: twice the way from it
                    weight = -1.0 if training else 0.5
                    p.lerp_(self.state[p]["average"], weight)


class Asks(Own):
    """Evaluates the gradient again, at a point beside."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            raise RuntimeError("it needs a closure")
        params = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p in params:
                if p.grad is not None:
                    p.add_(p.grad, alpha=0.01)
        self.loss = closure()
        with torch.no_grad():
            for p, old in zip(params, before, strict=True):
                p.copy_(old)
        super().step()
        return self.loss


class TensorRate(Own):
    """Reads the object that was its rate when it was made, as a compiled step does."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr)
        self.rates = []
        for group in self.param_groups:
            group["lr"] = torch.tensor(lr)
            self.rates.append(group["lr"])

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "lr": float(self.rates[0])})


class NoKernels(Own):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if p.ndim > 2:
            raise ValueError("kernels are not for it")
        super().update(p, grad, group)
