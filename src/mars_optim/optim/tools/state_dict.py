"""Where an optimizer's state dict is in a checkpoint, and in which form."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STATE, _GROUPS = "state.", "param_groups."
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BEGINNINGS = (b"PK", b"\x80")  # of a file of torch.save: a zip, or in its old form a pickle


def state_dict_of(source: Mapping[str, Any] | str | Path, key: str | None) -> Mapping[str, Any]:
    """The optimizer's state dict of a checkpoint: ``state`` and ``param_groups``.

    Args:
        source: the checkpoint, or a file saved by torch.save that holds it.
        key: where in it, by dots; numbers enter lists.

    Raises:
        ValueError: if it cannot be read, it is damaged, or none is there; names the keys where one
            is.
    """
    if not (key is None or isinstance(key, str)):
        raise ValueError(f"key={key!r} must be a string of keys joined by dots, or None")
    data: Any = read_file(Path(source)) if isinstance(source, str | Path) else source
    whole = data
    for part in key.split(".") if key else ():
        try:
            data = entered(data, part)
        except LookupError as error:
            hint = _where(whole) or f"there are: {error.args[0]}"
            raise ValueError(f"key={key!r} is not in the checkpoint; {hint}") from None
    if not _is_optimizer(data):
        keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        hint = _where(whole) or "say where by key="
        raise ValueError(f"there is no optimizer's state dict, but {keys}: {hint}")
    found: Mapping[str, Any] = data if "param_groups" in data else unflattened(data)
    check_form(found)
    check_moments(found)
    return found


def check_form(saved: Mapping[str, Any]) -> None:
    """Raise ValueError unless it is built as an optimizer's state dict is."""
    groups, state = saved["param_groups"], saved["state"]
    if not isinstance(groups, list | tuple) or not all(isinstance(g, Mapping) for g in groups):
        raise ValueError(
            f"param_groups of the state dict must be a list of dicts, but is {_told(groups)}: "
            "the checkpoint is damaged, or another program's"
        )
    for i, group in enumerate(groups):
        if missing := [key for key in ("lr", "params") if key not in group]:
            raise ValueError(
                f"param_groups[{i}] of the state dict has no {missing[0]!r}: the checkpoint is "
                "damaged, or another program's; put it in"
            )
        if not isinstance(group["params"], list | tuple):
            raise ValueError(
                f"param_groups[{i}]['params'] of the state dict must be a list, but is "
                f"{_told(group['params'])}"
            )
    if not isinstance(state, Mapping) or not all(isinstance(s, Mapping) for s in state.values()):
        raise ValueError(
            f"state of the state dict must be a dict of dicts, one for each parameter, but is "
            f"{_told(state)}: the checkpoint is damaged, or another program's"
        )


def check_moments(saved: Mapping[str, Any]) -> None:
    """Raise ValueError for moments with which every later step would be NaN."""
    for name, state in saved["state"].items():
        first, second = state.get("exp_avg"), state.get("exp_avg_sq")
        if _readable(first) and not bool(torch.isfinite(first).all()):
            raise ValueError(
                f"exp_avg of parameter {name!r} has values that are not finite: take an earlier "
                "checkpoint"
            )
        if _readable(second) and not bool((second >= 0.0).all()):
            raise ValueError(
                f"exp_avg_sq of parameter {name!r} has values that are NaN or below 0, and it is a "
                "mean of squares: take an earlier checkpoint"
            )


def _readable(moment: Any) -> bool:
    """Whether it is a whole tensor with its values; a subclass may keep them in a form of its own.

    A shard is read by its own rank alone.
    """
    return type(moment) is Tensor and moment.dtype in _FLOATS and moment.device.type != "meta"


