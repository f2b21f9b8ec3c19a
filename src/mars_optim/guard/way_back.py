"""From a MARS that was restored to the AdamW that goes on, with AdamW's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from ..optim import migrate
from ..optim.migrate import ADAMW_KEYS
from ..optim.settings import GROUP_KEYS

KEPT = ("betas", "eps", "weight_decay")
HISTORY = ("last_grad", "last_param", "mars_last_grad")


class WayBack:
    """What each group's settings are as AdamW.

    Args:
        settings: of each group: betas, eps, weight_decay.
        lr_ratios: of each group: AdamW's lr over MARS's.
        in_place: turn the correction off instead of making another optimizer.
    """

    def __init__(
        self, settings: list[dict[str, Any]], lr_ratios: list[float], *, in_place: bool
    ) -> None:
        self.settings = settings
        self.lr_ratios = lr_ratios
        self.in_place = in_place

    @classmethod
    def of(
        cls,
        optimizer: Optimizer,
        adamw: Optimizer | Sequence[Mapping[str, Any]] | None,
        *,
        in_place: bool,
    ) -> WayBack:
        """Of the groups of ``optimizer``, as ``adamw`` had their parameters.

        Raises:
            ValueError: if a group cannot become AdamW, or its parameters had several settings.
        """
        for i, group in enumerate(optimizer.param_groups):
            rule = group.get("rule", "adamw")
            if rule != "adamw" or "betas" not in group:
                raise ValueError(
                    f"group {i} of the optimizer (rule {rule!r}) keeps no second moment to go back "
                    "to AdamW with: a guard is for rule 'adamw'. For other rules keep AdamW's own "
                    "checkpoint of before the switch"
                )
        if in_place and not all("gamma" in group for group in optimizer.param_groups):
            raise ValueError("in_place=True is for a MARS; this optimizer has no gamma to turn off")
        before = adamw.param_groups if isinstance(adamw, Optimizer) else adamw
        groups = optimizer.param_groups
        origins = [group if before is None else _origin(group, before) for group in groups]
        return cls(
            [{key: origin[key] for key in KEPT} for origin in origins],
            [
                float(origin["lr"]) / float(group["lr"]) if float(group["lr"]) else 1.0
                for origin, group in zip(origins, groups, strict=True)
            ],
            in_place=in_place,
        )

    def go(self, mars: Optimizer) -> Optimizer:
        """The AdamW that goes on from the state of ``mars``."""
        adamw = mars if self.in_place else migrate(mars, to="adamw")
        rows = zip(
            adamw.param_groups, mars.param_groups, self.settings, self.lr_ratios, strict=True
        )
        for group, source, settings, ratio in rows:
            group.update(settings)
            group["lr"] = group["lr"] * ratio
            if self.in_place:
                group.update(gamma=0.0, clip=None)
            else:  # what schedulers keep there
                hosts = source.keys() - GROUP_KEYS - set(ADAMW_KEYS)
                group.update({key: source[key] for key in hosts - group.keys()})
            for key in ("initial_lr", "max_lr", "min_lr"):
                if key in group:
                    group[key] = group[key] * ratio
        for state in adamw.state.values():
            for key in HISTORY:
                state.pop(key, None)
        adamw.zero_grad()
        return adamw

    def state_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"settings": self.settings, "lr_ratios": self.lr_ratios}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state_dict` gave: a resumed run has no AdamW from before the switch."""
        self.settings, self.lr_ratios = list(state["settings"]), list(state["lr_ratios"])


def _origin(group: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The group of ``before`` that had the parameters of ``group``."""
    owner = {id(p): g for g in before for p in g["params"]}
    found = [owner.get(id(p)) for p in group["params"]]
    if any(g is None for g in found):
        raise ValueError("adamw does not hold all parameters of the optimizer")
    first = found[0]
    assert first is not None
    for other in found:
        assert other is not None
        if any(other[key] != first[key] for key in (*KEPT, "lr")):
            raise ValueError(
                "a group of the optimizer holds parameters that AdamW treated differently: keep "
                "AdamW's groups apart, as migrate does"
            )
    return first


def repoint(extra: Any, old: Optimizer, new: Optimizer, ratios: Sequence[float]) -> None:
    """A scheduler of the old optimizer moves the new one from now on."""
    if not isinstance(extra, LRScheduler) or extra.optimizer is not old:
        return
    extra.optimizer = new
    for inner in getattr(extra, "_schedulers", ()):
        repoint(inner, old, new, ratios)
    if hasattr(extra, "base_lrs"):
        extra.base_lrs = [lr * r for lr, r in zip(extra.base_lrs, ratios, strict=True)]
