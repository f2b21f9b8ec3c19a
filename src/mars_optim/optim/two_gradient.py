"""The two-gradient form: this batch's gradient at the last step's parameters (paper Alg. 1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import Optimizer

from .backends.amp import Amp
from .distributed.sharded import is_sharded
from .state.checkpointed import Checkpointed
from .state.fit import LAST_PARAM, check_state
from .types import State


class TwoGradientForm(Checkpointed):
    """The pass at the previous point, for ``correction="exact"``."""

    @contextlib.contextmanager
    def previous_point(
        self, model: nn.Module | None = None, scaler: torch.amp.GradScaler | None = None
    ) -> Iterator[None]:
        """Within, the parameters are those of the last step; gradients made here are g_{t-1}.

        For ``correction="exact"`` in loops without a closure. Do it *before* the usual pass on the
        same batch, for each micro-batch of an accumulation alike::

            with optimizer.previous_point():
                loss_fn(model(x), y).backward()
            loss_fn(model(x), y).backward()
            optimizer.step()

        Both passes draw the same random numbers, and buffers (BatchNorm) are updated by the
        second alone. Outside, parameters and gradients are what they were, after an exception too.
        Clip inside what you clip outside; for a clip over all parameters put all micro-batches of
        an accumulation into one block, since blocks add up only what has a g_{t-1}. Before the
        first step there is no previous point, and what is done here is thrown away (c_1 = (1 + k)
        g_1, as in the approximate form).

        Args:
            model: needed if it is compiled, or else to save the search for its buffers.
            scaler: the GradScaler whose ``scale(loss)`` is used inside; gradients are unscaled.
                Not finite, they count as no correction.
        """
        params = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        check_state(self.param_groups, self.state)
        kept = [p for p in params if "last_grad" in self.state.get(p, {})]
        states = [self.state[p] for p in kept]
        scale = 1.0 if scaler is None else scaler.get_scale()
        if scale != self._runtime["scale"]:  # between steps only: the last one was skipped
            self._runtime["done"] = False
        with at_previous_point(self, model), gradients_apart(params):
            if self._runtime["done"]:  # further micro-batches add to the earlier ones
                resume_sum(kept, states, scale)
            yield
            if any(map(is_sharded, kept)) and all(p.grad is None for p in kept):
                raise RuntimeError(
                    "no gradient arrived in previous_point(): FSDP adds both passes up where "
                    "set_requires_gradient_sync(False) is set; leave it on for correction='exact'"
                )
            collect(kept, states, scale)
        self._runtime.update({"done": True, "scale": scale, "scaled": scaler is not None})

    def _exact(self) -> bool:
        return any(g["correction"] == "exact" and g["gamma"] for g in self.param_groups)

    def _needs_previous_pass(self) -> bool:
        """Whether a step now would lack g_{t-1}: never at the first step of all parameters."""
        stepped = any("last_param" in state for state in self.state.values())
        return stepped and not self._runtime["done"] and self._exact()

    def _evaluate(self, closure: Callable[[], float] | None) -> float | None:
        """The closure's loss, with the gradients that a step needs; without one they are there.

        Raises:
            RuntimeError: if this batch's gradient at the last step's parameters is missing.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                if self._needs_previous_pass():
                    with self.previous_point():
                        closure()
                        if all(p.grad is None for g in self.param_groups for p in g["params"]):
                            raise RuntimeError(
                                "correction='exact' needs a closure that calls backward: this one "
                                "made no gradient; if a host gave it, use previous_point"
                            )
                loss = closure()
        if self._needs_previous_pass() and any(
            param.grad is not None and "last_param" in state for param, state in self.state.items()
        ):
            raise RuntimeError(
                "correction='exact' needs this batch's gradient at the last step's parameters: "
                "before the usual pass do `with optimizer.previous_point(): loss(...).backward()`, "
                "or give step a closure"
            )
        return loss

    def _before_update(self, amp: Amp) -> None:
        """last_param <- x_t, of all parameters that are about to be stepped.

        Args:
            amp: a gradient scaler's; where its ``found_inf`` is not zero the step is not taken.
        """
        if not self._exact():
            self._forget_previous_point()
            return
        for group in self.param_groups:
            for param in group["params"]:
                if state := self.state.get(param):
                    if "last_param" not in state:
                        state["last_param"] = param.detach().clone()
                    last_param = state["last_param"]
                    now: Tensor = param.detach()
                    if (found_inf := amp.on_device) is not None:
                        now = torch.where(
                            found_inf.reshape(()).to(param.device).bool(), last_param, now
                        )
                    last_param.copy_(now)
        self._runtime["exact"] = True
        if self._runtime["scaled"]:
            params = [p for p, state in self.state.items() if "last_grad" in state]
            drop_overflows(params, [self.state[p] for p in params], amp)

    def _forget_previous_point(self) -> None:
        """Drop x_{t-1}, which no step keeps up now: nobody must go back to it later."""
        if self._runtime["exact"]:
            for state in self.state.values():
                state.pop(LAST_PARAM, None)
            self._runtime["exact"] = False


