"""gamma="auto" of a wrapped optimizer: what the choice keeps, moves, saves and loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer
from torch.utils.hooks import RemovableHandle

from ...optimizer_options import AUTO_GAMMA
from ..backends.amp import Amp
from ..gamma import choice, kept
from ..hyperparameters import gamma_of
from .wrap_options import GAMMA, Group, beta1_of

BETA2 = 0.99  # of the average of g^2 by which Muon's step is weighed where gamma is chosen
NOT_CHOSEN: Group = {"gamma": 0.0, "gamma_schedule": "constant", "params": []}


class WrappedGamma:
    """The gammas of an optimizer's groups, chosen in the run where a group says "auto".

    The choice reads a group of MARS, so each group has one of those beside it. Its memory is in the
    optimizer's own group: there it goes with the group, into copies, and into flattened states.
    """

    optimizer: Optimizer
    beta1: float | None
    optimize_1d: bool
    _plans: kept.Plans
    _check_hook: RemovableHandle

    def _skips(self) -> bool:
        """Whether a GradScaler found an overflow and leaves skipping to the fused optimizer.

        Waits for the device, for no gradient may be exchanged then.
        """
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    def _beside(self, group: Group) -> Group:
        """The group of MARS, with the memory that ``group`` has."""
        beside: Group = {
            "gamma": AUTO_GAMMA,
            "gamma_schedule": "auto",
            "params": [p for p in group["params"] if p.ndim >= 2 or self.optimize_1d],
            "capturable": False,
            **{key: group[key] for key in kept.KEYS if key in group},
        }
        if isinstance(self.optimizer, torch.optim.SGD):
            beside["criterion"] = "plain"
        return beside

    def _choosing(self, i: int, group: Group) -> Group:
        """The same, ready for a step."""
        beside = self._beside(group)
        beside["betas"] = beta1_of(self.optimizer, group, self.beta1), BETA2
        kept.ready(beside, self._plans, i)
        group.update({key: beside[key] for key in kept.KEYS if key in beside})
        return beside

    def _in_force(self, i: int, group: Group, gamma: float | Literal["auto"]) -> float | Tensor:
        """A group's gamma in the step that is due."""
        return gamma_of(self._choosing(i, group)) if gamma == "auto" else gamma

    def _all_chosen(self) -> list[Group]:
        """State of the choice for each group; empty where gamma is a number."""
        return [
            self._choosing(i, group) if group.get(GAMMA) == "auto" else NOT_CHOSEN
            for i, group in enumerate(self.optimizer.param_groups)
        ]

    def _begin(self) -> None:
        """Make the memory before the first step: torch loads a flattened state by its keys.

        Raises:
            ValueError: for that of a checkpoint which does not fit.
        """
        self._load(self.optimizer)
        for i, group in enumerate(self.optimizer.param_groups):
            if group.get(GAMMA) == "auto" and not any(map(is_lazy, group["params"])):
                self._choosing(i, group)

    @torch.no_grad()
    def _observe(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Let the gradients of the step that was taken move gamma."""
        if self._skips():
            return
        choice.observe(self._all_chosen(), self._plans, Amp(), {})

    def _save(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        """Put the state of the choice into the groups of a checkpoint, whole."""
        of_groups = kept.saved(self._all_chosen(), self._plans)
        for group, its in zip(state_dict["param_groups"], of_groups, strict=True):
            group.update(its)
            if group.get(GAMMA) != "auto":
                forget(group)

    def _check_loaded(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        """Refuse, before anything is loaded, memory of other parameters.

        A hook of the user's that comes later may put it right: then :meth:`_load` looks.
        """
        hooks: dict[int, Any] = optimizer.__dict__["_optimizer_load_state_dict_pre_hooks"]
        if next(reversed(hooks)) == self._check_hook.id:
            self._check_memory(state_dict["param_groups"])

    def _check_memory(self, saved: Sequence[Group]) -> None:
        """Raise ValueError for memory that does not fit the optimizer's groups."""
        groups = self.optimizer.param_groups
        for i, (group, its) in enumerate(zip(groups, saved, strict=False)):
            if its.get(GAMMA) != "auto" or kept.PROBES not in its:
                continue
            if any(map(is_lazy, group["params"])):
                continue
            wrong = kept.unfit(self._beside({**its, "params": group["params"]}))
            if wrong is None:
                continue
            what = wrong if isinstance(wrong, str) else f"matrix {wrong[0]} {wrong[1]}"
            raise ValueError(
                f"group {i} of {type(self.optimizer).__name__}: {what}. Was it saved with another "
                f"optimize_1d than {self.optimize_1d}, or of another model?"
            )

    def _load(self, optimizer: Optimizer) -> None:
        """Drop memory of groups whose gamma is a number now, and what does not fit."""
        for group in optimizer.param_groups:
            if group.get(GAMMA) != "auto":
                forget(group)
        try:
            self._check_memory(optimizer.param_groups)
        except ValueError:
            for group in optimizer.param_groups:
                forget(group)
            raise


def forget(group: Group) -> None:
    """Drop all memory of a choice from a group that is no MARS's."""
    if "gamma_schedule" not in group:
        for key in kept.KEYS:
            group.pop(key, None)
