"""From AdamW into MARS in the middle of a run, and back, with moments and step counts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ...optimizer_options import Clip, ClipOver, Correction, GammaSchedule, check_choice
from ..groups.keys import GROUP_KEYS
from ..groups.names import bare
from ..mars import MARS
from ..state.counter import check_counter, counter
from .origin import carried, check_groups, check_live, check_rules, check_unused, unwrapped
from .parameter_order import Given, Named, Order, in_order, misfit
from .release import GradientRelease
from .state_dict import state_dict_of
from .wrap_options import CLIP, GAMMA

ADAMW_KEYS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
# Keys of torch's own that are no host's: which kernel, and what says that decay is AdamW's.
TORCH_KEYS = ("foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay")
# Rates that schedulers keep in groups, beside lr.
HOST_RATES = ("initial_lr", "max_lr", "min_lr", "swa_lr")
_ORIGIN = "source_group"  # for the time of building, where a new group comes from


def migrate(
    source: Optimizer | Mapping[str, Any] | str | Path,
    params: nn.Module | Iterable[Tensor | Named] | None = None,
    *,
    to: Literal["mars", "adamw"] = "mars",
    key: str | None = None,
    order: Order | None = None,
    gamma: float | Literal["auto"] = 0.025,
    clip: Clip = "auto",
    correction: Correction | None = None,
    gamma_schedule: GammaSchedule = "constant",
    clip_over: ClipOver = "tensor",
    cautious: bool = False,
) -> Optimizer:
    """A new optimizer that goes on where ``source`` stands.

    Into MARS, each group keeps its lr, betas, eps and weight_decay, so that nothing jumps at the
    switch; its matrices get the correction, its vectors stay AdamW. Raise the lr afterwards, by a
    warm-up, if a pilot says so: the second moment now sees c_t, which is larger than g_t, so the
    same lr takes smaller steps. Back into AdamW, first and second moments are carried as they are
    and the gradient history is dropped. What hosts keep in groups (``initial_lr``, ``lr_scale``)
    stays; a scheduler goes on by ``LambdaLR(new, f, last_epoch=old.last_epoch - 1)``.

    Args:
        source: a live torch.optim.AdamW, Adam or MARS; its state dict; or a file saved by
            torch.save that holds one.
        params: for a state dict or file: the model, ``model.named_parameters()``, or bare tensors.
        to: "mars" or "adamw" (default: "mars").
        key: where the state dict is in the file, such as "optimizer" or, in a list,
            "optimizer_states.0" (default: None, the file is the state dict).
        order: how the saved optimizer had sorted the parameters (default: None, names say it where
            the checkpoint has them, as of named parameters or torch.distributed.checkpoint; else it
            is the order of ``params``). "given": as in ``params``. "ndim": matrices and vectors
            apart, as nanoGPT has them. "trainer": norms and biases apart, as transformers'
            Trainer has them. Or patterns of the names of the undecayed ones, whatever their case.
        gamma: of the MARS (default: 0.025); "auto" keeps AdamW's second moment, and so the length
            of the steps.
        clip: of the MARS (default: "auto").
        correction: of the MARS (default: None, "folded" with gamma="auto" and "approx" without).
        gamma_schedule: of the MARS (default: "constant").
        clip_over: of the MARS (default: "tensor").
        cautious: of the MARS (default: False).

    Raises:
        ValueError: if names, numbers or shapes do not fit, or fit in two ways, if a checkpoint is
            damaged, if options of MARS are given with ``to="adamw"``, if a group's rule has no
            second moment to carry, or if the source is another optimizer, whose run would
            not go on: Adam with decay inside the gradient, NAdam, RAdam, or one that keeps more
            than AdamW. A state dict of Adam's from torch before 2.7 cannot be told from AdamW's.
    """
    check_choice("to", to, ("mars", "adamw"))
    of_mars: dict[str, Any] = dict(
        gamma=gamma,
        clip=clip,
        correction=correction,
        gamma_schedule=gamma_schedule,
        clip_over=clip_over,
        cautious=cautious,
    )
    check_unused(to, **of_mars)
    groups, states = _read(source, params, key, order, to)
    check_rules(groups)
    group_of = {id(p): g for g in groups for p in map(bare, g["params"])}
    kept = [(p, carried(p, state, group_of[id(p)])) for p, state in states]
    if to == "mars":
        given = [{**g, "betas_1d": g["betas"]} for g in _given(groups)]  # vectors stay as they were
        target: Optimizer = MARS(given, rule="adamw", **of_mars)
    else:
        target = torch.optim.AdamW(_given(groups))
    for group in target.param_groups:  # what hosts and schedulers keep there
        source_group = groups[group.pop(_ORIGIN)]
        hosts = source_group.keys() - GROUP_KEYS - {*TORCH_KEYS, GAMMA, CLIP}
        group.update({key: copy.deepcopy(source_group[key]) for key in hosts})
        scale_rates(group, HOST_RATES, source_group.get("lr_ratio", 1.0))  # lr has it already
    for param, state in kept:
        if state:
            beside = param.device if group_of[id(param)].get("capturable") else torch.device("cpu")
            check_counter(state["step"], f"a parameter of shape {tuple(param.shape)}")
            target.state[param] = {
                k: _like(v, param, own=to == "adamw") for k, v in state.items() if k != "step"
            }
            target.state[param]["step"] = counter(state["step"], device=beside).clone()
    return target


def scale_rates(group: dict[str, Any], keys: Iterable[str], factor: float) -> None:
    """Multiply those of a group's rates that it has; what is no number is not ours to change."""
    for key in keys:
        if factor != 1.0 and isinstance(group.get(key), int | float | Tensor):
            group[key] = group[key] * factor


