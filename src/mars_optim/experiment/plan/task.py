"""Task of a pilot: a GPT, a ResNet, a Task in Python, any command, or runs that exist."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ...errors import UserError
from .any_arm import is_any
from .command import check_command
from .table import Flag, Whole, option, table

_KIND = (
    '"gpt" (a small one, on bytes), "images" (ResNet-18), "python" (a Task of yours) or '
    '"command" (any program)'
)
_CORPUS = (
    'text: "stdlib" (this Python\'s own sources), or a path to a file or folder, such as '
    "`mars prepare` writes; for images, only such a folder"
)
_WIDTH = "model width, a multiple of heads; of a ResNet, its stem's"
_BATCH = "windows or images in a batch"
_FOLDER = "where source or command are found, from this file; does not count as part of the job"


ROW_KEYS = frozenset({"step", "tokens", "seconds", "valid_loss"})
"""Keys of a row of an evaluation that are no scores: no metric may have such a name."""


@table
class GptPlan:
    """A small GPT on text."""

    kind: Literal["gpt"] = option("gpt", _KIND)
    corpus: str = option("stdlib", _CORPUS)
    context: Whole = option(64, "tokens (bytes) in a window", ge=2, le=65536)
    layers: Whole = option(2, "transformer blocks", ge=1, le=1000)
    width: Whole = option(64, _WIDTH, ge=1, le=65536)
    heads: Whole = option(2, "attention heads", ge=1, le=1024)
    batch: Whole = option(8, _BATCH, ge=1, le=65536)
    vocabulary: Whole = option(
        0, "of the model, to pad the tokenizer's (GPT-2: 50304); 0 for no padding", ge=0
    )
    bias: Flag = option(False, "in linear maps and norms")
    init: Literal["width", "gpt2"] = option(
        "width", '"width": N(0, 1 / width), for small models; "gpt2": N(0, 0.02^2)'
    )
    scale_attention_by_layer: Flag = option(
        False, "divide attention logits by the block's number, as MARS's authors do"
    )
    base_width: Whole = option(
        0,
        "of the smaller model that the arms' settings are of: they are carried to this width as by "
        "`mars transfer`; 0 if they are this one's",
        ge=0,
        le=65536,
    )
    base_layers: Whole = option(0, "likewise, blocks", ge=0, le=1000)


@table
class ImagesPlan:
    """A ResNet-18 on images."""

    kind: Literal["images"] = option("images", _KIND)
    corpus: str = option("stdlib", _CORPUS)
    width: Whole = option(64, _WIDTH, ge=1, le=65536)
    batch: Whole = option(8, _BATCH, ge=1, le=65536)
    augment: Flag = option(True, "random crops (padding 4) and flips")
    subset: Whole = option(0, "train on this many images, the same for every seed; 0 for all", ge=0)


@table
class PythonPlan:
    """A Task of the user's, in Python."""

    kind: Literal["python"] = option("python", _KIND)
    source: str = option(
        "", '"my_task.py:MyTask" or "package.module:MyTask", called without arguments'
    )
    folder: str = option(".", _FOLDER, compare=False)


@table
class CommandPlan:
    """Any program of the user's."""

    kind: Literal["command"] = option("command", _KIND)
    command: str = option(
        "", "with {optimizer}, {lr}, {seed}, {steps} and {run_dir} where they belong"
    )
    metrics: str = option(
        "metrics.jsonl",
        "file that it writes in {run_dir}: JSONL, CSV or TensorBoard events; may have *",
    )
    step_key: str = option("step", "names in that file: steps taken")
    loss_key: str = option("loss", "training loss")
    valid_key: str = option("valid_loss", "validation loss; the last one counts")
    score_keys: tuple[str, ...] = option(
        (), "further metrics, shown beside it; decision.metric joins them by itself"
    )
    tokens_key: str = option("tokens", "tokens trained on so far, if there")
    tokens_per_step: Whole = option(1, "where tokens_key is not there", ge=1)
    seconds_key: str = option("seconds", "of training so far, without evaluation, if there")
    grad_norm_key: str = option("grad_norm", "if there")
    state_bytes_key: str = option("state_bytes", "of the optimizer, if there")
    parameters_key: str = option("parameters", "of the model, if there")
    folder: str = option(".", _FOLDER, compare=False)


