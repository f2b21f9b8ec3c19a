"""Flat pieces of tensors, as FSDP1 and DeepSpeed ZeRO hand them over, and tensors dealt to ranks.

A piece has no matrix, no norm of its tensor and no mean over it. What works element by element is
right of it; all else is refused before a step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...optimizer_options import CHOSEN, MATRIX_RULES
from .sharded import is_sharded

Group = dict[str, Any]

# What FSDP1 leaves on a flat parameter and on the views of it, and ZeRO-3 on what it has cut up.
MARKS = ("_is_flat_param", "_fsdp_flattened", "ds_id")
PIECES = "its parameters are flat pieces of tensors (FSDP1, DeepSpeed ZeRO)"
WHOLE = "FSDP2 (fully_shard) or DDP, which keep whole tensors"
ZERO_REDUNDANCY = "torch.distributed.optim.zero_redundancy_optimizer"


class GivenShapes:
    """The shapes that an optimizer was given, by which flat pieces swapped in later are known.

    Args:
        dealt: whether ZeroRedundancyOptimizer gave them, a part of each group to each rank.
    """

    def __init__(self, dealt: bool = False) -> None:
        self.dealt = dealt
        self.shapes: set[torch.Size] = set()
        self.marked: list[bool] = []  # of each group, whether pieces are what it was given

    def note(self, groups: list[Group]) -> None:
        """Take the shapes of the groups that are new."""
        for group in groups[len(self.marked) :]:
            self.shapes |= {param.shape for param in group["params"] if not is_lazy(param)}
            self.marked.append(any(map(is_marked, group["params"])))

    def is_flat(self, group: Group, groups: Iterable[Group]) -> bool:
        """Whether a group's parameters are flat pieces; ``groups`` are all of its optimizer."""
        if not group["params"] or any(param.ndim > 1 for param in group["params"]):
            return False
        # FSDP1's NO_SHARD marks whole tensors: there, some are matrices still
        marked = any(map(is_marked, group["params"])) and not any(
            p.ndim > 1 and is_marked(p) for other in groups for p in other["params"]
        )
        return marked or self._swapped(group)

    def _swapped(self, group: Group) -> bool:
        """Whether a host has put other, flat tensors into a group without matrices."""
        if any(is_lazy(param) or is_sharded(param) for param in group["params"]):
            return False
        return group.get("kind") == "matrix" or any(
            param.shape not in self.shapes for param in group["params"]
        )


def is_marked(param: Tensor) -> bool:
    """Whether FSDP1 or ZeRO-3 says that ``param`` is, or was, one of its own."""
    return any(hasattr(param, mark) for mark in MARKS)


def check_partitions(groups: list[Group], given: GivenShapes) -> None:
    """Raise ValueError for groups of flat pieces whose settings are not right of a piece.

    Args:
        groups: of a MARS, before a step, each with values that are allowed.
        given: what they were at first.
    """
    given.note(groups)
    if given.dealt:
        for group in groups:
            check_dealt(group)
    for i, group in enumerate(groups):
        if group["params"] and group["params"][0].ndim > 1:
            continue  # not flat, as is_flat would find at more length
        reason = wrong_of_pieces(group, came=given.marked[i])
        if reason and given.is_flat(group, groups):
            raise ValueError(f"group {i}: {PIECES}, {reason}")


def wrong_of_pieces(group: Group, *, came: bool) -> str | None:
    """Why the step of a group of pieces is not that of their tensors, and the way out; or None.

    Args:
        group: of a MARS.
        came: whether they came as pieces, so that matrices are among them and a place with the
            vectors, under AdamW with settings of its own, is not theirs.
    """
    if group["rule"] in MATRIX_RULES:
        return f"and rule={group['rule']!r} orthogonalises whole matrices: {way_out()}"
    if group.get("cautious"):
        return (
            f"and cautious=True needs the mean over a whole tensor: set it to False, or use {WHOLE}"
        )
    if came and group.get("kind") == "vector":
        return f"so that none is a matrix and all would get the AdamW of vectors: {way_out()}"
    if not group["gamma"]:
        return None
    if group["clip"] is not None:
        return f"and clip={group['clip']:g} needs the norm of a whole tensor: {way_out()}"
    if group["gamma_schedule"] in CHOSEN:
        return (
            f"of which gamma_schedule={group['gamma_schedule']!r} would choose a "
            "different gamma on every rank: use 'lr', 'sqrt_lr' or a number"
        )
    if group["correction"] == "exact" and not came:  # the model has other tensors than these
        return "so that no gradient is that of a previous point: use correction='approx'"
    return None


def way_out() -> str:
    """Settings that are right for flat pieces, as the way out of an error."""
    return (
        "use rule='adamw' or 'lion' with optimize_1d=True, clip=None, which is right element by "
        f"element, or use {WHOLE}"
    )


def inside_zero_redundancy() -> bool:
    """Whether torch's ZeroRedundancyOptimizer is making the optimizer that is being made.

    It gives each rank some tensors of each group and says so nowhere; so its file is looked for
    among the callers, where it was loaded at all.
    """
    module = sys.modules.get(ZERO_REDUNDANCY)
    frame = None if module is None else sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == ZERO_REDUNDANCY:
            return True
        frame = frame.f_back
    return False


def is_zero_redundancy(optimizer: Any) -> bool:
    """Whether it is torch's ZeroRedundancyOptimizer. Does not load it."""
    module = sys.modules.get(ZERO_REDUNDANCY)
    return module is not None and isinstance(optimizer, module.ZeroRedundancyOptimizer)


def check_dealt(group: Group) -> None:
    """Raise ValueError for what looks at all tensors of a group, of which each rank has some."""
    if group["gamma"] and group["gamma_schedule"] in CHOSEN:
        raise ValueError(
            f"gamma_schedule={group['gamma_schedule']!r} under ZeroRedundancyOptimizer would "
            "choose a different gamma on every rank, from the tensors of that rank: use "
            "'lr', 'sqrt_lr' or a number"
        )
    if group["clip"] is not None and group.get("clip_over") == "global":
        raise ValueError(
            "clip_over='global' under ZeroRedundancyOptimizer would clip by the norm of one "
            "rank's tensors only: use clip_over='tensor'"
        )


def check_one_group(parts: int, sorted_before: bool) -> None:
    """Raise ValueError where a group would be split, on this rank or on another.

    Args:
        parts: into how many.
        sorted_before: whether the group says that its rule is for all of its tensors.
    """
    if parts > 1 or not sorted_before:
        raise ValueError(
            "ZeroRedundancyOptimizer must keep as many groups as it was given, and MARS "
            "separates matrices and vectors: give it param_groups(model, names=False), or "
            "optimize_1d=True (which corrects vectors too)"
        )
