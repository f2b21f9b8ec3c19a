"""How runs are looked after and carried out. No part of what a run is."""

from __future__ import annotations

from typing import ClassVar, Literal

from .table import Flag, Number, Whole, option, table


@table
class RunningPlan:
    """How the runs are looked after. It may change at any time."""

    limit_minutes: Number = option(
        0.0,
        "a run that takes longer is ended; 0 for ten times the expected time and ten minutes",
        ge=0.0,
    )
    retries: Whole = option(
        2, "further tries of a run that fails or dies; of one that takes too long, one", ge=0
    )
    checkpoint_minutes: Number = option(
        5.0, "between checkpoints inside a run, from which it goes on; 0 for none", ge=0.0
    )
    probe_steps: Whole = option(
        0,
        "least steps of the short runs that take a command's step time; 0 for a twentieth of "
        "training.steps, ten at the least",
        ge=0,
        le=10**12,
    )
    telemetry: Flag = option(
        True, "record noise, correction and clip with the training rows, where an arm is MARS"
    )


@table
class ExecutionOptions(RunningPlan):
    """How one run is carried out: as its plan says, and on how many devices and so on.

    Raises:
        UserError: naming the option that is out of its range.
    """

    TABLE: ClassVar[str] = "execution"

    sharding: Literal["ddp", "fsdp2"] = option(
        "ddp",
        'of several processes: each holds the whole model ("ddp"), or its share of every tensor '
        '("fsdp2")',
    )
    activation_checkpointing: Flag = option(
        False, "keep the inputs of blocks only and compute the rest again: less memory, more time"
    )
    compile: Flag = option(False, "torch.compile the model")
    compile_backend: str = option("inductor", "of torch.compile")
    checkpoint_steps: Whole = option(
        0, "steps between checkpoints, beside those by time; 0 for none", ge=0
    )
    keep: Whole = option(
        0,
        "newest checkpoints that stay, one of them of the last step; 0 for one while it runs",
        ge=0,
    )
    keep_best: Flag = option(False, "also keep the checkpoint of the lowest validation loss")
    keep_weights: Flag = option(False, "write the last weights, whole, to weights.pt")
    unusable: Literal["begin again", "refuse"] = option(
        "begin again",
        'on checkpoints of which none can be used: "begin again", or "refuse" and leave them',
    )
    sparing: Flag = option(
        False, "leave out evaluations before the last that take much of a short run"
    )
    peak_tflops: Number = option(
        0.0, "of one device, dense bf16, for the utilisation; 0 for what is known of it", ge=0.0
    )
