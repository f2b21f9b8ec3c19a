"""State and memory that a refused step has made and must take back."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from torch import Tensor

from ..gamma.kept import NOW, PEAK, follows_lr

Group = dict[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


class Traces:
    """State and groups before a step; :meth:`remove` makes them so again.

    Until the first parameter moves a step only adds state, converts counters, and lets gamma follow
    the learning rate. So a shallow copy is enough, but for what is written there.
    """

    def __init__(self, groups: Sequence[Group], states: States) -> None:
        self._groups, self._states = groups, states
        self._gammas = [
            {k: g[k].clone() for k in (NOW, PEAK) if isinstance(g.get(k), Tensor)}
            if follows_lr(g)
            else {}
            for g in groups
        ]
        self._before = {param: dict(state) for param, state in states.items()}

    def remove(self) -> None:
        """Take back what has been added since."""
        for group, gammas in zip(self._groups, self._gammas, strict=True):
            for key, value in gammas.items():
                group[key].copy_(value)
        for param in list(self._states):
            if param not in self._before:
                del self._states[param]
                continue
            state = self._states[param]
            state.clear()
            state.update(self._before[param])
