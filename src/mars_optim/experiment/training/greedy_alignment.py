r"""AdamW whose beta1 is picked anew in every step: the arm "greedy-alignment".

Greedy Alignment Principle (arXiv 2512.06370), its global switch, written from the formula in its
repository's README. With m_j the average at the candidate beta_j, and P = 1 / (sqrt(v^) + eps)::

    J_j = sum over tensors of <g_t, P h_j> sqrt((1 - beta_j^2) / W),   h_j = m_j / (1 - beta_j)
    W = mean of P over the tensor's elements,   J_j averaged over steps at the rate SMOOTHING
    x <- x - lr (P m_j / (1 - beta_j^t) + weight_decay x),   j of the greatest J_j

h_j is the sum of beta_j^k g_{t-k}, as SGD keeps it. sqrt((1 - beta_j^2) / W) makes J an inner
product with a filter of length one, so that a long memory does not win by being large. Read with
Adam's average in its place the formula would nearly always take the smallest beta1: this reading is
ours. The repository's soft reset and hysteresis are left out, since the README does not say what
they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ...optim.distributed.sharded import is_sharded

ENDS = (0.5, 0.99)  # the published candidates are 0.5, 0.9 and 0.99; the middle one is the group's
SMOOTHING = 0.9  # published for small batches

Group = dict[str, Any]


class GreedyAlignment(Optimizer):
    """AdamW with beta1 out of (shorter, betas[0], longer), one choice for all parameters.

    Args:
        params: parameters, or groups of them with their own lr, betas and weight_decay.
        lr: learning rate.
        betas: the middle candidate, and the rate of the average of g^2.
        eps: added to the root of it.
        weight_decay: decoupled, times lr.
        ends: the candidates on both sides of ``betas[0]``.
        smoothing: share of J that is kept from step to step.

    Raises:
        ValueError: for sharded parameters, whose sums would be those of one process.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        ends: tuple[float, float] = ENDS,
        smoothing: float = SMOOTHING,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(ends=ends, smoothing=smoothing))
        if any(is_sharded(p) for group in self.param_groups for p in group["params"]):
            raise ValueError(
                "greedy-alignment takes no sharded parameters (FSDP2): leave the arm out, or set "
                'execution.sharding = "ddp"'
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; J of this step's gradient counts already."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        looked = [(g, p, self._look(g, p)) for g in self.param_groups if (p := _with_grad(g))]
        if looked:
            agreements = [self.state[p]["agreement"] for _, params, _ in looked for p in params]
            chosen = int(torch.stack([a.to(agreements[0]) for a in agreements]).sum(0).argmax())
            for group, params, scales in looked:
                self._move(group, params, scales, chosen)
        return loss

    def _look(self, group: Group, params: list[Tensor]) -> list[Tensor]:
        """Take the gradients into the state; P of each parameter."""
        grads: list[Any] = [p.grad for p in params]
        candidates, (_, beta2) = candidates_of(group), group["betas"]
        for p in params:
            if not self.state[p]:
                self.state[p] = _begin(p, len(candidates))
        states = [self.state[p] for p in params]
        torch._foreach_add_([s["step"] for s in states], 1.0)
        squares = [s["exp_avg_sq"] for s in states]
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta2)
        corrections = [(1.0 - beta2 ** float(s["step"])) ** 0.5 for s in states]
        scales: list[Tensor] = list(torch._foreach_sqrt(squares))
        torch._foreach_div_(scales, corrections)
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_reciprocal_(scales)
        weighted = torch._foreach_mul(grads, scales)
        agreed = []
        for j, beta in enumerate(candidates):
            averages = [s[_average(j)] for s in states]
            torch._foreach_lerp_(averages, grads, 1.0 - beta)
            length = ((1.0 + beta) / (1.0 - beta)) ** 0.5  # sqrt(1 - beta^2) / (1 - beta)
            agreed.append([length * (w * m).sum() for w, m in zip(weighted, averages, strict=True)])
        for state, scale, of_candidates in zip(
            states, scales, zip(*agreed, strict=True), strict=True
        ):
            now = torch.stack(list(of_candidates)) * scale.mean().rsqrt()
            state["agreement"].lerp_(now, 1.0 - group["smoothing"])
        return scales

    def _move(self, group: Group, params: list[Tensor], scales: list[Tensor], chosen: int) -> None:
        """The step along the chosen average."""
        beta, lr = candidates_of(group)[chosen], float(group["lr"])
        states = [self.state[p] for p in params]
        torch._foreach_mul_(params, 1.0 - lr * group["weight_decay"])
        torch._foreach_mul_(scales, [-lr / (1.0 - beta ** float(s["step"])) for s in states])
        torch._foreach_addcmul_(params, scales, [s[_average(chosen)] for s in states])


def candidates_of(group: Group) -> tuple[float, ...]:
    """The beta1 of a group among which is chosen."""
    shorter, longer = group["ends"]
    return shorter, group["betas"][0], longer


def _with_grad(group: Group) -> list[Tensor]:
    return [p for p in group["params"] if p.grad is not None]


def _average(candidate: int) -> str:
    return f"exp_avg_{candidate}"


def _begin(p: Tensor, candidates: int) -> dict[str, Tensor]:
    """``agreement`` is this parameter's part of J, so that a checkpoint by parameters has it."""
    state = {_average(j): torch.zeros_like(p) for j in range(candidates)}
    return state | dict(
        exp_avg_sq=torch.zeros_like(p),
        agreement=p.new_zeros(candidates),
        step=torch.zeros(()),
    )
