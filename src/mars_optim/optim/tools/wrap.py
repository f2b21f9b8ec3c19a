"""Hooks that hand an optimizer c_t in place of g_t for the time of its step."""

from __future__ import annotations

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from ...optimizer_options import ClipOver
from ..backends.cpu import native
from ..backends.foreach import norms_of
from ..correction import clipped, corrected_, remember_, scales_of, whole_norms
from ..distributed.flat_pieces import PIECES, WHOLE, GivenShapes
from ..distributed.sharded import Shards, layout, like, local
from ..values import number_or_none
from .masked import Before, before_step, mask_
from .wrap_options import (
    CLIP,
    GAMMA,
    LAST_GRAD,
    Group,
    beta1_of,
    check_choosable,
    check_gradients,
    check_options,
    gamma_given,
)
from .wrapped_gamma import WrappedGamma, forget


class VarianceReduction(WrappedGamma):
    """Handle of :func:`~mars_optim.variance_reduce`; :meth:`remove` undoes it.

    Copies (``copy.deepcopy``, pickle) of the optimizer are under it too, each with a handle of its
    own: ``VarianceReduction.of(optimizer)``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        beta1: float | None,
        optimize_1d: bool,
        gamma: float | Literal["auto"] = 0.025,
        clip: float | None = 1.0,
        clip_over: ClipOver = "tensor",
        cautious: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.beta1 = beta1
        self.optimize_1d = optimize_1d
        self.gamma, self.clip = gamma, clip  # of groups that do not say
        self.clip_over, self.cautious = clip_over, cautious
        self.given = GivenShapes()
        self.told = False  # whether a tensor was ever corrected, or it was said that none is
        self._hook()

    @staticmethod
    def of(optimizer: Optimizer) -> VarianceReduction | None:
        """The handle of what ``optimizer`` is under, if anything."""
        return getattr(optimizer.defaults, "reduction", None)

    def _hook(self) -> None:
        optimizer = self.optimizer
        kinds = "step_pre step_post state_dict_post load_state_dict_pre load_state_dict_post"
        for kind in kinds.split():  # a copy in the making has none yet
            optimizer.__dict__.setdefault(f"_optimizer_{kind}_hooks", OrderedDict())
        self._borrowed: list[tuple[Tensor, Tensor, Tensor]] = []
        self._stepped: list[Before] = []  # to be masked after the step
        self._lost = False  # whether the last step left no history, for want of state
        self._plans = {}
        self._check_hook = optimizer.register_load_state_dict_pre_hook(self._check_loaded)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            optimizer.register_step_post_hook(self._observe),
            optimizer.register_state_dict_post_hook(self._save),
            self._check_hook,
            optimizer.register_load_state_dict_post_hook(self._load),
        ]

    def __getstate__(self) -> dict[str, Any]:
        names = "optimizer beta1 optimize_1d gamma clip given told clip_over cautious"
        return {name: getattr(self, name) for name in names.split()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hook()

    def remove(self) -> None:
        """Give the optimizer back as it was: hooks, history and group keys are gone."""
        self._unhook()
        for state in self.optimizer.state.values():
            state.pop(LAST_GRAD, None)
        for options in (*self.optimizer.param_groups, self.optimizer.defaults):
            options.pop(GAMMA, None)
            options.pop(CLIP, None)
            forget(options)
        if VarianceReduction.of(self.optimizer) is self:
            self.optimizer.defaults = dict(self.optimizer.defaults)

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        self._stepped = []
        if self._borrowed:  # the last step ended in an exception
            self._after(optimizer, args, kwargs)
            self._lost = False
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
                    f"{type(self.optimizer).__name__} calls its closure more than once in a "
                    "step, so no gradient stands for the last step: it cannot be "
                    "variance-reduced; use an optimizer that takes one gradient a step"
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
        if self._skips():
            return
        for group in self.optimizer.param_groups:
            self._options(group), self.beta1_of(group)
            check_gradients(self.optimizer, group)
        self._check_momentum()
        self.check_pieces()
        self._check_history()
        self._stepped = before_step(self.optimizer) if self.cautious else []
        together: list[tuple[list[Tensor], Tensor, float]] = []
        for i, group in enumerate(self.optimizer.param_groups):
            given, clip = self._options(group)
            gamma, beta1 = self._in_force(i, group, given), self.beta1_of(group)
            buckets: dict[Any, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
            for param in group["params"]:
                grad = param.grad
                if grad is None or (param.ndim < 2 and not self.optimize_1d):
                    continue
                # a state that the optimizer has not begun must stay empty until it has
                last_grad = self.optimizer.state.get(param, {}).get(LAST_GRAD)
                g = like(grad, param)
                # a model that was moved or cast has gradients of another kind
                c = torch.zeros_like(g) if last_grad is None else last_grad.to(g.device, g.dtype)
                buckets[param.device, param.dtype, layout(param)].append((param, c, g))
                self._borrowed.append((param, grad, c))
            for bucket in buckets.values():  # one collective for the norms of each
                params, cs, gs = map(list, zip(*bucket, strict=True))
                cs, gs = [local(c) for c in cs], [local(g) for g in gs]
                gain = gamma * beta1 / (1.0 - beta1)
                sums = None if clip is None else native.sums_with(gs, cs, gain)
                corrected_(cs, gs, gain=gain)
                if clip is not None:  # norms as MARS has them, to the bit
                    norms = whole_norms(norms_of(cs, sums), Shards.of(params))
                    together.append((cs, norms, clip))
        for cs, norms, clip in self._clips(together):
            clipped(cs, scales_of(norms, clip), in_place=True)
        self._tell_of_none()
        for param, _, c in self._borrowed:
            param.grad = c

    def _clips(
        self, lists: list[tuple[list[Tensor], Tensor, float]]
    ) -> list[tuple[list[Tensor], Tensor, float]]:
        """Tensors, norms that their clip looks at, and the clip: each one's own, or that of all."""
        if self.clip_over == "tensor" or not lists:
            return lists
        device = lists[0][1].device
        parts = [norms.double().square().sum().to(device) for _, norms, _ in lists]
        norm = torch.stack(parts).sum().sqrt()
        return [(cs, norm.to(own).expand(len(cs)), clip) for cs, own, clip in lists]

    def check_pieces(self) -> None:
        """Raise ValueError for flat pieces of tensors, but where they are corrected and unclipped.

        What a host has swapped in is known by :class:`~..distributed.flat_pieces.GivenShapes`.
        """
        groups = self.optimizer.param_groups
        self.given.note(groups)
        for group in groups:
            gamma, clip = self._options(group)
            partly = clip is not None or gamma == "auto" or not self.optimize_1d
            wrong = self.cautious or (gamma and partly)
            if wrong and self.given.is_flat(group, groups):
                why = "variance_reduce corrects no 1-D tensor"
                if self.cautious:
                    why = "cautious=True takes the mean over a whole tensor"
                elif self.optimize_1d and clip is not None:
                    why = f"clip={clip:g} needs the norm of a whole tensor"
                elif self.optimize_1d:
                    why = "gamma='auto' would choose another gamma on every rank: give a number, or"
                raise ValueError(
                    f"{type(self.optimizer).__name__}: {PIECES}, and {why}: give it "
                    f"optimize_1d=True, clip=None{', cautious=False' * self.cautious}, which is "
                    f"right element by element, or use {WHOLE}"
                )

    def check_reach(self) -> None:
        """Raise ValueError where no tensor of the optimizer could ever be corrected."""
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not params or not self.gamma or self.optimize_1d or any(map(is_lazy, params)):
            return
        if all(p.ndim < 2 for p in params):
            raise ValueError(
                f"{type(self.optimizer).__name__} has no tensor of two or more dimensions, so "
                "variance_reduce would correct nothing: give it optimize_1d=True (with "
                "clip=None if these are flat pieces: FSDP1, DeepSpeed ZeRO), or gamma=0"
            )

    def _check_momentum(self) -> None:
        """Raise ValueError, before a step, where the correction is 0 or has no place in memory.

        Not at once: a schedule such as OneCycleLR's sets it later.
        """
        groups = [group for group in self.optimizer.param_groups if group["params"]]
        name, sgd = type(self.optimizer).__name__, isinstance(self.optimizer, torch.optim.SGD)
        for group in groups if sgd and self.beta1 else ():
            stateless = not any(self.optimizer.state.get(p) for p in group["params"])
            if group[GAMMA] and not group["momentum"] and stateless:
                raise ValueError(
                    f"{name} without a momentum keeps no state, so there is no place for the last "
                    "gradient: give the optimizer a momentum, or set mars_gamma=0 in that group"
                )
        if not groups or not all(g[GAMMA] and self.beta1_of(g) == 0.0 for g in groups):
            return
        if self.beta1 is not None:
            raise ValueError(
                "beta1=0 makes the correction gamma * beta1 / (1 - beta1) 0: leave beta1 out, or "
                "give gamma=0"
            )
        raise ValueError(
            f"{name} averages no gradients (momentum or betas[0] is 0), so the correction gamma * "
            "beta1 / (1 - beta1) is 0: give the optimizer a momentum, "
            f"{'' if sgd else 'or variance_reduce(..., beta1=), '}or gamma=0"
        )

    def _check_history(self) -> None:
        """Raise RuntimeError where the last step kept no gradient for this one to differ from.

        A wrapper around another optimizer has hooks, and no state of its own.
        """
        if self._lost and any(group[GAMMA] for group in self.optimizer.param_groups):
            raise RuntimeError(
                f"{type(self.optimizer).__name__} keeps no state for the parameters that it "
                "steps, so variance_reduce cannot store the last gradient there: if it wraps "
                "another optimizer, call variance_reduce on that one"
            )

    def _tell_of_none(self) -> None:
        """Say once, before a step, that it corrects none of the gradients that there are."""
        if self.told:
            return
        groups = self.optimizer.param_groups
        self.told = any(g[GAMMA] and p.grad is not None for g in groups for p in g["params"])
        if self.told and not self._borrowed:
            warnings.warn(
                f"{type(self.optimizer).__name__}: variance_reduce corrects no gradient "
                "of this step, since none has two or more dimensions: give it "
                "optimize_1d=True",
                stacklevel=5,
            )

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """p.grad as the user left it; g_{t-1} <- g_t; and the step masked, if it is cautious."""
        mask_(self._stepped)
        self._stepped = []
        self._lost = bool(self._borrowed) and not any(
            optimizer.state.get(param) for param, *_ in self._borrowed
        )
        for param, grad, c in self._borrowed:
            if param.grad is c:
                param.grad = grad
            remember_([local(c)], [local(like(grad, param))])
            if optimizer.state.get(param):
                optimizer.state[param][LAST_GRAD] = c
        self._borrowed = []

    def beta1_of(self, group: Group) -> float:
        """Decay of the first moment of a group; 0 where gamma is 0, and it scales nothing."""
        if self.beta1 is None and group.get(GAMMA, self.gamma) == 0.0:
            return 0.0
        return beta1_of(self.optimizer, group, self.beta1)

    def _options(self, group: Group) -> tuple[float | Literal["auto"], float | None]:
        """gamma and clip of a group.

        A checkpoint from before the optimizer was wrapped, which replaces the groups, lacks them:
        then those that it was wrapped with hold.
        """
        gamma = gamma_given(GAMMA, group.setdefault(GAMMA, self.gamma))
        clip = number_or_none(CLIP, group.setdefault(CLIP, self.clip))
        check_options(gamma, clip)
        if gamma == "auto":  # hands, checkpoints and added groups can have changed what it needs
            check_choosable(self.optimizer, [group], clip, self.beta1, self.optimize_1d)
        return gamma, clip
