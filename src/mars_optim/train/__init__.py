"""One run: a frozen spec in, rows and an outcome on disk."""

from ..records import Engine
from .arms import arm_groups, build_optimizer, state_bytes
from .gradient import Gradients
from .loop import train
from .ranks import Ranks, alone, join_ranks, run_writer, seed_all
from .reading import gradient_scale
from .schedule import evaluation_steps, lr_factor, scheduled
from .spread import spread
from .weights import load_weights

__all__ = [
    "Engine",
    "Gradients",
    "Ranks",
    "alone",
    "arm_groups",
    "build_optimizer",
    "evaluation_steps",
    "gradient_scale",
    "join_ranks",
    "load_weights",
    "lr_factor",
    "run_writer",
    "scheduled",
    "seed_all",
    "spread",
    "state_bytes",
    "train",
]
