"""Every method of a Task is tried once, so that no run is spent on one that breaks the protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import did_you_mean
from ..plan.decision import LOSS
from ..plan.task import ROW_KEYS
from .base import Task, scores_of
from .python import reason

T = TypeVar("T")
SEED, STEP, MICRO = 12345, 3, 0


def check_task(task: Task, device: torch.device | str = "cpu", *, metric: str = LOSS) -> None:
    """See that ``task`` keeps the protocol of :class:`~mars_optim.experiment.tasks.Task`.

    Args:
        task: to be tried.
        device: where it will be trained.
        metric: that decides: the evaluation must have it.

    Raises:
        ValueError: naming the method, what it did and what mends it.
    """
    if not isinstance(task.batch_tokens, int) or task.batch_tokens < 1:
        raise ValueError(
            f"batch_tokens = {task.batch_tokens!r} must be a whole number of tokens (or samples) "
            "in one batch"
        )
    model = _model(task).to(device)
    batch = _batch(task, device)
    _loss(task, model, batch)
    _evaluate(task, model, metric)
    if hasattr(task, "scores"):  # the runs call it in the place of evaluate
        _call(task, "scores", scores_of, task, model, task.batch_tokens)


def _model(task: Task) -> nn.Module:
    models = [_call(task, "build_model", task.build_model, SEED) for _ in range(2)]
    for model in models:
        if not isinstance(model, nn.Module):
            raise ValueError(f"build_model(seed) returned a {_kind(model)}, not a torch.nn.Module")
    if models[0] is models[1]:
        raise ValueError(
            "build_model(seed) returned the same model twice: every run needs a fresh one"
        )
    if not any(p.requires_grad for p in models[0].parameters()):
        raise ValueError("build_model(seed) returned a model without a trainable parameter")
    first, second = (m.state_dict() for m in models)
    for name, value in first.items():
        if not _same(value, second[name]):
            raise ValueError(
                f"build_model(seed) gave other weights ({name}) at the same seed: call "
                "torch.manual_seed(seed) in it before the layers are made"
            )
    return models[0]


def _batch(task: Task, device: torch.device | str) -> Any:
    batch, again = (_call(task, "batch", task.batch, SEED, STEP, MICRO) for _ in range(2))
    leaves, shape = pytree.tree_flatten(batch)
    others, other_shape = pytree.tree_flatten(again)
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise ValueError(
            f"batch(seed, step, micro) returned a {_kind(batch)} without a tensor in it; give a "
            "tensor, or a tuple, list or dict of tensors"
        )
    if shape != other_shape or not all(map(_same, leaves, others)):
        raise ValueError(
            "batch(seed, step, micro) returned something else at the second call: draw it "
            "from a torch.Generator seeded by all three, so that every arm sees the same data"
        )
    return pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, batch)


def _loss(task: Task, model: nn.Module, batch: Any) -> None:
    loss = _call(task, "loss", task.loss, model, batch)
    if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
        shape = f" of shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else ""
        raise ValueError(
            f"loss(model, batch) returned a {_kind(loss)}{shape}; a 0-d floating-point tensor is "
            "needed, such as F.cross_entropy gives"
        )
    if not loss.requires_grad:
        raise ValueError(
            "loss(model, batch) returned a tensor without gradient: leave out .detach(), .item() "
            "and torch.no_grad()"
        )
    if not math.isfinite(loss.item()):
        raise ValueError(
            f"loss(model, batch) must be finite: it is {loss.item()} for a fresh model on its "
            "first data"
        )
    torch.autograd.backward(loss)
    if not any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()):
        raise ValueError("loss(model, batch) does not depend on the model's parameters")
    model.zero_grad()


def _evaluate(task: Task, model: nn.Module, metric: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    was_training = model.training
    told = [_call(task, "evaluate", task.evaluate, model, task.batch_tokens) for _ in range(2)]
    for scores in told:
        _scores(scores, metric)
    if not _alike(*told):
        raise ValueError(
            f"evaluate(model, tokens) returned {told[0]} and then {told[1]}: use the same "
            "data at every call, and model.eval() against dropout"
        )
    if model.training != was_training:
        raise ValueError(
            "evaluate(model, tokens) left the model in evaluation mode: end it with model.train()"
        )
    if not all(_same(value, before[name]) for name, value in model.state_dict().items()):
        raise ValueError("evaluate(model, tokens) changed the model")


def _scores(told: Any, metric: str) -> None:
    """See that an evaluation tells the loss, alone or among other numbers, and what decides."""
    scores = told if isinstance(told, Mapping) else {LOSS: told}
    for name, value in scores.items():
        if not isinstance(value, int | float):
            where = f" as {name!r}" if isinstance(told, Mapping) else ""
            raise ValueError(
                f"evaluate(model, tokens) returned a {_kind(value)}{where}; a Python float is "
                "needed: float(...) or .item()"
            )
    _check_names(scores)
    for name in dict.fromkeys((LOSS, metric)):
        if name not in scores:
            way = f"; there are {', '.join(scores)}" + did_you_mean(name, scores)
            if not isinstance(told, Mapping):
                way = ': return a dict such as {"loss": ..., ' + f'"{name}": ...' + "}"
            what = "decision.metric" if name == metric else "the validation loss"
            raise ValueError(f"evaluate(model, tokens) returned no {name!r}, {what}{way}")
        if not math.isfinite(scores[name]):
            where = f"[{name!r}]" if isinstance(told, Mapping) else ""
            raise ValueError(
                f"evaluate(model, tokens){where} must be finite: it is {scores[name]} for a "
                "fresh model"
            )


def _check_names(scores: Mapping[Any, float]) -> None:
    """See that no metric has the name of what a row has beside its metrics.

    The loss under the name of its column, too, is no other metric.
    """
    for name, value in scores.items():
        if not isinstance(name, str):
            raise ValueError(f"evaluate(model, tokens) returned the key {name!r}: give a text")
        if name in ROW_KEYS and not (name == "valid_loss" and value == scores.get(LOSS)):
            raise ValueError(
                f"evaluate(model, tokens) returned {name!r}, the name of a column that every run "
                f"records by itself ({', '.join(sorted(ROW_KEYS))}): give the metric another "
                f"name; the validation loss is {LOSS!r}"
            )


def _alike(a: Any, b: Any) -> bool:
    """Whether two evaluations told the same; nan counts as equal to nan."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return bool(a == b)
    return a.keys() == b.keys() and all(a[k] == b[k] or a[k] != a[k] for k in a)


def _call(task: Task, name: str, method: Callable[..., T], *arguments: Any) -> T:
    try:
        return method(*arguments)
    except Exception as error:
        raise ValueError(f"{type(task).__name__}.{name} failed: {reason(error)}") from error


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())
    return type(a) is type(b) and bool(a == b)


def _kind(value: object) -> str:
    return type(value).__name__
