"""One run: a frozen spec in, rows and an outcome on disk."""

from ..plan import ExecutionOptions
from .arm_class import wants_closure, with_sources
from .convention import gradient_scale
from .gradient import Gradients, autocast_of
from .loop import train
from .optimizer import arm_groups, build_optimizer, state_bytes
from .parallelize import parallelize
from .ranks import Ranks, alone, join_ranks, run_writer, seed_all
from .schedule import evaluation_steps, lr_factor, scheduled
from .weights import load_weights

__all__ = [
    "ExecutionOptions",
    "Gradients",
    "Ranks",
    "alone",
    "arm_groups",
    "autocast_of",
    "build_optimizer",
    "evaluation_steps",
    "gradient_scale",
    "join_ranks",
    "load_weights",
    "lr_factor",
    "parallelize",
    "run_writer",
    "scheduled",
    "seed_all",
    "state_bytes",
    "train",
    "wants_closure",
    "with_sources",
]
