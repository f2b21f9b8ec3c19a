"""The types that every part of the step shares."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .hyperparameters import Settings

State = dict[str, Tensor]


Update = Callable[[list[Tensor], list[Tensor], list[State], Settings], None]
