"""Types: a parameter's state, and what it may hold for a step."""

from __future__ import annotations

from torch import Tensor

State = dict[str, Tensor]

BUFFERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "last_grad")
KEPT = ("step", *BUFFERS)
