"""What a pilot trains: a GPT, a ResNet, a Task in Python, any command, or runs that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import UserError
from ...options import option
from .command import check_command

Kind = Literal["gpt", "images", "python", "command", "imported"]

_GPT = ("kind", ("gpt",))
_IMAGES = ("kind", ("images",))
_BUILT_IN = ("kind", ("gpt", "images"))
_PYTHON = ("kind", ("python",))
_COMMAND = ("kind", ("command",))
_IMPORTED = ("kind", ("imported",))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What is trained: a small GPT on text, a ResNet-18 on images, or a job of the user's."""

    kind: Kind = option(
        "gpt",
        '"gpt" (a small one, on bytes), "images" (ResNet-18), "python" (a Task of yours) or '
        '"command" (any program)',
    )
    corpus: str = option(
        "stdlib",
        'text: "stdlib" (this Python\'s own sources), or a path to a file or folder, such as '
        "`mars prepare` writes; for images, only such a folder",
        of=_BUILT_IN,
    )
    context: int = option(64, "tokens (bytes) in a window", low=2, high=65536, of=_GPT)
    layers: int = option(2, "transformer blocks", low=1, high=1000, of=_GPT)
    width: int = option(
        64,
        "model width, a multiple of heads; of a ResNet, its stem's",
        low=1,
        high=65536,
        of=_BUILT_IN,
    )
    heads: int = option(2, "attention heads", low=1, high=1024, of=_GPT)
    batch: int = option(8, "windows or images in a batch", low=1, high=65536, of=_BUILT_IN)
    vocabulary: int = option(
        0, "of the model, to pad the tokenizer's (GPT-2: 50304); 0 for no padding", low=0, of=_GPT
    )
    bias: bool = option(False, "in linear maps and norms", of=_GPT)
    init: Literal["width", "gpt2"] = option(
        "width", '"width": N(0, 1 / width), for small models; "gpt2": N(0, 0.02^2)', of=_GPT
    )
    scale_attention_by_layer: bool = option(
        False, "divide attention logits by the block's number, as MARS's authors do", of=_GPT
    )
    augment: bool = option(True, "random crops (padding 4) and flips", of=_IMAGES)
    subset: int = option(
        0, "train on this many images, the same for every seed; 0 for all", low=0, of=_IMAGES
    )

    source: str = option(
        "", '"my_task.py:MyTask" or "package.module:MyTask", called without arguments', of=_PYTHON
    )

    command: str = option(
        "", "with {optimizer}, {lr}, {seed}, {steps} and {run_dir} where they belong", of=_COMMAND
    )
    metrics: str = option(
        "metrics.jsonl",
        "file that it writes in {run_dir}: JSONL, CSV or TensorBoard events; may have *",
        of=_COMMAND,
    )
    step_key: str = option("step", "names in that file: steps taken", of=_COMMAND)
    loss_key: str = option("loss", "training loss", of=_COMMAND)
    valid_key: str = option("valid_loss", "validation loss; the last one counts", of=_COMMAND)
    tokens_key: str = option("tokens", "tokens trained on so far, if there", of=_COMMAND)
    tokens_per_step: int = option(1, "where tokens_key is not there", low=1, of=_COMMAND)
    seconds_key: str = option(
        "seconds", "of training so far, without evaluation, if there", of=_COMMAND
    )
    grad_norm_key: str = option("grad_norm", "if there", of=_COMMAND)
    state_bytes_key: str = option("state_bytes", "of the optimizer, if there", of=_COMMAND)
    parameters_key: str = option("parameters", "of the model, if there", of=_COMMAND)

    runs: str = option("", "where the runs came from", of=_IMPORTED)

    folder: str = option(
        ".",
        "where source or command are found, from this file; does not count as part of the job",
        of=("kind", ("python", "command")),
        compare=False,
    )


def check_task(task: TaskPlan, table: str = "task") -> None:
    """Check what no single key of a task can tell.

    Args:
        task: to check.
        table: of the plan that it comes from, for messages.

    Raises:
        UserError: naming the key.
    """
    if task.kind == "gpt":
        if task.width % task.heads:
            raise UserError(
                f"{table}.width = {task.width} must be a multiple of {table}.heads = {task.heads}"
            )
        if not task.corpus.strip():
            raise UserError("task.corpus is empty: give 'stdlib', a text file or a folder")
    if task.kind == "images" and task.corpus in ("", "stdlib"):
        raise UserError(
            "task.corpus must be a folder of images that `mars prepare` wrote, for task.kind = "
            "'images'"
        )
    if task.kind == "python":
        module, colon, name = task.source.rpartition(":")
        if not (colon and module.strip() and name.isidentifier()):
            raise UserError(
                f"task.source = {task.source!r} must be 'my_task.py:MyTask' or "
                "'package.module:MyTask'; `mars init task` writes an example"
            )
    if task.kind == "command":
        check_command(task.command)
        if not task.metrics.strip() or task.metrics.startswith("/") or ".." in task.metrics:
            raise UserError(
                f"task.metrics = {task.metrics!r} must be a file in {{run_dir}}, such as "
                "'metrics.jsonl'"
            )
