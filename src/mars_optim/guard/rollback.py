"""From a MARS that was restored to the AdamW that goes on, with AdamW's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from ..optim.groups.keys import GROUP_KEYS
from ..optim.tools.migrate import ADAMW_KEYS, migrate
from ..optim.values import check_number

KEPT = ("betas", "eps", "weight_decay")
HISTORY = ("last_grad", "last_param", "mars_last_grad")


class RollbackTarget:
    """Settings of each group as AdamW.

    Args:
        settings: of each group: betas, eps, weight_decay.
        lr_scale: MARS's lr over AdamW's.
        in_place: turn the correction off instead of making another optimizer.
    """

    def __init__(self, settings: list[dict[str, Any]], *, lr_scale: float, in_place: bool) -> None:
        self.settings = settings
        self.lr_scale = lr_scale
        self.in_place = in_place

    @classmethod
    def of(
        cls,
        optimizer: Optimizer,
        adamw: Optimizer | Sequence[Mapping[str, Any]] | None,
        *,
        lr_scale: float,
        in_place: bool,
    ) -> RollbackTarget:
        """Target for the groups of ``optimizer``, as ``adamw`` had their parameters.

        Raises:
            ValueError: if a group cannot become AdamW, its parameters had several settings, or its
                lr is higher than ``lr_scale`` says.
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
        check_number("lr_scale", lr_scale, low=0.0, above=True)
        before = adamw.param_groups if isinstance(adamw, Optimizer) else adamw
        groups = optimizer.param_groups
        origins = [group if before is None else _origin(group, before) for group in groups]
        for group, origin in zip(groups, origins, strict=True):
            if before is not None and float(group["lr"]) > 1.001 * lr_scale * float(origin["lr"]):
                raise ValueError(
                    f"the optimizer's lr {float(group['lr']):g} is more than "
                    f"lr_scale={lr_scale:g} times AdamW's {float(origin['lr']):g}: set "
                    "lr_scale to their ratio, or AdamW would continue at too high a rate"
                )
        kept = [{key: origin[key] for key in KEPT} for origin in origins]
        return cls(kept, lr_scale=lr_scale, in_place=in_place)

    def go(self, mars: Optimizer) -> Optimizer:
        """The AdamW that goes on from the state of ``mars``."""
        adamw = mars if self.in_place else migrate(mars, to="adamw")
        rows = zip(adamw.param_groups, mars.param_groups, self.settings, strict=True)
        for group, source, settings in rows:
            group.update(settings)
            if self.in_place:
                group.update(gamma=0.0, clip=None)
            else:  # what schedulers keep there
                hosts = source.keys() - GROUP_KEYS - set(ADAMW_KEYS)
                group.update({key: source[key] for key in hosts - group.keys()})
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                if key in group:
                    group[key] = group[key] / self.lr_scale
        for state in adamw.state.values():
            for key in HISTORY:
                state.pop(key, None)
        adamw.zero_grad()
        return adamw

    def state_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"settings": self.settings, "lr_scale": self.lr_scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load :meth:`state_dict`: a resumed run has no AdamW from before the switch."""
        self.settings, self.lr_scale = list(state["settings"]), state["lr_scale"]


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
        if any(other[key] != first[key] for key in KEPT):
            raise ValueError(
                "a group of the optimizer holds parameters from different groups of AdamW: "
                "keep AdamW's groups separate, as migrate does"
            )
    return first


def repoint(extra: Any, old: Optimizer, new: Optimizer, lr_scale: float) -> None:
    """A scheduler of the old optimizer moves the new one from now on."""
    if not isinstance(extra, LRScheduler) or getattr(extra, "optimizer", old) is not old:
        return
    extra.optimizer = new
    for inner in getattr(extra, "_schedulers", ()):
        repoint(inner, old, new, lr_scale)
    if hasattr(extra, "base_lrs"):
        extra.base_lrs = [lr / lr_scale for lr in extra.base_lrs]
