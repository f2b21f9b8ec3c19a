"""Where the authors' code and their paper differ: ``training.convention`` says which is followed.

=====================  ==================================  ======================================
point                  "paper"                              "reference_code"
=====================  ==================================  ======================================
loss of a step         mean over its micro-batches         sum over those of one of their GPUs, so
                                                           that the clip acts on the sum
convolutions           matrices: by the arm's rule         ndim is not 2: plain AdamW, ``lr_1d``
vectors                not decayed (``weight_decay_1d``)   decayed by 0.1, whatever the group says;
                                                           beside Muon by the arm's own decay
embeddings             by the rule, without decay;         the same under "adamw" and "lion"; by
                       plain AdamW beside one that         the rule under "shampoo"; plain AdamW
                       orthogonalises                      with the arm's decay under "muon"
=====================  ==================================  ======================================

AdamW, NAdamW and Lion are the same in both, but for the clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...optim.param_groups import ParamGroups
from ..plan import Arm
from ..plan.training import TrainingPlan

SCRIPT_DECAY_1D = 0.1
"""Decay of vectors: ``weight_decay_1d`` of the authors' MARS, and the decay beside their Muon."""

Group = Mapping[str, Any]


def gradient_scale(training: TrainingPlan) -> float:
    """By what the mean gradient of a step's micro-batches is multiplied before it is clipped.

    1 by the paper's text. The authors' code divides by nothing: there it is the number of
    micro-batches on one of their GPUs.
    """
    if training.convention == "paper":
        return 1.0
    return float(training.reference_accumulation or training.accumulation)


def reference_code_groups(groups: ParamGroups, arm: Arm, lr: float) -> ParamGroups:
    """The groups of a ``mars`` arm, sorted as the authors' code would.

    Args:
        groups: as :func:`~mars_optim.param_groups` sorts them.
        arm: that they were made for.
        lr: of the run.
    """
    folded = arm.correction == "folded"
    if arm.rule in ("adamw", "lion") and folded:
        return groups  # AdamW's and Lion's relatives, of which the authors' code has none
    decay = arm.weight_decay_1d or (arm.weight_decay if arm.rule == "muon" else SCRIPT_DECAY_1D)
    kept, others = [], []
    for group in groups:
        pairs, moved = list(group["params"]), []
        if group["kind"] == "vector":
            pairs, moved = [], pairs
        elif arm.rule != "muon" and not folded:
            pairs, moved = _by_ndim(pairs)
        others += moved
        if pairs:
            kept.append({**_changed(group, arm, groups), "params": pairs})
    if others:
        plain = dict(rule="adamw", betas=arm.betas_1d, gamma=0.0, clip=None, correction="approx")
        named = dict(kind="vector", why="ndim is not 2", stacked=False, split=None)
        values = dict(
            lr=arm.lr_1d or lr * (arm.lr_1d_ratio or 1.0), weight_decay=decay, params=others
        )
        kept.append({**groups[0], **plain, **named, **values})
    return ParamGroups(kept)


def _by_ndim(pairs: list[tuple[str, Tensor]]) -> tuple[list[Any], list[Any]]:
    """Those of two dimensions, and the others."""
    return [p for p in pairs if p[1].ndim == 2], [p for p in pairs if p[1].ndim != 2]


def _changed(group: Group, arm: Arm, groups: ParamGroups) -> dict[str, Any]:
    """Embeddings and heads as the code treats them beside a rule that orthogonalises."""
    if group["kind"] == "matrix":
        return dict(group)
    if arm.rule == "muon":
        return {**group, "weight_decay": arm.weight_decay}
    if arm.rule == "shampoo":
        matrix = next((g for g in groups if g["kind"] == "matrix"), group)
        keys = ("rule", "betas", "gamma", "clip", "correction", "lr")
        return {**group, **{key: matrix[key] for key in keys}}
    return dict(group)