@table
class ImportedPlan:
    """Runs that exist."""

    kind: Literal["imported"] = option("imported", _KIND)
    runs: str = option("", "where the runs came from")


Kinds = GptPlan | ImagesPlan | PythonPlan | CommandPlan | ImportedPlan
TaskPlan = Annotated[Kinds, Field(discriminator="kind")]


def what_is_trained(task: Kinds) -> str:
    """Its kind and its data, or where it is written, in a few words."""
    match task:
        case GptPlan() | ImagesPlan():
            return f"{task.kind} on {task.corpus}"
        case PythonPlan():
            return task.source
        case CommandPlan():
            return task.command
        case ImportedPlan():
            return task.runs


def of_kind(task: dict[str, Any]) -> dict[str, Any]:
    """A task's keys with its kind, and without those of other kinds that are at their defaults."""
    task = {"kind": "gpt", **task}
    mine = next((cls for cls in get_args(Kinds) if cls().kind == task["kind"]), None)
    if mine is None:
        return task  # what kinds there are is told where it is checked
    others = {f.name: f.default for cls in get_args(Kinds) for f in fields(cls)}
    for f in fields(mine):
        del others[f.name]
    return {k: v for k, v in task.items() if k not in others or v != others[k]}


def check_task(task: Kinds, table: str = "task", settings: Collection[str] = ()) -> None:
    """Check what no single key of a task can tell.

    Args:
        task: to check.
        table: of the plan that it comes from, for messages.
        settings: of the arms, which a command may name.

    Raises:
        UserError: naming the key.
    """
    match task:
        case GptPlan():
            _check_gpt(task, table)
        case ImagesPlan(corpus="" | "stdlib"):
            raise UserError(
                "task.corpus must be a folder of images that `mars prepare` wrote, for task.kind = "
                "'images'"
            )
        case PythonPlan():
            _check_source(task.source)
        case CommandPlan():
            check_command(task.command, settings)
            _check_metrics(task.metrics)
            check_scores(task.score_keys, "task.score_keys")


def _check_gpt(task: GptPlan, table: str) -> None:
    if task.width % task.heads:
        raise UserError(
            f"{table}.width = {task.width} must be a multiple of {table}.heads = {task.heads}"
        )
    if not task.corpus.strip():
        raise UserError("task.corpus is empty: give 'stdlib', a text file or a folder")


def check_carried(task: Kinds, name: str, optimizer: str) -> None:
    """Refuse an arm of another package where the settings are of a smaller model.

    Args:
        task: of the plan.
        name: of the arm.
        optimizer: its.

    Raises:
        UserError: naming the arm.
    """
    if isinstance(task, GptPlan) and (task.base_width or task.base_layers) and is_any(optimizer):
        raise UserError(
            f"arm.{name}.optimizer = {optimizer!r}: no known rule carries its settings to "
            "another size; leave out task.base_width and task.base_layers, or the arm"
        )


def _check_source(source: str) -> None:
    module, colon, name = source.rpartition(":")
    if not (colon and module.strip() and name.isidentifier()):
        raise UserError(
            f"task.source = {source!r} must be 'my_task.py:MyTask' or "
            "'package.module:MyTask'; `mars init task` writes an example"
        )


def check_scores(names: Collection[str], key: str) -> None:
    """Refuse a metric with the name of what every row has beside its metrics.

    Args:
        names: of the metrics.
        key: that holds them, for messages.

    Raises:
        UserError: naming the metric.
    """
    for name in names:
        if name in ROW_KEYS:
            raise UserError(
                f"{key} = {list(names)}: {name!r} is the name of a column that every run records "
                f"by itself ({', '.join(sorted(ROW_KEYS))}): leave it out, or write the metric "
                "under another name"
            )


def _check_metrics(metrics: str) -> None:
    if not metrics.strip() or metrics.startswith("/") or ".." in metrics:
        raise UserError(
            f"task.metrics = {metrics!r} must be a file in {{run_dir}}, such as 'metrics.jsonl'"
        )
