"""State of a group's gamma: live beside its parameters, and whole in a checkpoint.

All of it are tensors of the group:

- ``gamma_now``, in force in the step that is due; a step's own gradients speak of the next ones.
- ``gamma_steps``, a counter as in the state of a parameter: on the CPU, or with ``capturable``
  beside the parameters.
- ``gamma_probes``, the criterion's rows for each sampled element that this process holds; in a
  checkpoint those of all processes put together, one tensor for each parameter.
- ``gamma_sums``, what each of the last EVERY steps added up here, (kinds, EVERY, sums and whether
  any gradient was seen), a kind being the tensors that the same processes cut; in a checkpoint the
  sums of the whole, (EVERY, ...), which go on as those of tensors that are not cut.
- ``gamma_memory``, what the criterion made of them, and ``gamma_silent``, how many steps told
  nothing: since the last that did, and of all.
- ``lr_peak``, of a gamma that follows the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableMapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...gamma_numbers import EVERY, sampled
from ...optimizer_options import BY_LR, CHOSEN
from ..distributed.sums import Processes, sum_over
from .criteria import Criterion, criterion_of
from .sample import Plan, home, plan_of, whole_shape

Group = dict[str, Any]
Plans = MutableMapping[int, Plan]  # of groups, by their numbers

NOW, STEPS, PEAK = "gamma_now", "gamma_steps", "lr_peak"
PROBES, SUMS, MEMORY, SILENT = "gamma_probes", "gamma_sums", "gamma_memory", "gamma_silent"
IN_JSON = (NOW, STEPS, SUMS, MEMORY, SILENT, PEAK)
KEYS = (*IN_JSON, PROBES)
ONE = (1,)  # shape of a number: torch.compile takes a float64 of none for one that nobody changes
PROBE = "gamma_probe"  # where a checkpoint keeps one in the state of its parameter


def is_chosen(group: Group) -> bool:
    """Whether the group's gamma is chosen by its gradients."""
    return group["gamma_schedule"] in CHOSEN and bool(group["gamma"])


def follows_lr(group: Group) -> bool:
    """Whether the group's gamma follows its learning rate."""
    return group["gamma_schedule"] in BY_LR and bool(group["gamma"])


def begin(groups: Sequence[Group], plans: Plans) -> None:
    """Make what the groups are to keep, before the first step: a graph could not."""
    for i, group in enumerate(groups):
        if any(map(is_lazy, group["params"])):
            continue
        if follows_lr(group):
            follow(group)
        elif is_chosen(group):
            ready(group, plans, i)


def follow(group: Group) -> None:
    """``gamma_now`` and the highest learning rate so far, where they are not what they must be."""
    lr = group["lr"]
    beside = lr.device if isinstance(lr, Tensor) else torch.device("cpu")
    _put(group, NOW, ONE, home(group["params"]), group["gamma"])
    _put(group, PEAK, ONE, beside, 0.0)


def ready(group: Group, plans: Plans, i: int) -> Plan:
    """Where the group's samples are; what is kept of them is made, or taken from a checkpoint."""
    plan, criterion = plans.get(i), criterion_of(group)
    if torch.compiler.is_compiling():
        return _compiled(group, plan, criterion)
    if plan is None or not plan.fits(group["params"], criterion.DEGREE):
        before, plan = plan, plan_of(group["params"], criterion.DEGREE)
        plans[i] = plan
        changed = before is not None and before.shapes != plan.shapes
        if changed and isinstance(group.get(PROBES), Tensor):  # a checkpoint's are a list, checked
            del group[PROBES]  # its columns are of other elements
        _own(group, plan.device)
    elif plan.is_live(group):
        return plan
    rows, probes, sums = criterion.BEGIN, group.get(PROBES), group.get(SUMS)
    if isinstance(sums, Tensor) and sums.shape[-1] != criterion.SUMS + 1:
        probes = sums = None  # the schedule was edited
    if isinstance(probes, list):
        group[PROBES] = _block(probes, plan, rows)
    elif probes is None or probes.shape != (len(rows), plan.size):
        group[PROBES], sums = _block([None] * len(plan.params), plan, rows), None
        for key in (SUMS, MEMORY, SILENT):
            group.pop(key, None)
    elif probes.device != plan.device:  # the model was moved after the optimizer was made
        group[PROBES] = probes.to(plan.device)
    if isinstance(sums, Tensor) and sums.ndim == 2:
        none = torch.zeros(len(plan.among) - 1, *sums.shape, dtype=torch.float64, device="cpu")
        group[SUMS] = torch.cat([sums[None].to("cpu", torch.float64), none])
    shapes = {
        NOW: ONE,
        SUMS: (len(plan.among), EVERY, criterion.SUMS + 1),
        MEMORY: (criterion.MEMORY,),
        SILENT: (2,),
    }
    for key, shape in shapes.items():
        _put(group, key, shape, plan.device, group["gamma"] if key == NOW else 0.0)
    cpu = torch.device("cpu")
    _put(group, STEPS, ONE, plan.device if group["capturable"] else cpu, 0.0)
    plan.live.update({key: group[key] for key in (*shapes, STEPS, PROBES)})
    return plan


