"""How a run is carried out: on how many devices, with which checkpoints. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...options import check, option


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOptions:
    """How a run is carried out. No part of what the run is: it may change when a run goes on.

    Raises:
        UserError: naming the option that is out of its range.
    """

    sharding: Literal["ddp", "fsdp2"] = option(
        "ddp",
        'of several processes: each holds the whole model ("ddp"), or its share of every tensor '
        '("fsdp2")',
        choices=("ddp", "fsdp2"),
    )
    activation_checkpointing: bool = option(
        False, "keep the inputs of blocks only and compute the rest again: less memory, more time"
    )
    compile: bool = option(False, "torch.compile the model")
    compile_backend: str = option("inductor", "of torch.compile")
    checkpoint_steps: int = option(
        0, "steps between checkpoints, beside those by time; 0 for none", low=0
    )
    keep: int = option(
        0,
        "newest checkpoints that stay, one of them of the last step; 0 for one while it runs",
        low=0,
    )
    keep_best: bool = option(False, "also keep the checkpoint of the lowest validation loss")
    keep_weights: bool = option(False, "write the last weights, whole, to weights.pt")
    unusable: Literal["begin again", "refuse"] = option(
        "begin again",
        'on checkpoints of which none can be used: "begin again", or "refuse" and leave them',
        choices=("begin again", "refuse"),
    )
    telemetry: bool = option(
        True, "noise, correction and clip in the training rows, where the optimizer is MARS"
    )
    sparing: bool = option(
        False, "leave out evaluations before the last that take much of a short run"
    )
    peak_tflops: float = option(
        0.0, "of one device, dense bf16, for the utilisation; 0 for what is known of it", low=0.0
    )

    def __post_init__(self) -> None:
        check(self, "execution")