def check_source(source: Optimizer, to: str) -> None:
    """Raise ValueError unless the run of a live optimizer can go on.

    Args:
        source: out of its host's wrapper.
        to: "mars" or "adamw".
    """
    check_live(source)
    if GradientRelease.of(source) is not None:
        raise ValueError(
            "source is under release_gradients, whose hooks would go on stepping beside the new "
            "optimizer: call remove() on its handle first"
        )
    decoupled = isinstance(source, torch.optim.AdamW | MARS)  # where the groups do not say
    check_groups(source.param_groups, to, coupled=not decoupled)


def _like(value: Tensor, param: Tensor, *, own: bool) -> Tensor:
    """A copy on the parameter's device, in the dtype that it was kept in.

    Args:
        value: a moment.
        param: of which it is.
        own: in the parameter's dtype instead, which torch's AdamW needs and loads moments in.
    """
    dtype = param.dtype if own and param.is_floating_point() else value.dtype
    moved = value.detach().to(param.device, dtype)
    return moved.clone(memory_format=torch.preserve_format)


def _given(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """AdamW's settings of each group, with what a CUDA graph needs."""
    given = []
    for i, group in enumerate(groups):
        its = {k: group[k] for k in ("params", *ADAMW_KEYS) if k in group}
        if isinstance(its["lr"], Tensor):  # schedulers write into it
            its["lr"] = its["lr"].clone()
        if group.get("lr_ratio", 1.0) != 1.0:
            its["lr"] = its["lr"] * group["lr_ratio"]
        if group.get("capturable"):
            its["capturable"] = True
        given.append({**its, _ORIGIN: i})
    return given


def _read(
    source: Optimizer | Mapping[str, Any] | str | Path,
    params: nn.Module | Iterable[Tensor | Named] | None,
    key: str | None,
    order: Order | None,
    to: str,
) -> tuple[list[dict[str, Any]], list[tuple[Tensor, Mapping[str, Any]]]]:
    """Groups with (name, tensor) or bare parameters, and each parameter's state."""
    if isinstance(source, Optimizer):
        if params is not None or key is not None or order is not None:
            raise ValueError(
                "params, key and order are for a state dict or file, not a live optimizer"
            )
        source = unwrapped(source)
        check_source(source, to)
        groups = [{**g, "params": _with_names(g["params"], g)} for g in source.param_groups]
        held = [p for group in source.param_groups for p in group["params"]]
        return groups, [(p, source.state.get(p, {})) for p in held]
    if params is None:
        raise ValueError("params is needed to read a state dict or file: give the model")
    saved = state_dict_of(source, key)
    if any("betas" not in group for group in saved["param_groups"]):
        raise ValueError(
            "source has groups without betas, so no exp_avg: only optimizers of Adam's kind "
            "can be read"
        )
    check_groups(saved["param_groups"], to)
    flat = in_order(saved, Given.of(params), order)
    if reason := misfit(saved, flat):
        raise ValueError(f"{reason}: the model differs")
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    by_id = dict(zip(ids, flat, strict=True))
    groups = []
    for group in saved["param_groups"]:
        mine = [by_id[i] for i in group["params"]]
        bare = [p for _, p in mine]
        named = mine if all(n for n, _ in mine) else _with_names(bare, group)
        groups.append({**group, "params": named})
    return groups, [(p, saved["state"].get(i, {})) for i, (_, p) in by_id.items()]


def _with_names(params: list[Tensor], group: Mapping[str, Any]) -> list[Any]:
    names = group.get("param_names")
    return list(zip(names, params, strict=True)) if names else list(params)
