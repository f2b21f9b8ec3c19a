"""The same step in several speeds: one :class:`Bucket`, one oracle (``reference.update``)."""

from .amp import Amp
from .base import Backend, Bucket
from .buffers import init_state, state_dtypes
from .dispatch import BACKENDS, FUSED, choose, explain, prepare
from .layout import MisfitError

__all__ = [
    "BACKENDS",
    "FUSED",
    "Amp",
    "Backend",
    "Bucket",
    "MisfitError",
    "choose",
    "explain",
    "init_state",
    "prepare",
    "state_dtypes",
]
