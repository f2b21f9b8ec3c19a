"""The step inside backward: each gradient is used up and freed as soon as it is complete."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...optimizer_options import BY_LR
from ..backends import Amp
from ..correction import GlobalNorm
from ..distributed.flat_pieces import is_marked
from ..distributed.sharded import is_sharded
from ..gamma.choice import look_at
from ..gamma.kept import is_chosen, ready
from ..gamma.schedule import follow_lr
from ..hyperparameters import Settings
from ..mars import MARS
from .reuse import Reuse


class GradientRelease:
    """Handle of :func:`release_gradients`; :meth:`remove` undoes it."""

    def __init__(self, optimizer: MARS, passes: int) -> None:
        self.optimizer = optimizer
        self.passes = passes
        self._group_of: dict[Tensor, int] = {}
        self._seen: Counter[Tensor] = Counter()  # backward passes since the last step, by parameter
        self._reuse = Reuse(self._group_of)
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._refuse_scaled),
            optimizer.register_step_post_hook(self._next_step),
        ]
        for i, group in enumerate(optimizer.param_groups):
            for param in group["params"]:
                if param.requires_grad:
                    self._group_of[param] = i
                    self._hooks.append(param.register_post_accumulate_grad_hook(self._arrived))

    @classmethod
    def of(cls, optimizer: Any) -> GradientRelease | None:
        """The handle that the optimizer is under, if it is."""
        hooks = getattr(optimizer, "_optimizer_step_pre_hooks", {}).values()
        owners = (getattr(hook, "__self__", None) for hook in hooks)
        return next((owner for owner in owners if isinstance(owner, cls)), None)

    def remove(self) -> None:
        """Gradients are kept until ``optimizer.step()`` again; state and settings stay."""
        for hook in self._hooks:
            hook.remove()
        self._reuse.remove()
        self.optimizer._runtime["released"] = False

    @torch.no_grad()
    def _arrived(self, param: Tensor) -> None:
        """Step ``param`` if this pass completes its gradient, and free the gradient."""
        group = self.optimizer.param_groups[self._group_of[param]]
        if not self._seen:  # the first of this step: a refused setting of any group moves nothing
            for other in self.optimizer.param_groups:
                check_releasable(other)
        check_releasable(group)
        check_one_process()
        # so that a GradScaler hands its scale over instead of failing in words of its own; here,
        # for loading a state forgets it
        self.optimizer._runtime["released"] = True
        if group["gamma_schedule"] in BY_LR:
            follow_lr(group)
        self._reuse.arrived()
        self._seen[param] += 1
        if param in self._reuse.in_pieces:
            return  # its gradient is whole after backward: step() takes the step
        if self._seen[param] > self.passes:
            raise RuntimeError(
                f"a parameter of shape {tuple(param.shape)} got a gradient for the "
                f"{self._seen[param]}. time since the last step, and was stepped after "
                f"{self.passes}: call optimizer.step() after each backward (it steps nothing "
                "twice), or set release_gradients(optimizer, passes=) to the number of "
                "accumulated passes; under checkpointing, use_reentrant=False delivers each "
                "gradient in one piece"
            )
        if self._seen[param] == self.passes:
            i, runtime = self._group_of[param], self.optimizer._runtime
            for update in self.optimizer._updates(
                i, {**group, "params": [param]}, Amp(), GlobalNorm()
            ):
                update()
            if is_chosen(group):  # gamma itself moves when step() has seen all
                plan = ready(group, runtime["plans"], i)
                seen = look_at(group, plan, 0, [plan.number_of(param)], Amp())
                runtime["arrived"].setdefault(i, []).append((0, seen))
            param.grad = None

    def _next_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._seen.clear()
        self._reuse.next_step()

    def _refuse_scaled(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if getattr(optimizer, "found_inf", None) is not None:
            raise RuntimeError(
                "release_gradients cannot be used with a GradScaler: it steps in backward, where "
                "gradients are still scaled. Use bfloat16 autocast, which needs no scaler"
            )


def release_gradients(optimizer: MARS, *, passes: int = 1) -> GradientRelease:
    """Step each parameter inside ``backward()`` and free its gradient at once.

    Gradients of the whole model never exist together, which saves up to their 4 bytes per float32
    parameter at the peak. The training loop stays as it is: ``optimizer.step()`` ends the step, and
    steps what has a gradient left (normally nothing); schedulers, closures, ``state_dict`` and
    resuming work as always. The result is that of the usual loop (``stochastic_rounding`` draws
    other numbers).

    Right for ``correction="folded"``, for ``gamma=0``, and for ``"approx"``, whose correction and
    clip look at one tensor at a time. What looks at all gradients after backward sees none:
    ``clip_grad_norm_`` has no effect. A parameter that reentrant checkpointing uses several times
    in a pass gets its gradient in pieces; it keeps it until ``optimizer.step()``.

    Args:
        optimizer: any MARS optimizer; changed in place.
        passes: backward passes per step, for accumulation (default: 1). Gradients are kept until
            the last of them.

    Returns:
        A handle; its ``remove()`` undoes everything.

    Raises:
        ValueError: for ``correction="exact"``, which needs two gradients at once; for sharded
            parameters; in a job of several processes, where the mean over them is taken later.
        TypeError: for an optimizer that is no MARS.
    """
    if not isinstance(optimizer, MARS):
        raise TypeError(
            f"release_gradients takes a MARS optimizer, not {type(optimizer).__name__}: "
            "MARSAdamW(gamma=0, clip=None) is AdamW"
        )
    if type(passes) is not int or passes < 1:
        raise ValueError(f"passes={passes!r} must be a whole number of at least 1")
    check_one_process()
    hooks = optimizer._optimizer_step_pre_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), GradientRelease) for hook in hooks):
        raise ValueError(
            "optimizer releases its gradients already: call remove() of the first handle first"
        )
    for group in optimizer.param_groups:
        check_releasable(group)
        if any(is_sharded(p) or is_marked(p) for p in group["params"]):
            raise ValueError(
                "release_gradients does not take sharded parameters (DTensor, FSDP1, DeepSpeed "
                "ZeRO): leave it out, the shards' gradients are small already"
            )
    return GradientRelease(optimizer, passes)


def check_releasable(group: dict[str, Any]) -> None:
    """Raise ValueError if the group's step needs more than one gradient per parameter."""
    settings = Settings.from_group(group)
    if settings.clips_together:
        raise ValueError(
            "clip_over='global' needs all gradients at once, which release_gradients frees: "
            "use clip_over='tensor'"
        )
    if settings.exact:
        raise ValueError(
            "correction='exact' needs two gradients of a batch at once, which release_gradients "
            "frees: use correction='folded' (or 'approx')"
        )


def check_one_process() -> None:
    """Raise ValueError in a job of several processes."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError(
            f"release_gradients cannot be used in a job of {dist.get_world_size()} processes: "
            "their mean is taken after the step in backward; leave it out there"
        )
