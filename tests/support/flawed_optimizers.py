"""A faithful optimizer, and one for each flaw that a contract check has to find."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class Faithful(Optimizer):
    """Momentum with decoupled weight decay, in the two lines of its formula."""

    def __init__(self, params: Any, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, group)
        return loss

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if "m" not in state:
            state["m"] = torch.zeros_like(p)
        state["m"].mul_(0.9).add_(grad, alpha=0.1)
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(state["m"], alpha=group["lr"])


class WritesGradient(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        grad.mul_(0.5)
        super().update(p, grad, group)


class ClearsGradient(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, group)
        p.grad = None


class KeepsGradient(Faithful):
    """Its state is p.grad itself, as in the first release of MARS."""

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        last = self.state[p].get("last", grad)
        super().update(p, grad + 0.5 * (grad - last), group)
        self.state[p]["last"] = grad


class FixedRate(Faithful):
    def __init__(self, params: Any, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay)
        self.lr = lr

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "lr": self.lr})


class FirstGroupsRate(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "lr": self.param_groups[0]["lr"]})


class RootOfRate(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "lr": 0.1 * group["lr"] ** 0.5})


class LateRate(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        lr = self.state[p].get("lr", torch.tensor(group["lr"]))
        super().update(p, grad, {**group, "lr": float(lr)})
        self.state[p]["lr"] = torch.tensor(group["lr"])


class MovesAtZero(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "lr": group["lr"] + 1e-3})


class Forgets(Faithful):
    """Its momentum is no part of its state."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.momenta: dict[Tensor, Tensor] = {}

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        m = self.momenta.setdefault(p, torch.zeros_like(p))
        m.mul_(0.9).add_(grad, alpha=0.1)
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(m, alpha=group["lr"])


class SkipsMatrices(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if p.ndim < 2:
            super().update(p, grad, group)


class SkipsWide(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if p.ndim < 2 or p.shape[0] >= p.shape[1]:
            super().update(p, grad, group)


class MatricesOnly(Faithful):
    def __init__(self, params: Any, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay)
        for group in self.param_groups:
            if any(p.ndim != 2 for p in group["params"]):
                raise ValueError("only 2-D parameters")


class NeedsClosure(Faithful):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            raise RuntimeError("closure is needed")
        return super().step(closure)


class DropsClosure(Faithful):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return super().step()


class Averages(Faithful):
    """A schedule-free one in small: eval() shows a mean, train() the point of the gradient."""

    training = True

    def train(self) -> None:
        self._swap(True)

    def eval(self) -> None:
        self._swap(False)

    @torch.no_grad()
    def _swap(self, training: bool) -> None:
        if training != self.training:
            for p, state in self.state.items():
                state["other"], shown = p.clone(), state["other"]
                p.copy_(shown)
        self.training = training

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if not self.training:
            raise RuntimeError("call train() first")
        super().update(p, grad, group)
        mean = self.state[p].setdefault("other", p.clone())
        mean.lerp_(p, 0.1)


class RoundsWhenJudging(Averages):
    def _swap(self, training: bool) -> None:
        with torch.no_grad():
            for p in self.state:
                p.mul_(1 + 1e-4)
        super()._swap(training)


class CoupledDecay(Faithful):
    """L2 inside a sign: the strength of decay is not lr times weight decay."""

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        grad = grad + group["weight_decay"] * p
        super().update(p, grad.sign(), {**group, "weight_decay": 0.0})


class DecayNotTimesRate(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        p.mul_(1 - group["weight_decay"])
        super().update(p, grad, {**group, "weight_decay": 0.0})


class IgnoresDecay(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "weight_decay": 0.0})


class DecaysAll(Faithful):
    def __init__(self, params: Any, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay)
        self.decay = weight_decay

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, {**group, "weight_decay": self.decay})


class Climbs(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, -grad, group)


class MakesFloat64(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, group)
        p.data = p.data.double()


class MovesMemory(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, group)
        p.data = p.data.clone()


class Unseeded(Faithful):
    generator = random.Random()

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad * (1 + 0.01 * self.generator.random()), group)


class Draws(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad + 1e-3 * torch.randn_like(grad), group)


class SharesState(Faithful):
    """Made anew it begins anew; two at a time count together."""

    steps: ClassVar[list[int]] = [0]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.steps[0] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        self.steps[0] += 1
        return super().step(closure)

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad / self.steps[0], group)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps[0]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "steps"})
        self.steps[0] = state_dict["steps"]


class NeedsAllGradients(Faithful):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            if any(p.grad is None for p in group["params"]):
                raise KeyError("grad")
        return super().step(closure)


class RefusesZeros(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if not grad.any():
            raise ValueError("gradient is 0")
        super().update(p, grad, group)


class DividesByGradient(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad / grad.norm(), group)


class SharedCount(Faithful):
    """Bias correction by a count of the group's steps, not of the parameter's."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        return super().step(closure)

    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad / (1 - 0.9 ** group["step"]) ** 2, group)


class AssumesOrder(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, group)
        p.view(-1)


class TakesAnything(Faithful):
    def __init__(
        self, params: Any, lr: float = 0.05, weight_decay: float = 0.0, **rest: Any
    ) -> None:
        super().__init__(params, lr, weight_decay)


class OneGroup(Faithful):
    def __init__(self, params: Any, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay)
        if len(self.param_groups) > 1:
            raise ValueError("one group only")


class NeedsGraph(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        with torch.enable_grad():
            (curvature,) = torch.autograd.grad(grad.sum(), p, retain_graph=True)
        super().update(p, grad.detach() / curvature.abs(), group)


class HoldsObjects(Faithful):
    def update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        super().update(p, grad, group)
        self.state[p]["generator"] = random.Random(0)


class SetsPrecision(Faithful):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        torch.set_float32_matmul_precision("medium")
        return super().step(closure)


class NoRate(Optimizer):
    def __init__(self, params: Any, momentum: float = 0.9) -> None:
        super().__init__(params, {"momentum": momentum})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return None


class TakesNames(Faithful):
    """As Adam_mini, which tells heads and embeddings by their names."""

    def __init__(self, named_parameters: Any, lr: float = 0.05) -> None:
        pairs = list(named_parameters)
        self.names = [name for name, _ in pairs]
        super().__init__([p for _, p in pairs], lr)
