"""Schedulers of the guarded optimizer: after going back they move the AdamW, at its own rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from ..optim.tools.origin import unwrapped

# rates of each group that torch's schedulers keep; eta_min is one for all
PER_GROUP = ("base_lrs", "max_lrs", "min_lrs", "_last_lr")


def repoint(
    extras: Iterable[Any], old: Optimizer, new: Optimizer, factors: Sequence[float]
) -> None:
    """The schedulers of the old optimizer move the new one from now on.

    Args:
        extras: schedulers, hosts' wrappers of them, or anything else, which is left alone.
        old: the optimizer that they moved.
        new: the one that they are to move; may be the old one.
        factors: of each group, by which their rates are multiplied.
    """
    seen: set[int] = set()
    for scheduler in _all(extras):
        if id(scheduler) in seen or not _moves(scheduler, old):
            continue
        seen.add(id(scheduler))
        for name in PER_GROUP:
            rates = getattr(scheduler, name, None)
            if isinstance(rates, list | tuple):
                pairs = zip(rates, factors, strict=False)  # of groups added later it has none
                setattr(scheduler, name, [rate * factor for rate, factor in pairs])
        if hasattr(scheduler, "eta_min"):
            scheduler.eta_min *= factors[0]
        if new is not old and hasattr(scheduler, "optimizer"):
            scheduler.optimizer = new
            if getattr(scheduler, "_step_count", 0) == 1:
                scheduler._step_count = 2  # else torch warns, for it did not see the AdamW made


def check_schedulers(
    extras: Mapping[str, Any], optimizer: Optimizer, factors: Sequence[float]
) -> None:
    """Raise ValueError for a scheduler whose rates cannot become AdamW's.

    Args:
        extras: of the guard, by name.
        optimizer: the guarded one.
        factors: of each group, by which rates will be multiplied.
    """
    for name, extra in extras.items():
        for scheduler in _all([extra]):
            if not _moves(scheduler, optimizer):
                continue
            kind = f"extras[{name!r}] ({type(scheduler).__name__})"
            if not isinstance(scheduler, LRScheduler) and set(factors) != {1.0}:
                raise ValueError(
                    f"{kind} is no scheduler of torch's, so its rates cannot become AdamW's by "
                    "lr_scale and lr_ratio: leave it out of extras and set AdamW's rate in "
                    "on_rollback"
                )
            if getattr(scheduler, "eta_min", 0.0) and len(set(factors)) > 1:
                raise ValueError(
                    f"{kind} has one eta_min for groups with different lr_ratio, which AdamW does "
                    "not have: set in_place=True, or eta_min=0"
                )


def _all(extras: Iterable[Any]) -> list[Any]:
    """Each, out of a host's wrapper, with the schedulers that it is made of."""
    found = []
    for extra in extras:
        inner = getattr(extra, "scheduler", None)
        scheduler = inner if isinstance(inner, LRScheduler) else extra
        found += [scheduler, *_all(getattr(scheduler, "_schedulers", ()))]
    return found


def _moves(scheduler: Any, optimizer: Optimizer) -> bool:
    """Whether it is a scheduler of this optimizer; one of several says so by its parts."""
    its = getattr(scheduler, "optimizer", None)
    if its is None:
        return isinstance(scheduler, LRScheduler)
    steps = callable(getattr(scheduler, "step", None))
    return steps and isinstance(its, Optimizer) and unwrapped(its) is optimizer
