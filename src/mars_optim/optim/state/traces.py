"""State and memory that a refused step has made and must take back."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from torch import Tensor

from ..gamma.kept import KEYS, NOW, PEAK, Plans, follows_lr

Group = dict[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


class Traces:
    """State, groups and plans before a step; :meth:`remove` makes them so again.

    Until the first parameter moves a step only adds state, converts counters, puts a chosen gamma's
    memory by other tensors, and lets gamma follow the learning rate. So a shallow copy is enough,
    but for what is written there.
    """

    def __init__(self, groups: Sequence[Group], states: States, plans: Plans) -> None:
        self._groups, self._states, self._plans = groups, states, plans
        self._memory = [{key: group[key] for key in KEYS if key in group} for group in groups]
        self._followed = [
            {k: g[k].clone() for k in (NOW, PEAK) if isinstance(g.get(k), Tensor)}
            if follows_lr(g)
            else {}
            for g in groups
        ]
        self._before = {param: dict(state) for param, state in states.items()}
        self._planned = dict(plans)

    def remove(self) -> None:
        """Take back what has been changed since."""
        for group, memory, followed in zip(self._groups, self._memory, self._followed, strict=True):
            for key in KEYS:
                group.pop(key, None)
            group.update(memory)
            for key, value in followed.items():
                group[key].copy_(value)
        self._plans.clear()
        self._plans.update(self._planned)
        for param in list(self._states):
            if param not in self._before:
                del self._states[param]
                continue
            state = self._states[param]
            state.clear()
            state.update(self._before[param])
