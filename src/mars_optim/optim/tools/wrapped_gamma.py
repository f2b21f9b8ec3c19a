"""gamma="auto" of a wrapped optimizer: what the choice keeps, moves, saves and loads."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ...optimizer_options import AUTO_GAMMA
from ..backends.amp import Amp
from ..gamma import choice, kept
from ..hyperparameters import gamma_of
from .wrap_options import GAMMA, Group, beta1_of

BETA2 = 0.99  # of the average of g^2 by which Muon's step is weighed where gamma is chosen
NOT_CHOSEN: Group = {"gamma": 0.0, "gamma_schedule": "constant", "params": []}


class WrappedGamma:
    """The gammas of an optimizer's groups, chosen in the run where a group says "auto".

    The choice reads a group of MARS, so each group has one of those beside it.
    """

    optimizer: Optimizer
    beta1: float | None
    optimize_1d: bool
    chosen: dict[int, Group]  # by number of the group
    _plans: kept.Plans

    def _skips(self) -> bool:
        """Whether a GradScaler found an overflow and leaves skipping to the fused optimizer.

        Waits for the device, for no gradient may be exchanged then.
        """
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    def _choosing(self, i: int, group: Group) -> Group:
        params = [p for p in group["params"] if p.ndim >= 2 or self.optimize_1d]
        betas = beta1_of(self.optimizer, group, self.beta1), BETA2
        chosen = self.chosen.setdefault(i, {"gamma": AUTO_GAMMA, "gamma_schedule": "auto"})
        chosen |= {"params": params, "betas": betas, "capturable": False}
        if isinstance(self.optimizer, torch.optim.SGD):
            chosen["criterion"] = "plain"
        kept.ready(chosen, self._plans, i)
        return chosen

    def _in_force(self, i: int, group: Group, gamma: float | Literal["auto"]) -> float | Tensor:
        """A group's gamma in the step that is due."""
        return gamma_of(self._choosing(i, group)) if gamma == "auto" else gamma

    def _all_chosen(self) -> list[Group]:
        """State of the choice for each group; empty where gamma is a number."""
        return [
            self._choosing(i, group) if group.get(GAMMA) == "auto" else NOT_CHOSEN
            for i, group in enumerate(self.optimizer.param_groups)
        ]

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

    def _load(self, optimizer: Optimizer) -> None:
        """And from there it is taken up in the next step."""
        for i, group in enumerate(optimizer.param_groups):
            if "gamma_schedule" in group:
                continue  # a MARS's own
            its = {key: group.pop(key) for key in kept.KEYS if key in group}
            if its and group.get(GAMMA) == "auto":
                self.chosen[i] = {"gamma": AUTO_GAMMA, "gamma_schedule": "auto", **its}
