"""torchtitan's container of optimizers and its checkpoint helpers, written as they are there.

After torchtitan/components/optimizer (2026): groups by the first regular expression that matches,
each with ``param_names``, ``fused`` and ``foreach``; one optimizer per name; no closures; state by
parameter name in one flat dict; a step of zero gradients at lr=0 before state is read or loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mars_optim import MARS, MARSM, MARSAdamW

FACTORIES: dict[str, Callable[..., Optimizer]] = {
    "AdamW": torch.optim.AdamW,
    "MARS": MARS,
    "MARSAdamW": MARSAdamW,
    "MARSM": MARSM,
}


@dataclass(kw_only=True, slots=True)
class ParamGroupConfig:
    pattern: str
    optimizer_name: str
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)


class OptimizersContainer(Optimizer):
    def __init__(
        self, configs: list[ParamGroupConfig], *, implementation: str, model_parts: list[nn.Module]
    ) -> None:
        implementation_kwargs = {
            "fused": implementation == "fused",
            "foreach": implementation == "foreach",
        }
        self.optimizers: list[Optimizer] = []
        everything: list[nn.Parameter] = []
        for model in model_parts:
            for name, groups in build_groups(model, configs, implementation_kwargs).items():
                self.optimizers.append(FACTORIES[name](groups))
                everything.extend(param for group in groups for param in group["params"])
        expected = {id(p) for model in model_parts for p in model.parameters() if p.requires_grad}
        assert expected == {id(param) for param in everything}
        Optimizer.__init__(self, everything, {})

    def step(self, closure: None = None) -> None:
        assert closure is None, "OptimizersContainer does not support closures"
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for optimizer in self.optimizers:
            init_optim_state(optimizer)
            result.update(get_flat_optim_state_dict(optimizer))
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer in self.optimizers:
            init_optim_state(optimizer)
            load_flat_optim_state_dict(optimizer, state_dict)


def build_groups(
    model: nn.Module, configs: list[ParamGroupConfig], implementation_kwargs: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    claimed: set[str] = set()
    for config in configs:
        params, names = [], []
        for name, param in model.named_parameters():
            if param.requires_grad and name not in claimed and re.search(config.pattern, name):
                params.append(param)
                names.append(name)
                claimed.add(name)
        if not params:
            raise ValueError(f"param_groups pattern {config.pattern!r} matched no parameters")
        groups[config.optimizer_name].append(
            {
                "params": params,
                "param_names": names,
                **implementation_kwargs,
                **config.optimizer_kwargs,
            }
        )
    return groups


def init_optim_state(optimizer: Optimizer) -> None:
    """One step of zero gradients at lr=0 makes the state of the parameters that have none."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    fresh = [param for param in params if param.requires_grad and not optimizer.state.get(param)]
    if not fresh:
        return
    saved_grads = [param.grad for param in params]
    for param in params:
        param.grad = None
    for param in fresh:
        param.grad = torch.zeros_like(param)
    saved_lrs = []
    for group in optimizer.param_groups:
        saved_lrs.append(group["lr"])
        group["lr"] = torch.tensor(0.0) if isinstance(group["lr"], torch.Tensor) else 0.0
    optimizer.step(closure=None)
    for group, lr in zip(optimizer.param_groups, saved_lrs, strict=True):
        group["lr"] = lr
    for param, grad in zip(params, saved_grads, strict=True):
        param.grad = grad


def get_flat_optim_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    state_dict = optimizer.state_dict()
    names = {
        number: name
        for group in state_dict["param_groups"]
        for number, name in zip(group["params"], group["param_names"], strict=True)
    }
    flat: dict[str, Any] = {}
    for number, state in state_dict["state"].items():
        for key, value in state.items():
            flat[f"state.{names[number]}.{key}"] = value
    for group in state_dict["param_groups"]:
        for name in group["param_names"]:
            for key, value in group.items():
                if key not in ("params", "param_names"):
                    flat[f"param_groups.{name}.{key}"] = value
    return flat


def load_flat_optim_state_dict(optimizer: Optimizer, flat: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    number = 0
    for group in optimizer.param_groups:
        numbers = []
        for name, param in zip(group["param_names"], group["params"], strict=True):
            numbers.append(number)
            keys = [k for k in optimizer.state.get(param, {}) if f"state.{name}.{k}" in flat]
            if keys:
                state[number] = {key: flat[f"state.{name}.{key}"] for key in keys}
            number += 1
        first = group["param_names"][0]
        loaded: dict[str, Any] = {"params": numbers}
        for key in group:
            if key not in ("params", "param_names"):
                loaded[key] = flat[f"param_groups.{first}.{key}"]  # KeyError where it is missing
        groups.append(loaded)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
