"""State of a model and its optimizer, saved and loaded by names and whole shapes.

Loads torch.distributed.checkpoint, which takes a second: imported where it is needed.
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim.optimizer import Optimizer

from ...optim.gamma.kept import PROBE, PROBES

WHOLE = "optimizer.pt"  # in a checkpoint's folder


class Unreadable(Exception):  # noqa: N818
    """A checkpoint that is damaged."""


class OtherModel(Exception):  # noqa: N818
    """A checkpoint's tensors are not those of the model."""


def begin_save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer | None,
    group: distributed.ProcessGroup | None,
    judged: dict[str, Any] | None = None,
) -> Future[Any]:
    """Copy the state to the CPU's memory and begin to write it, in a thread of torch's.

    Args:
        folder: new.
        model: bare.
        optimizer: whose state goes by names of parameters, which sorting into groups does not
            change; None for one that is written whole.
        group: of the processes; None for one.
        judged: the model's state with the weights that are judged, where these are others.
    """
    state = {"model": model.state_dict(), "optimizer": _by_name(model, optimizer)}
    _hush()
    written = async_save(
        {**state, "judged": judged} if judged else state,
        storage_writer=FileSystemWriter(folder),
        process_group=group,
        no_dist=group is None,
    )
    assert isinstance(written, Future)  # as threads give it
    return written


def _by_name(model: nn.Module, optimizer: Optimizer | None) -> dict[str, dict[str, Any]]:
    if optimizer is None:
        return {}
    names = {id(p): name for name, p in model.named_parameters()}
    of_optimizer = {names[id(p)]: dict(entries) for p, entries in optimizer.state.items()}
    if any(PROBES in part for part in optimizer.param_groups):  # by name too, and whole
        parts = zip(optimizer.param_groups, optimizer.state_dict()["param_groups"], strict=True)
        for part, saved in parts:
            for p, probe in zip(part["params"], saved.get(PROBES, ()), strict=False):
                of_optimizer.setdefault(names[id(p)], {})[PROBE] = probe
    return of_optimizer


def end_save(written: Future[Any]) -> None:
    """Wait until all processes have written.

    Raises:
        OSError: with the first reason of those that could not.
    """
    try:
        written.result()
    except CheckpointException as error:
        raise OSError(_reason(error)) from None


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    group: distributed.ProcessGroup | None,
    *,
    whole: bool = False,
) -> None:
    """Read a checkpoint into a model and its optimizer, whole or not at all.

    Args:
        folder: of the checkpoint.
        model: bare, plain or sharded, however the one that was saved was.
        optimizer: that has taken no step.
        group: of the processes; None for one.
        whole: whether the optimizer's state was written whole.

    Raises:
        OtherModel: naming the first tensor that differs.
        Unreadable: with the reason.
        ValueError: if an optimizer does not take the state that it gave itself.
    """
    with _reading():
        reader = FileSystemReader(folder)
        saved = reader.read_metadata()
        state = {"model": _weights_like(saved, model), "optimizer": _state_like(saved, model)}
        load(state, storage_reader=reader, process_group=group, no_dist=group is None)
        given = read_whole(folder / WHOLE, optimizer) if whole else {}
    model.load_state_dict(state["model"])
    if not whole:
        _load_optimizer(model, optimizer, state["optimizer"])
        return
    try:
        optimizer.load_state_dict(given)
    except Exception as error:
        raise ValueError(_reason(error)) from error