def _told(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"


def read_file(path: Path) -> Any:
    """Read what torch.save wrote: tensors and plain data, no code."""
    if path.is_dir():
        if (path / ".metadata").exists():
            raise ValueError(
                f"source {str(path)!r} is a folder of torch.distributed.checkpoint: make a file of "
                "it by torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file)"
            )
        files = ", ".join(sorted(p.name for p in path.iterdir() if p.is_file())) or "nothing"
        raise ValueError(f"source {str(path)!r} is a folder: give one of its files ({files})")
    try:
        with path.open("rb") as file:
            begins = file.read(2)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"source {str(path)!r} cannot be read: {error}") from None
    except Exception as error:  # torch.load raises whatever a foreign file leads it to
        if not begins.startswith(_BEGINNINGS):
            raise ValueError(
                f"source {str(path)!r} is not a file of torch.save: give the checkpoint itself"
            ) from None
        if not isinstance(error, pickle.UnpicklingError):
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"source {str(path)!r} cannot be read: {why}") from None
        raise ValueError(
            f"source {str(path)!r} cannot be read as tensors and plain data: if you trust it, give "
            "what torch.load(path, map_location='cpu', weights_only=False) returns"
        ) from None


def entered(data: Any, part: str) -> Any:
    """``data[part]`` of a mapping; of a list, by number.

    Raises:
        LookupError: with the keys that there are.
    """
    if isinstance(data, Mapping):
        if part in data:
            return data[part]
        raise LookupError(", ".join(map(str, data)) or "none")
    if isinstance(data, list | tuple):
        if part.isdecimal() and int(part) < len(data):
            return data[int(part)]
        raise LookupError(", ".join(map(str, range(len(data)))) or "none")
    raise LookupError("none")


def _is_optimizer(data: Any) -> bool:
    if not isinstance(data, Mapping):
        return False
    whole = {"state", "param_groups"} <= data.keys()
    return whole or any(isinstance(key, str) and key.startswith(_GROUPS) for key in data)


def _where(data: Any) -> str:
    """A hint at the keys under which there is an optimizer's state dict; "" if there is none."""
    found = ", ".join(f"key={key!r}" for key in _places(data, (), depth=3))
    return f"one is at {found}" if found else ""


def _places(data: Any, path: tuple[str, ...], *, depth: int) -> Iterator[str]:
    if path and _is_optimizer(data):
        yield ".".join(path)
    elif depth and isinstance(data, Mapping):
        for key, value in data.items():
            yield from _places(value, (*path, str(key)), depth=depth - 1)
    elif depth and isinstance(data, list | tuple):
        for i, value in enumerate(data[:8]):
            yield from _places(value, (*path, str(i)), depth=depth - 1)


def unflattened(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of ``StateDictOptions(flatten_optimizer_state_dict=True)``, by names.

    Its keys are ``state.NAME.exp_avg`` and ``param_groups.NAME.lr``; parameters with the same
    settings make one group.
    """
    settings: dict[str, dict[str, Any]] = {}
    state: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        kind = next((k for k in (_GROUPS, _STATE) if key.startswith(k)), None)
        name, _, what = key[len(kind) :].rpartition(".") if kind else ("", "", "")
        if not name:
            raise ValueError(f"the flattened state dict has {key!r}, which is of no parameter")
        (settings if kind == _GROUPS else state).setdefault(name, {})[what] = value
    groups: list[dict[str, Any]] = []
    for name, options in settings.items():
        alike = (g for g in groups if _plain(g, "params") == _plain(options))
        group = next(alike, None)
        if group is None:
            groups.append({**options, "params": [name]})
        else:
            group["params"].append(name)
    return {"state": state, "param_groups": groups}


def _plain(options: Mapping[str, Any], *without: str) -> dict[str, Any]:
    kept = {k: v for k, v in options.items() if k not in (*without, "param_names")}
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in kept.items()}


def names_of(saved: Mapping[str, Any]) -> list[str] | None:
    """The names of the parameters, in the saved order; None if any has none.

    They are torch's ``param_names``, or stand in the place of numbers, as
    ``torch.distributed.checkpoint`` and FSDP write them.
    """
    names: list[str] = []
    for group in saved["param_groups"]:
        own = group["params"]
        if not all(isinstance(i, str) for i in own):
            own = group.get("param_names") or ()
        if len(own) != len(group["params"]):
            return None
        names += own
    return names or None
