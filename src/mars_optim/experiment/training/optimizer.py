"""From an arm's settings to an optimizer on a model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.utils import _pytree as pytree

from ...errors import UserError
from ...optim import MARS, param_groups
from ...optim.param_groups import ParamGroups
from ...optim.transfer import Ratios, settings_at
from ..plan import Arm
from ..plan.any_arm import is_any
from .arm_class import class_of
from .contract.trial import switch_mode
from .convention import reference_code_groups
from .greedy_alignment import GreedyAlignment
from .optimizer_routes import build_any


def arm_groups(
    model: nn.Module,
    arm: Arm,
    *,
    lr: float,
    convention: Literal["paper", "reference_code"] = "paper",
) -> ParamGroups:
    """The model's parameters as an arm treats them, every arm with the same sorting.

    Matrices and heads are decayed; embeddings and, unless ``weight_decay_1d`` is set, vectors are
    not. Under rules that orthogonalise matrices, embeddings and heads get plain AdamW. A model with
    ``transfer``, :class:`~mars_optim.optim.transfer.Ratios`, gets the settings of the smaller one,
    carried to its size.

    Args:
        model: whose parameters they are.
        arm: its settings.
        lr: of matrices, in place of the arm's.
        convention: "reference_code" sorts as the authors' code (see :mod:`.convention`).
    """
    groups = param_groups(
        model,
        rule=arm.rule,
        lr=lr,
        betas=arm.betas,
        weight_decay=arm.weight_decay,
        gamma=arm.gamma,
        clip=arm.clip,
        correction=arm.correction,
        lr_1d=_lr_1d(arm, lr),
        # AdamW's own betas on vectors: the arm's where the arm is AdamW, else MARS's convention
        betas_1d=arm.betas if arm.optimizer != "mars" else arm.betas_1d,
        weight_decay_1d=arm.weight_decay_1d,
        split=None if arm.split == "none" else arm.split,
    )
    if arm.optimizer == "mars" and convention == "reference_code":
        groups = reference_code_groups(groups, arm, lr)
    ratios = getattr(model, "transfer", None)
    if not isinstance(ratios, Ratios):
        return groups
    return ParamGroups({**group, **settings_at(group, ratios)} for group in groups)


def build_optimizer(
    model: nn.Module,
    arm: Arm,
    *,
    lr: float,
    convention: Literal["paper", "reference_code"] = "paper",
    name: str = "",
) -> Optimizer:
    """The arm's optimizer on the model, sorted by :func:`arm_groups`, ready to train.

    Args:
        model: whose parameters they are.
        arm: its settings.
        lr: of matrices, in place of the arm's.
        convention: of :func:`arm_groups`.
        name: of the arm, for messages about a class that it names.

    Raises:
        UserError: if the arm has what sharded parameters do not take, or its class does not take
            the model's.
    """
    if is_any(arm.optimizer):
        if isinstance(getattr(model, "transfer", None), Ratios):
            raise UserError(
                f"arm.{name}.optimizer = {arm.optimizer!r}: no known rule carries its "
                "settings to the size of this model, which has a transfer; leave out one of "
                "them"
            )
        made = build_any(
            model,
            class_of(arm, name),
            arm.parameters,
            lr=lr,
            lr_1d=_lr_1d(arm, lr),
            betas_1d=arm.betas_1d,
            weight_decay_1d=arm.weight_decay_1d,
        )
        switch_mode(made, training=True)
        return made
    try:
        return _build(arm, arm_groups(model, arm, lr=lr, convention=convention))
    except ValueError as error:
        raise UserError(f"the arm's optimizer: {error}") from None


def _lr_1d(arm: Arm, lr: float) -> float | None:
    return arm.lr_1d or (lr * arm.lr_1d_ratio if arm.lr_1d_ratio else None)


def _build(arm: Arm, groups: ParamGroups) -> Optimizer:
    if arm.optimizer == "mars":
        return MARS(
            groups,
            correction=arm.correction,
            gamma_schedule=arm.gamma_schedule,
            clip_over=arm.clip_over,
            cautious=arm.cautious,
            ns_steps=arm.ns_steps,
            ns_coefficients=arm.ns_coefficients,
        )
    kept = ["params", "lr", "betas", "weight_decay", "eps"]
    torch_groups = [{k: group[k] for k in kept if k in group} for group in groups]
    if arm.optimizer == "torch-nadam":
        return torch.optim.NAdam(torch_groups, decoupled_weight_decay=True)
    if arm.optimizer == "greedy-alignment":
        return GreedyAlignment(torch_groups)
    return torch.optim.AdamW(torch_groups, fused=True)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in pytree.tree_leaves(state)
        if isinstance(value, Tensor)
    )
