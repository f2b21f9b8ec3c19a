"""From a MARS that was restored to the AdamW that goes on, with AdamW's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim.optimizer import Optimizer

from ..optim.groups.keys import GROUP_KEYS
from ..optim.tools.migrate import ADAMW_KEYS, HOST_RATES, check_source, migrate, scale_rates
from ..optim.tools.origin import unwrapped
from ..optim.tools.release import GradientRelease
from ..optim.values import check_number
from .detector import Alarm

KEPT = ("betas", "eps", "weight_decay")
HISTORY = ("last_grad", "last_param", "mars_last_grad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Record of a rollback by the guard.

    Args:
        optimizer: to train on with: a torch.optim.AdamW, or the same MARS turned into AdamW
            (``in_place=True``).
        step: steps taken in the state that was restored; the next one is ``step + 1``.
        position: what :meth:`~mars_optim.Guard.watch` was told there: where the data stood.
        detected: step at which it was decided.
        alarm: the signal that decided.
        clean: whether the snapshot is from before the first step beyond the limit, with a margin
            of ``patience`` steps; False if all that are kept are younger.
    """

    optimizer: Optimizer
    step: int
    position: Any
    detected: int
    alarm: Alarm
    clean: bool


class RollbackTarget:
    """Settings of each group as AdamW.

    Args:
        settings: of each group: betas, eps, weight_decay.
        sizes: of each group: how many parameters it has.
        lr_scale: MARS's lr over AdamW's.
        in_place: turn the correction off instead of making another optimizer.
    """

    def __init__(
        self,
        settings: list[dict[str, Any]],
        sizes: list[int],
        *,
        lr_scale: float,
        in_place: bool,
    ) -> None:
        self.settings = settings
        self.sizes = sizes
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
        if not in_place:
            _check_way(optimizer)
        check_number("lr_scale", lr_scale, low=0.0, above=True)
        before = unwrapped(adamw).param_groups if isinstance(adamw, Optimizer) else adamw
        groups = optimizer.param_groups
        origins = [group if before is None else _origin(group, before) for group in groups]
        for group, origin in zip(groups, origins, strict=True):
            acts = float(group["lr"]) * group.get("lr_ratio", 1.0)
            of_adamw = float(origin["lr"]) * origin.get("lr_ratio", 1.0)
            if before is not None and group["params"] and acts > 1.001 * lr_scale * of_adamw:
                raise ValueError(
                    f"the optimizer's lr {acts:g} is more than "
                    f"lr_scale={lr_scale:g} times AdamW's {of_adamw:g}: set "
                    "lr_scale to their ratio, or AdamW would continue at too high a rate"
                )
        kept = [{key: origin[key] for key in KEPT} for origin in origins]
        return cls(kept, _sizes(optimizer), lr_scale=lr_scale, in_place=in_place)

    def check(self, optimizer: Optimizer, step: int) -> None:
        """Raise ValueError where snapshots of the run no longer fit the groups of ``optimizer``.

        Args:
            optimizer: the guarded one.
            step: of the run.
        """
        now, then = _sizes(optimizer), self.sizes
        if now != then:
            raise ValueError(
                f"optimizer has {sum(now)} parameters in {len(now)} groups and had {sum(then)} in "
                f"{len(then)} when the guard was made, which could not take it back. Call close() "
                f"of this guard, and make a new one (step={step}) right after add_param_group, "
                "without adamw= or with one that has the new parameters too"
            )

    def go(self, mars: Optimizer) -> Optimizer:
        """The AdamW that goes on from the state of ``mars``."""
        adamw = mars if self.in_place else migrate(mars, to="adamw")
        rows = zip(adamw.param_groups, mars.param_groups, self.settings, strict=True)
        for group, source, settings in rows:
            group.update(settings)
            if self.in_place:
                group.update(gamma=0.0, clip=None, cautious=False)
            else:  # what schedulers keep there
                hosts = source.keys() - GROUP_KEYS - set(ADAMW_KEYS)
                group.update({key: source[key] for key in hosts - group.keys()})
            scale_rates(group, ("lr", *HOST_RATES), 1.0 / self.lr_scale)
        for state in adamw.state.values():
            for key in HISTORY:
                state.pop(key, None)
        adamw.zero_grad()
        return adamw

    def factors(self, optimizer: Optimizer) -> list[float]:
        """By which the rates of each group are multiplied where AdamW goes on."""
        ratios = [1.0 if self.in_place else g.get("lr_ratio", 1.0) for g in optimizer.param_groups]
        return [ratio / self.lr_scale for ratio in ratios]

    def state_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"settings": self.settings, "lr_scale": self.lr_scale}

    def load_state_dict(self, state: Mapping[str, Any], optimizer: Optimizer) -> None:
        """Load :meth:`state_dict`: a resumed run has no AdamW from before the switch.

        Raises:
            ValueError: if it is of other groups than those of ``optimizer``.
        """
        settings, sizes = list(state["settings"]), _sizes(optimizer)
        if len(settings) != len(sizes):
            raise ValueError(
                f"state is of a guard whose optimizer had {len(settings)} groups, and this one has "
                f"{len(sizes)}: restore the optimizer first, with all its groups, or go on with "
                "a new guard, without load_state_dict"
            )
        self.settings, self.sizes, self.lr_scale = settings, sizes, state["lr_scale"]


def _sizes(optimizer: Optimizer) -> list[int]:
    """How many parameters each group has."""
    return [len(group["params"]) for group in optimizer.param_groups]


def _origin(group: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The group of ``before`` that had the parameters of ``group``; an empty one is its own."""
    if not group["params"]:
        return group
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


def _check_way(optimizer: Optimizer) -> None:
    """Raise ValueError for an optimizer that no AdamW can go on from."""
    if GradientRelease.of(optimizer) is not None:
        raise ValueError(
            "optimizer is under release_gradients, whose hooks would go on stepping beside the "
            "AdamW: set in_place=True, or call remove() on its handle first"
        )
    try:
        check_source(optimizer, "adamw")
    except ValueError as error:
        raise ValueError(f"the guard cannot go back to AdamW from optimizer: {error}") from None