def _own(group: Group, device: torch.device) -> None:
    """Memory that no other group shares: groups are made of others' keys, by hand and by hosts.

    Where the parameters were on meta, it holds nothing and begins anew.
    """
    for key in KEYS:
        kept = group.get(key)
        if isinstance(kept, Tensor) and kept.is_meta and device.type != "meta":
            del group[key]
        elif isinstance(kept, Tensor):
            group[key] = kept.clone()


def _compiled(group: Group, plan: Plan | None, criterion: Criterion) -> Plan:
    name = f"gamma_schedule={group['gamma_schedule']!r}"
    if plan is None or PROBES not in group or group[PROBES].shape[0] != len(criterion.BEGIN):
        raise RuntimeError(f"{name}: take one step that is not compiled first")
    if not plan.has_shapes(group["params"]):
        raise RuntimeError(
            f"{name}: a parameter has changed its shape: take one step that is not compiled, and "
            "compile again"
        )
    if plan.device != home(group["params"]):
        raise RuntimeError(
            f"{name}: the model was moved to {home(group['params'])} after the optimizer was made: "
            "take one step that is not compiled first"
        )
    if len(plan.among) > 1:
        raise RuntimeError(
            f"{name} of sharded parameters cannot be compiled, since its sums travel between "
            "processes every ten steps: compile the model instead of the step"
        )
    return plan


def _put(group: Group, key: str, shape: tuple[int, ...], device: torch.device, begin: Any) -> None:
    """See to it that ``group[key]`` is a float64 tensor of this shape, there; else it begins."""
    kept = group.get(key)
    if kept is not None and shape == ONE and not isinstance(kept, Tensor):
        begin, kept = kept, None  # by hand, a gamma in force is a number
    if kept is None or kept.numel() != math.prod(shape):
        kept = torch.full(shape, float(begin), dtype=torch.float64, device="cpu")
    elif kept.shape != shape:
        kept = kept.reshape(shape)
    elif kept.device == device and kept.dtype == torch.float64:
        return
    group[key] = kept.detach().to(device, torch.float64, copy=True)


def _block(probes: Sequence[Tensor | None], plan: Plan, rows: tuple[float, ...]) -> Tensor:
    """The columns that are here, of each parameter's whole sample; None has seen nothing."""
    begin = torch.tensor(rows, dtype=torch.float64, device="cpu")[:, None]
    block = begin.repeat(1, plan.size).to(plan.device)
    for probe, (first, last), piece in zip(probes, plan.spans, plan.pieces, strict=True):
        if probe is not None:
            here = probe.to(plan.device, torch.float64)
            block[:, first:last] = here if piece.places is None else here[:, piece.places]
    return block


# --- in a checkpoint -----------------------------------------------------------------------------


def saved(groups: Sequence[Group], plans: Plans) -> list[Group]:
    """State for a checkpoint, group by group; with sharded parameters this is a collective."""
    kept: list[Group] = []
    parts: list[tuple[Tensor, Processes]] = []
    for i, group in enumerate(groups):
        of_group: Group = {
            k: v.clone() for k, v in group.items() if k in IN_JSON and isinstance(v, Tensor)
        }
        if is_chosen(group) and not any(map(is_lazy, group["params"])):
            plan = ready(group, plans, i)
            of_group = {k: group[k].clone() for k in (NOW, STEPS, SUMS, MEMORY, SILENT)}
            of_group[PROBES] = _whole_probes(group[PROBES], plan)
            parts += zip(of_group[SUMS], plan.among, strict=True)
            parts += [(w, p.among) for w, p in zip(of_group[PROBES], plan.pieces, strict=True)]
        kept.append(of_group)
    sum_over(parts)
    for of_group in kept:
        if PROBES in of_group:
            of_group[SUMS] = of_group[SUMS].sum(0)
    return kept


