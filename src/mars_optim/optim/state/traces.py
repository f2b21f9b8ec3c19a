"""What a step that is refused must take back: state and memory that it made on the way."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from torch import Tensor

from ..gamma.schedule import PROBE, REMEMBERED

Group = dict[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


class Traces:
    """State and groups before a step; :meth:`remove` makes them so again.

    Until the first parameter moves a step only adds state, converts counters, and lets gamma's
    schedules look at the gradients. So a shallow copy is enough, but for what the schedules keep.
    """

    def __init__(self, groups: Sequence[Group], states: States) -> None:
        self._groups, self._states = groups, states
        self._memory = [{k: g[k] for k in REMEMBERED if k in g} for g in groups]
        self._before = {param: dict(state) for param, state in states.items()}
        # only a kernel that is asked for can be refused once the schedules have looked
        asked = any(g["fused"] for g in groups)
        self._probes = {
            param: state[PROBE].clone()
            for param, state in states.items()
            if asked and PROBE in state
        }

    def remove(self) -> None:
        """Take back what has been added since."""
        for group, memory in zip(self._groups, self._memory, strict=True):
            for key in REMEMBERED:
                group.pop(key, None)
            group.update(memory)
        for param in list(self._states):
            if param not in self._before:
                del self._states[param]
                continue
            state = self._states[param]
            state.clear()
            state.update(self._before[param])
            if param in self._probes:
                state[PROBE].copy_(self._probes[param])
