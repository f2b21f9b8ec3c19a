"""Any torch optimizer becomes a MARS: what may be asked for, and the hooks that do it."""

from __future__ import annotations

from typing import Any, Literal

from torch.optim.optimizer import Optimizer

from ...optimizer_options import TABLE, Clip, ClipOver
from ..distributed.flat_pieces import is_zero_redundancy
from ..values import check_option, flag, is_auto, number_or_none
from .masked import check_cautious
from .wrap import VarianceReduction
from .wrap_options import (
    CLIP,
    GAMMA,
    check_choosable,
    check_options,
    check_remnants,
    gamma_given,
)


class Defaults(dict[str, Any]):
    """An optimizer's defaults that know what it is under.

    torch's optimizers copy and pickle their defaults, state and groups, and no hooks. So what must
    come along goes here, where neither groups nor checkpoints see it.
    """

    reduction: VarianceReduction


def variance_reduce(
    optimizer: Optimizer,
    *,
    gamma: float | Literal["auto"] = 0.025,
    clip: Clip = "auto",
    clip_over: ClipOver = "tensor",
    cautious: bool = False,
    beta1: float | None = None,
    optimize_1d: bool = False,
) -> VarianceReduction:
    """Hand ``optimizer`` the variance-reduced gradient c_t at every step from now on.

    Works by step hooks, on any torch.optim.Optimizer that calls its closure at most once: SGD,
    Adafactor, Muon, schedule-free, SOAP. After the step p.grad is what the user left there. The
    previous gradient is in the optimizer's own state (``mars_last_grad``) and checkpoint; gamma and
    clip are in its groups (``mars_gamma``, ``mars_clip``) and are read at each step. When resuming,
    wrap first, then load; a checkpoint from before it was wrapped will do. Copies are under it too,
    by ``copy.deepcopy`` and pickle; not by ``copy.copy``. On AdamW it equals
    :class:`~mars_optim.MARSAdamW`, given its betas.

    Args:
        optimizer: changed in place.
        gamma: scale of the correction, >= 0 (default: 0.025). "auto" chooses it for each group, as
            MARS does, for optimizers whose step is linear in an average of gradients or that
            orthogonalise it: SGD with momentum and Muon, both without ``nesterov``.
        clip: largest norm of c_t per tensor, None for no clip (default: "auto", which is 1.0, and
            None for ``gamma="auto"``, which refuses any other).
        clip_over: "tensor", or "global": the norm is that of all tensors that are corrected and
            clipped (default: "tensor").
        cautious: keep of each step what goes against g_t, scaled up by its share of the tensor, as
            in :class:`~mars_optim.MARS`; vectors too. Decay is not masked where it is known to
            stand apart (groups with ``decoupled_weight_decay``, torch's Muon and Adafactor), else
            it is part of the step. Takes a copy of the parameters while a step is under way
            (default: False).
        beta1: decay of the optimizer's first moment (default: None, from ``betas`` or ``momentum``
            in each group, read at each step).
        optimize_1d: correct tensors with fewer than two dimensions too (default: False).

    Returns:
        A handle; its ``remove()`` undoes everything.

    Raises:
        ValueError: for a value out of range, an optimizer whose beta1 cannot be found, or one of
            which nothing could be corrected: only vectors, or flat pieces (FSDP1, DeepSpeed ZeRO;
            where a host makes them later, in the first step); in the first step, one that
            averages no gradients (momentum 0). For ``cautious`` with an optimizer
            that keeps other points than the parameters (schedule-free), and for ``gamma="auto"``
            with one in which gamma would act on more than the step.
        TypeError: for what is no optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"variance_reduce takes an optimizer of torch's kind, not {type(optimizer).__name__}: "
            "give the optimizer that steps the model"
        )
    gamma = gamma_given("gamma", gamma)
    beta1, optimize_1d = number_or_none("beta1", beta1), flag("optimize_1d", optimize_1d)
    if beta1 is not None and not 0.0 <= beta1 < 1.0:
        raise ValueError(f"beta1={beta1!r} must be in [0, 1), or None for the optimizer's own")
    if is_auto("clip", clip, "a number above 0, or None"):
        clip = None if gamma == "auto" else 1.0
    check_options(gamma, clip)
    clip = number_or_none("clip", clip)
    if gamma == "auto":
        check_choosable(optimizer, optimizer.param_groups, clip, beta1, optimize_1d)
    if VarianceReduction.of(optimizer) is not None:
        raise ValueError(
            "optimizer is variance-reduced already: VarianceReduction.of(optimizer).remove() first"
        )
    if is_zero_redundancy(optimizer):
        raise ValueError(
            "ZeroRedundancyOptimizer keeps its state in the optimizer inside it: call "
            "variance_reduce(optimizer.optim) with a number as gamma, since 'auto' would choose "
            "another on every rank"
        )
    if gamma != 0 and any(g.get("gamma") and "rule" in g for g in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} corrects its gradients itself, and gamma={gamma!r} would "
            "correct them twice: set gamma in its groups, or give variance_reduce gamma=0"
        )
    check_option("clip_over", clip_over, TABLE["clip_over"])
    if clip_over == "global" and gamma == "auto":
        raise ValueError(
            "clip_over='global' has nothing to clip by, since gamma='auto' takes no clip: leave "
            "clip_over out, and clip gradients before the step (torch.nn.utils.clip_grad_norm_)"
        )
    cautious = flag("cautious", cautious)
    if cautious:
        check_cautious(optimizer)
    check_remnants(optimizer, gamma, clip)
    before = [dict(group) for group in optimizer.param_groups]
    reduction = VarianceReduction(optimizer, beta1, optimize_1d, gamma, clip, clip_over, cautious)
    try:
        for group in optimizer.param_groups:
            reduction.beta1_of(group)
        reduction.check_pieces()
        reduction.check_reach()
        for group in optimizer.param_groups:
            group[GAMMA], group[CLIP] = gamma, clip
        reduction._begin()
    except Exception:  # what a checkpoint brought stays for a call that is right
        reduction._unhook()
        for group, its in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(its)
        raise
    # for groups that are added later, and for copies
    defaults = Defaults(optimizer.defaults, **{GAMMA: gamma, CLIP: clip})
    defaults.reduction = reduction
    optimizer.defaults = defaults
    return reduction
