"""torchtitan's container of optimizers and its checkpoint helpers, written as they are there.

After torchtitan 0.3.0's components/optimizer and config/configurable.py; that the real ones do the
same is in real/test_torchtitan.py. A config builds the class that it was nested in; groups are by
the first regular expression that matches, each with ``param_names``, ``fused`` and ``foreach``; one
optimizer per name; no closures; state by parameter name in one flat dict; a step of zero gradients
at lr=0 before state is read or loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer


class Configurable:
    @dataclass(kw_only=True, slots=True)
    class Config:
        _owner: ClassVar[type | None] = None

        def build(self, **kwargs: Any) -> Any:
            """The optimizer that the class of this nested config makes of it."""
            if self._owner is None:
                raise NotImplementedError(f"{type(self).__name__} has no owner class.")
            if overlap := {f.name for f in fields(self)} & kwargs.keys():
                raise ValueError(f"build() kwargs {overlap} overlap with config fields.")
            return self._owner(config=replace(self), **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        config_cls: Any = cls.__dict__.get("Config")
        if config_cls is None or not issubclass(config_cls, Configurable.Config):
            return
        if "__slots__" not in config_cls.__dict__:
            raise TypeError(f"{cls.__name__}.Config must use @dataclass(kw_only=True, slots=True)")
        config_cls._owner = cls


@dataclass(kw_only=True, slots=True)
class ParamGroupConfig:
    pattern: str
    optimizer_name: str
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)


class OptimizersContainer(Optimizer, Configurable):
    @dataclass(kw_only=True, slots=True)
    class Config(Configurable.Config):
        param_groups: list[ParamGroupConfig] = field(default_factory=list)
        implementation: Literal["for-loop", "foreach", "fused", "fused_opt_states_bf16"] = "fused"
        optimizer_factory_kwargs_by_name: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def _resolve_optimizer_factory(name: str) -> Callable[..., Optimizer]:
        factories: dict[str, Callable[..., Optimizer]] = {
            "Adam": torch.optim.Adam,
            "AdamW": torch.optim.AdamW,
        }
        if name not in factories:
            raise NotImplementedError(f"Optimizer {name} not added.")
        return factories[name]

    def __init__(self, config: Any, *, model_parts: list[nn.Module]) -> None:
        implementation_kwargs = {
            "fused": config.implementation in ("fused", "fused_opt_states_bf16"),
            "foreach": config.implementation == "foreach",
        }
        self.optimizers: list[Optimizer] = []
        everything: list[nn.Parameter] = []
        for model in model_parts:
            found = build_groups(model, config.param_groups, implementation_kwargs)
            for name, groups in found.items():
                options = config.optimizer_factory_kwargs_by_name.get(name, {})
                self.optimizers.append(self._resolve_optimizer_factory(name)(groups, **options))
                everything.extend(param for group in groups for param in group["params"])
        expected = {id(p) for model in model_parts for p in model.parameters() if p.requires_grad}
        assert expected == {id(param) for param in everything}
        Optimizer.__init__(self, everything, {})

    def __iter__(self) -> Iterator[Optimizer]:
        return iter(self.optimizers)

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
    """One step of zero gradients at lr=0 makes the state, where there is none and no gradient."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if optimizer.state or any(param.grad is not None for param in params):
        return
    for param in params:
        if param.requires_grad:
            param.grad = torch.zeros_like(param)
    _step_at_zero(optimizer)
    optimizer.zero_grad(set_to_none=True)


def init_fresh_optim_state(optimizer: Optimizer) -> None:
    """As other versions do it: for the parameters that have no state, in mid-run too."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    fresh = [param for param in params if param.requires_grad and not optimizer.state.get(param)]
    if not fresh:
        return
    saved_grads = [param.grad for param in params]
    for param in params:
        param.grad = None
    for param in fresh:
        param.grad = torch.zeros_like(param)
    _step_at_zero(optimizer)
    for param, grad in zip(params, saved_grads, strict=True):
        param.grad = grad


def _step_at_zero(optimizer: Optimizer) -> None:
    saved_lrs = []
    for group in optimizer.param_groups:
        saved_lrs.append(group["lr"])
        group["lr"] = torch.tensor(0.0) if isinstance(group["lr"], torch.Tensor) else 0.0
    optimizer.step(closure=None)
    for group, lr in zip(optimizer.param_groups, saved_lrs, strict=True):
        group["lr"] = lr


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
