"""Any torch optimizer becomes a MARS: it is handed c_t instead of g_t."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from .correction import clipped, corrected_, norms_of, remember_, whole_norms
from .settings import check_number
from .sharded import Shards, layout, like, local

LAST_GRAD = "mars_last_grad"
GAMMA, CLIP = "mars_gamma", "mars_clip"


class VarianceReduction:
    """What :func:`variance_reduce` did to an optimizer; :meth:`remove` undoes it."""

    def __init__(self, optimizer: Optimizer, beta1: float | None, optimize_1d: bool) -> None:
        self.optimizer = optimizer
        self.beta1 = beta1
        self.optimize_1d = optimize_1d
        self._borrowed: list[tuple[Tensor, Tensor, Tensor]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Give the optimizer back as it was: hooks, history and group keys are gone."""
        for hook in self._hooks:
            hook.remove()
        for state in self.optimizer.state.values():
            state.pop(LAST_GRAD, None)
        for options in (*self.optimizer.param_groups, self.optimizer.defaults):
            options.pop(GAMMA, None)
            options.pop(CLIP, None)

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if self._borrowed:  # the last step ended in an exception
            self._after(optimizer, args, kwargs)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._exchange()
            return None
        wrapped = self._around(closure)
        if len(args) > 1:
            return (args[0], wrapped, *args[2:]), kwargs
        return args, {**kwargs, "closure": wrapped}

    def _around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, with the exchange behind it: gradients exist only then."""

        def wrapped() -> Any:
            if self._borrowed:
                raise RuntimeError(
                    f"{type(self.optimizer).__name__} calls its closure more than once in a step, "
                    "so that no gradient is the last step's: it cannot be variance-reduced"
                )
            loss = closure()
            self._exchange()
            return loss

        return wrapped

    @torch.no_grad()
    def _exchange(self) -> None:
        """p.grad <- c_t, in the memory of g_{t-1} where it is kept."""
        if getattr(self.optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                "gradients are still scaled here: call scaler.unscale_(optimizer) before "
                "scaler.step(optimizer)"
            )
        for group in self.optimizer.param_groups:
            gamma, clip, beta1 = group[GAMMA], group[CLIP], self._beta1(group)
            buckets: dict[Any, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
            for param in group["params"]:
                grad = param.grad
                if grad is None or (param.ndim < 2 and not self.optimize_1d):
                    continue
                if grad.is_sparse:
                    raise ValueError("variance_reduce does not take sparse gradients")
                # a state that the optimizer has not begun must stay empty until it has
                last_grad = self.optimizer.state.get(param, {}).get(LAST_GRAD)
                g = like(grad, param)
                c = torch.zeros_like(g) if last_grad is None else last_grad
                buckets[param.device, param.dtype, layout(param)].append((param, c, g))
                self._borrowed.append((param, grad, c))
            for bucket in buckets.values():  # one collective for the norms of each
                params, cs, gs = map(list, zip(*bucket, strict=True))
                cs, gs = [local(c) for c in cs], [local(g) for g in gs]
                corrected_(cs, gs, gain=gamma * beta1 / (1.0 - beta1))
                if clip is not None:
                    norms = whole_norms(norms_of(cs), Shards.of(params))
                    clipped(cs, norms, clip, in_place=True)
        for param, _, c in self._borrowed:
            param.grad = c

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """p.grad as the user left it; g_{t-1} <- g_t."""
        for param, grad, c in self._borrowed:
            if param.grad is c:
                param.grad = grad
            remember_([local(c)], [local(like(grad, param))])
            if optimizer.state.get(param):
                optimizer.state[param][LAST_GRAD] = c
        self._borrowed = []

    def _beta1(self, group: dict[str, Any]) -> float:
        """The decay of the optimizer's first moment, which scales the correction."""
        beta1 = self.beta1
        if beta1 is None:
            beta1 = group["betas"][0] if "betas" in group else group.get("momentum")
        if beta1 is None or not 0.0 <= float(beta1) < 1.0:
            raise ValueError(
                f"{type(self.optimizer).__name__} has no 'betas' or 'momentum' in [0, 1) in its "
                f"groups (found {beta1!r}): give variance_reduce(..., beta1=) the decay of its "
                "first moment"
            )
        return float(beta1)


def variance_reduce(
    optimizer: Optimizer,
    *,
    gamma: float = 0.025,
    clip: float | None = 1.0,
    beta1: float | None = None,
    optimize_1d: bool = False,
) -> VarianceReduction:
    """Hand ``optimizer`` the variance-reduced gradient c_t at every step from now on.

    Works by step hooks, on any torch.optim.Optimizer that calls its closure at most once: SGD,
    Adafactor, Muon, schedule-free, SOAP. After the step p.grad is what the user left there. The
    previous gradient is in the optimizer's own state (``mars_last_grad``) and checkpoint; gamma and
    clip are in its groups (``mars_gamma``, ``mars_clip``) and are read at each step. When resuming,
    wrap first, then load. On AdamW it equals :class:`~mars_optim.MARSAdamW`, given its betas.

    Args:
        optimizer: changed in place.
        gamma: scale of the correction, >= 0 (default: 0.025).
        clip: largest norm of c_t per tensor, None for no clip (default: 1.0).
        beta1: decay of the optimizer's first moment (default: None, from ``betas`` or ``momentum``
            in each group, read at each step).
        optimize_1d: correct tensors with fewer than two dimensions too (default: False).

    Returns:
        A handle; its ``remove()`` undoes everything.

    Raises:
        ValueError: for a value out of range, or an optimizer whose beta1 cannot be found.
    """
    check_number("gamma", gamma, low=0.0, hint="0 switches the correction off")
    if clip is not None:
        check_number("clip", clip, low=0.0, above=True, hint="None switches it off")
    if any(GAMMA in group for group in optimizer.param_groups):
        raise ValueError("optimizer is variance-reduced already: remove() that one first")
    reduction = VarianceReduction(optimizer, beta1, optimize_1d)
    try:
        for group in optimizer.param_groups:
            reduction._beta1(group)
            group[GAMMA], group[CLIP] = gamma, clip
    except ValueError:
        reduction.remove()
        raise
    optimizer.defaults.update({GAMMA: gamma, CLIP: clip})  # for groups that are added later
    return reduction
