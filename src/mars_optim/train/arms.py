"""From an arm's settings to an optimizer on a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ..optim import MARS, param_groups
from ..records import Arm


def build_optimizer(model: nn.Module, arm: Arm, *, lr: float) -> Optimizer:
    """The arm's optimizer on the model, every arm with the same sorting of parameters.

    Matrices and heads are decayed; embeddings and vectors are not. Under rules that orthogonalise
    matrices, embeddings and heads get plain AdamW.
    """
    clip = arm.clip or None
    groups = param_groups(
        model,
        rule=arm.rule,
        lr=lr,
        betas=arm.betas,
        weight_decay=arm.weight_decay,
        gamma=arm.gamma,
        clip=clip,
        correction=arm.correction,
        # AdamW's own betas on vectors: the arm's where the arm is AdamW, else MARS's convention
        betas_1d=arm.betas if arm.optimizer != "mars" else (0.9, 0.95),
    )
    if arm.optimizer == "mars":
        return MARS(groups, clip_over=arm.clip_over, cautious=arm.cautious)
    torch_groups = [
        {k: group[k] for k in ("params", "lr", "betas", "weight_decay")} for group in groups
    ]
    if arm.optimizer == "torch-nadam":
        return torch.optim.NAdam(torch_groups, decoupled_weight_decay=True)
    return torch.optim.AdamW(torch_groups, fused=True)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