def _whole_probes(block: Tensor, plan: Plan) -> list[Tensor]:
    """Probes of each parameter, zeros where another process holds the element."""
    found = []
    for (first, last), piece in zip(plan.spans, plan.pieces, strict=True):
        whole = block.new_zeros(len(block), sampled(piece.shape))
        whole[:, slice(None) if piece.places is None else piece.places] = block[:, first:last]
        found.append(whole)
    return found


def to_json(groups: Sequence[Group], plans: Plans) -> list[dict[str, Any]]:
    """Memory beside that of each element, group by group, as plain data."""
    return [
        {key: value.tolist() for key, value in of_group.items() if key in IN_JSON}
        for of_group in saved(groups, plans)
    ]


def from_json(groups: Sequence[Group], plans: Plans, data: Iterable[dict[str, Any]]) -> None:
    """Go on from what :func:`to_json` gave, to the same bits.

    Raises:
        ValueError: for the memory of another number of groups.
    """
    of_groups = list(data)
    if len(of_groups) != len(groups):
        raise ValueError(
            f"this memory is of {len(of_groups)} parameter groups and the optimizer has "
            f"{len(groups)}: make it with the groups of the one that was saved"
        )
    for group, kept in zip(groups, of_groups, strict=True):
        for key, value in kept.items():
            group[key] = torch.tensor(value, dtype=torch.float64, device="cpu")
    begin(groups, plans)


def out_of_state(state_dict: dict[str, Any], kept: Sequence[Group]) -> dict[str, Any]:
    """A state dict with :func:`saved` in its groups: hosts want states of a parameter's shape."""
    groups = [
        {**group, **of_group}
        for group, of_group in zip(state_dict["param_groups"], kept, strict=True)
    ]
    return {**state_dict, "param_groups": groups}


def into_groups(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The same where the probes are in the parameters' state, by whose names some are saved."""
    state, groups = dict(state_dict["state"]), []
    for group in state_dict["param_groups"]:
        probes = [state.get(i, {}).get(PROBE) for i in group["params"]]
        has_any = any(isinstance(probe, Tensor) for probe in probes)
        groups.append({**group, PROBES: probes} if has_any else group)
        for i in group["params"]:
            if PROBE in state.get(i, ()):
                state[i] = {key: value for key, value in state[i].items() if key != PROBE}
    return {**state_dict, "state": state, "param_groups": groups}


def unfit(group: Group) -> tuple[int, str] | str | None:
    """Fault of a loaded group's probes, of one parameter or of all; None if there is none."""
    if group["gamma_schedule"] not in CHOSEN or not group["gamma"]:
        return None
    probes, params = group.get(PROBES), group["params"]
    for key in IN_JSON:
        if key in group and not isinstance(group[key], Tensor | Real):
            return _no_tensor(key, group[key])
    if isinstance(probes, Tensor):  # of a copy
        return None
    if probes is None:
        if not float(group.get(STEPS, 0)):
            return None
        return (
            f"the checkpoint lacks {PROBES}, which gamma_schedule={group['gamma_schedule']!r} "
            "keeps in its groups: save all of the optimizer's state_dict()"
        )
    if not isinstance(probes, list):
        return _no_tensor(PROBES, probes)
    if len(probes) != len(params):
        return (
            f"{PROBES} are of {len(probes)} parameters and their group has {len(params)}: the "
            "groups of the checkpoint are in another order, or another model's"
        )
    rows = len(criterion_of(group).BEGIN)
    for i, (param, probe) in enumerate(zip(params, probes, strict=True)):
        if probe is None or is_lazy(param):
            continue
        if not isinstance(probe, Tensor):
            return _no_tensor(PROBES, probe)
        if tuple(probe.shape) != (rows, sampled(whole_shape(param))):
            shape = tuple(probe.shape)
            return (
                i,
                f"has shape {whole_shape(param)}, to which no {PROBE} of shape {shape} belongs",
            )
    return None


def _no_tensor(key: str, value: object) -> str:
    return (
        f"{key} of the checkpoint is a {type(value).__name__} and no tensor: save state_dict() by "
        "torch.save, which keeps tensors"
    )