def whole_state(optimizer: Optimizer) -> bytes:
    """All that ``state_dict()`` holds, as a file: groups may keep more than numbers."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    return file.getvalue()


def read_whole(file: Path, optimizer: Optimizer) -> dict[str, Any]:
    """The inverse of :func:`whole_state`: plain data, and objects of the optimizer's own code."""
    own = {type(part).__module__.partition(".")[0] for part in getattr(optimizer, "parts", ())}
    own.add(type(optimizer).__module__.partition(".")[0])
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    known = [pkgutil.resolve_name(name) for name in names if name.partition(".")[0] in own]
    with torch.serialization.safe_globals(known):
        found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The model's tensors of a checkpoint, whole, on the CPU; those that are judged.

    Raises:
        Unreadable: with the reason.
    """
    with _reading():
        reader = FileSystemReader(folder)
        metadata = reader.read_metadata()
        part = "judged" if _tensors(metadata, "judged") else "model"
        weights = {
            path[1]: torch.empty(entry.size, dtype=entry.properties.dtype, device="cpu")
            for path, entry in _tensors(metadata, part)
        }
        load({part: weights}, storage_reader=reader, no_dist=True)
    return weights


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    _hush()
    try:
        yield
    except OtherModel:
        raise
    except (Exception, CheckpointException) as error:  # whatever damaged files lead torch to
        raise Unreadable(_reason(error)) from None


def _tensors(saved: Metadata, part: str) -> list[tuple[tuple[str, ...], TensorStorageMetadata]]:
    """Path and metadata of each tensor in one part of the state."""
    entries = saved.state_dict_metadata
    paths = {key: tuple(map(str, path)) for key, path in (saved.planner_data or {}).items()}
    return [
        (paths[key], entry)
        for key, entry in entries.items()
        if paths[key][0] == part and isinstance(entry, TensorStorageMetadata)
    ]


def _weights_like(saved: Metadata, model: nn.Module) -> dict[str, Any]:
    """Memory to read the weights into, of the model's own kind."""
    here = model.state_dict()
    there = {path[1]: tuple(entry.size) for path, entry in _tensors(saved, "model")}
    for name in dict.fromkeys((*here, *there)):
        if not isinstance(here.get(name, here), Tensor):
            if name in here:
                continue  # a module's own extra state, which is no tensor
            raise OtherModel(f"{name} of shape {there[name]} is not in this one")
        if name not in there:
            raise OtherModel(f"it has no {name}")
        if there[name] != tuple(here[name].shape):
            raise OtherModel(f"{name} is {there[name]} there and {tuple(here[name].shape)} here")
    return {k: torch.empty_like(v) if isinstance(v, Tensor) else v for k, v in here.items()}


def _state_like(saved: Metadata, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Memory for the optimizer's state: cut as its parameter is, where it has its shape."""
    parameters = dict(model.named_parameters())
    state: dict[str, dict[str, Tensor]] = {}
    for (_, name, key), entry in _tensors(saved, "optimizer"):
        if name not in parameters:
            raise OtherModel(f"its optimizer holds {name}")
        dtype, p = entry.properties.dtype, parameters[name].detach()
        like = key != "step" and entry.size == p.shape
        state.setdefault(name, {})[key] = (
            torch.empty_like(p, dtype=dtype) if like else torch.empty(entry.size, dtype=dtype)
        )
    return state


def _load_optimizer(
    model: nn.Module, optimizer: Optimizer, state: dict[str, dict[str, Tensor]]
) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_index = {i: state[names[id(p)]] for i, p in enumerate(parameters) if names[id(p)] in state}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": by_index})
    _keep_dtypes(optimizer, parameters, by_index)


def _keep_dtypes(
    optimizer: Optimizer, parameters: list[Tensor], saved: dict[int, dict[str, Tensor]]
) -> None:
    """Undo torch's cast of state to its parameter's dtype, as of NAdam's float32 scalar."""
    for i, entries in saved.items():
        loaded = optimizer.state[parameters[i]]
        for key, value in entries.items():
            if key in loaded and loaded[key].dtype != value.dtype:  # probes are in the groups
                loaded[key] = value.to(loaded[key].device)


def _hush() -> None:
    """torch warns of what is meant here: that one process needs no group."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable")


def _reason(error: BaseException) -> str:
    """In one line; of what the processes report of each other, the first."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return " ".join(f"{type(error).__name__}: {error}".split())