@contextlib.contextmanager
def at_previous_point(optimizer: Optimizer, model: nn.Module | None) -> Iterator[None]:
    """Run the body at x_{t-1} and leave no trace of it but the gradients in p.grad.

    On the way out parameters are x_t again, bit for bit; the random states of the CPU and of the
    parameters' devices are as they were on the way in, so that the pass at x_t that follows draws
    the same; and buffers are as they were. So it is after an exception in the body, too.

    Args:
        optimizer: its state holds ``last_param`` for parameters that have been stepped.
        model: whose buffers to keep. None finds the modules that the body calls, which it cannot
            do inside compiled ones.
    """
    moved = [
        (param, state["last_param"])
        for param, state in optimizer.state.items()
        if "last_param" in state
    ]
    devices = {param.device.index for param, _ in moved if param.device.type == "cuda"}
    keep_buffers = buffers_of(model) if model is not None else buffers_of_called_modules()
    with torch.random.fork_rng(devices=sorted(devices)), keep_buffers:
        here = [param.detach().clone() for param, _ in moved]
        try:
            copy_all([param for param, _ in moved], [last for _, last in moved])
            yield
        finally:
            copy_all([param for param, _ in moved], here)


@torch.no_grad()
def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """targets <- sources, tensor by tensor, in place."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


@contextlib.contextmanager
def gradients_apart(params: list[Tensor]) -> Iterator[None]:
    """Within, p.grad starts as None; outside, it is what it was.

    By value too: DistributedDataParallel writes any backward into the memory of its bucket views.
    """
    outer = [(grad, grad.clone()) if (grad := p.grad) is not None else None for p in params]
    for param in params:
        param.grad = None
    try:
        yield
    finally:
        for param, kept in zip(params, outer, strict=True):
            param.grad = None if kept is None else kept[0]
            if kept is not None:
                copy_all([kept[0]], [kept[1]])


@torch.no_grad()
def resume_sum(params: list[Tensor], states: list[State], scale: float) -> None:
    """p.grad <- the sum of earlier micro-batches, so that hosts reduce and clip it as a whole."""
    for param, state in zip(params, states, strict=True):
        param.grad = (state["last_grad"] * scale).to(param.dtype)


@torch.no_grad()
def collect(params: list[Tensor], states: list[State], scale: float) -> None:
    """last_grad <- p.grad / scale; None counts as zero.

    Args:
        params: with this batch's gradients at x_{t-1} in p.grad.
        states: of the parameters, with ``last_grad``.
        scale: by which the loss was multiplied.
    """
    for param, state in zip(params, states, strict=True):
        if param.grad is None:
            state["last_grad"].zero_()
        else:
            state["last_grad"].copy_(param.grad).mul_(1.0 / scale)


@torch.no_grad()
def drop_overflows(params: list[Tensor], states: list[State], amp: Amp) -> None:
    """last_grad <- g_t where a scaled pass overflowed: no correction there, and no NaN.

    Without a host synchronisation: the choice is made by a tensor.
    """
    for param, state in zip(params, states, strict=True):
        if param.grad is not None:
            last_grad = state["last_grad"]
            finite = torch.isfinite(last_grad).all()
            (grad,) = amp.unscaled([param.grad])
            last_grad.copy_(torch.where(finite, last_grad, grad))


@contextlib.contextmanager
def buffers_of(model: nn.Module) -> Iterator[None]:
    """Leave the model's buffers (BatchNorm's statistics, counters) as they were."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        copy_all([buffer for buffer, _ in kept], [value for _, value in kept])


@contextlib.contextmanager
def buffers_of_called_modules() -> Iterator[None]:
    """As :func:`buffers_of`, for every module whose forward is called within."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, _: Any) -> None:
        for buffer in module.buffers(recurse=False):
            kept.setdefault(id(buffer), (buffer, buffer.detach().clone()))

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        copy_all([buffer for buffer, _ in kept.values()], [value for _, value in kept.values()])
