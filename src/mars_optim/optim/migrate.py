"""From AdamW into MARS in the middle of a run, and back, with moments and step counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from .mars import MARS, Clip
from .settings import Correction, check_choice

Named = tuple[str, Tensor]
CARRIED = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
ADAMW_KEYS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")


def migrate(
    source: Optimizer | Mapping[str, Any] | str | Path,
    params: Iterable[Tensor | Named] | None = None,
    *,
    to: Literal["mars", "adamw"] = "mars",
    key: str | None = None,
    gamma: float | Literal["auto"] = 0.025,
    clip: Clip = "auto",
    correction: Correction | None = None,
) -> Optimizer:
    """A new optimizer that goes on where ``source`` stands.

    Into MARS, each group keeps its lr, betas, eps and weight_decay, so that nothing jumps at the
    switch; its matrices get the correction, its vectors stay AdamW. Raise the lr afterwards, by a
    warm-up, if a pilot says so: the second moment now sees c_t, which is larger than g_t, so the
    same lr takes smaller steps. Back into AdamW, first and second moments are carried as they are
    and the gradient history is dropped.

    Args:
        source: a live torch.optim.AdamW, Adam or MARS; its state dict; or a file saved by
            torch.save that holds one.
        params: for a state dict or file: the model's parameters in the order in which the saved
            optimizer held them, better with names (``model.named_parameters()``), which are then
            compared with those that the checkpoint has.
        to: "mars" or "adamw" (default: "mars").
        key: where the state dict is in the file, such as "optimizer" (default: None, the file
            is the state dict).
        gamma: of the MARS (default: 0.025); "auto" keeps AdamW's second moment, and so the length
            of the steps.
        clip: of the MARS (default: "auto").
        correction: of the MARS (default: None, "folded" with gamma="auto" and "approx" without).

    Raises:
        ValueError: if names, numbers or shapes do not fit, if a group's rule has no second moment
            to carry into AdamW, or if the source holds no such optimizer.
    """
    check_choice("to", to, ("mars", "adamw"))
    groups, states = _read(source, params, key)
    if any("betas" not in group for group in groups):
        raise ValueError("source has groups without betas, so no exp_avg: only Adam's kind is read")
    target = _mars(groups, gamma, clip, correction) if to == "mars" else _adamw(groups)
    for param, state in states:
        carried = {k: state[k] for k in CARRIED if k in state}
        if not carried:
            continue
        missing = {"step", "exp_avg", "exp_avg_sq"} - carried.keys()
        if missing:
            raise ValueError(
                f"source has no {', '.join(sorted(missing))} for a parameter of shape "
                f"{tuple(param.shape)}: only Adam's kind of state can be carried"
            )
        target.state[param] = {
            k: torch.as_tensor(v, dtype=torch.float32).clone() if k == "step" else _like(v, param)
            for k, v in carried.items()
        }
    return target


def _like(value: Tensor, param: Tensor) -> Tensor:
    """A copy on the parameter's device, in the dtype that it was kept in."""
    return value.detach().to(param.device).clone(memory_format=torch.preserve_format)


def _mars(
    groups: list[dict[str, Any]],
    gamma: float | Literal["auto"],
    clip: Clip,
    correction: Correction | None,
) -> MARS:
    given = [
        {
            **{k: group[k] for k in ADAMW_KEYS if k in group},
            "params": group["params"],
            "betas_1d": group["betas"],  # vectors stay what they were
        }
        for group in groups
    ]
    return MARS(given, rule="adamw", gamma=gamma, clip=clip, correction=correction)


def _adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    for group in groups:
        if group.get("rule", "adamw") != "adamw":
            raise ValueError(
                f"a group with rule={group['rule']!r} keeps no second moment to carry into AdamW: "
                "give its parameters a new AdamW with a warm-up instead"
            )
    given = [{k: g[k] for k in ("params", *ADAMW_KEYS) if k in g} for g in groups]
    return torch.optim.AdamW(given)


def _read(
    source: Optimizer | Mapping[str, Any] | str | Path,
    params: Iterable[Tensor | Named] | None,
    key: str | None,
) -> tuple[list[dict[str, Any]], list[tuple[Tensor, Mapping[str, Any]]]]:
    """Groups with (name, tensor) or bare parameters, and each parameter's state."""
    if isinstance(source, Optimizer):
        if params is not None or key is not None:
            raise ValueError("params and key are for a state dict or file, not a live optimizer")
        groups = [{**g, "params": _with_names(g["params"], g)} for g in source.param_groups]
        held = [p for group in source.param_groups for p in group["params"]]
        return groups, [(p, source.state.get(p, {})) for p in held]
    if params is None:
        raise ValueError("params is needed to read a state dict or file: model.named_parameters()")
    saved = _state_dict(source, key)
    flat = [p if isinstance(p, tuple) else ("", p) for p in params]
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    if len(ids) != len(flat):
        raise ValueError(f"params has {len(flat)} tensors, the checkpoint {len(ids)}")
    by_id = dict(zip(ids, flat, strict=True))
    groups = []
    for group in saved["param_groups"]:
        mine = [by_id[i] for i in group["params"]]
        _check_names(mine, group.get("param_names"))
        bare = [p for _, p in mine]
        groups.append({**group, "params": mine if all(n for n, _ in mine) else bare})
    states = []
    for i, (name, param) in by_id.items():
        state = saved["state"].get(i, {})
        moment = state.get("exp_avg")
        if moment is not None and moment.shape != param.shape:
            raise ValueError(
                f"parameter {name or i} has shape {tuple(param.shape)}, the checkpoint's moment "
                f"{tuple(moment.shape)}: the order or the model differs"
            )
        states.append((param, state))
    return groups, states


def _with_names(params: list[Tensor], group: Mapping[str, Any]) -> list[Any]:
    names = group.get("param_names")
    return list(zip(names, params, strict=True)) if names else list(params)


def _state_dict(source: Mapping[str, Any] | str | Path, key: str | None) -> Mapping[str, Any]:
    data: Any = source
    if isinstance(source, str | Path):
        try:
            data = torch.load(source, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError) as error:
            raise ValueError(f"source {str(source)!r} cannot be read: {error}") from None
    for part in key.split(".") if key else ():
        if not isinstance(data, Mapping) or part not in data:
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else "none"
            raise ValueError(f"key={key!r} is not in the checkpoint; there are: {keys}")
        data = data[part]
    if not isinstance(data, Mapping) or not {"state", "param_groups"} <= data.keys():
        keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(f"there is no optimizer's state dict, but {keys}: say where by key=")
    return data


def _check_names(given: list[tuple[str, Tensor]], saved: list[str] | None) -> None:
    for (name, _), other in zip(given, saved or [], strict=False):
        if name and name != other:
            raise ValueError(
                f"parameter {name!r} stands where the checkpoint has {other!r}: give params in the "
                "order of the saved optimizer"
            )
