"""gamma_t: a number, tied to the learning rate, or chosen by what the steps show.

What it is chosen by is in :mod:`.criteria`; here is what the steps look at: a sample of each
tensor's elements, so neither kernels nor the optimizer's own state are concerned, and the cost does
not grow with the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from ...optimizer_options import BY_LR, CHOSEN
from ..backends.amp import Amp
from ..distributed.sharded import as_real, layout
from ..distributed.tensor_parallel import several_stages
from ..hyperparameters import gamma_of
from ..values import at_least_zero
from .criteria import CRITERIA, EVERY, FIRST, Criterion, Shares, newest_weight

Group = dict[str, Any]

SUMS = "gamma_sums"
SILENT = "gamma_silent"  # steps that told nothing: since the last that did, and all; a tensor
REMEMBERED = ("gamma_now", "gamma_steps", SUMS, SILENT, "lr_peak")  # keys of a group
PROBE = "gamma_probe"  # state of a parameter: what its criterion keeps, (rows, sampled)
PROBES = "gamma_probes"  # the same in a state dict, of all parameters of a group

SAMPLE = 1 << 12  # elements of a tensor, at the most
HIGHEST = 0.5  # gamma: beyond, the average is hardly one
SMALLEST, LARGEST = 1e-15, 1e15  # largest element of a gradient for which float32 is wide enough
RATE = 0.05  # of gamma, at most, at a time


def set_gammas(
    groups: Iterable[Group], state: MutableMapping[Tensor, dict[str, Any]], amp: Amp
) -> None:
    """``gamma_now`` of each group that has a schedule, for the step that is due.

    Raises:
        ValueError: for sharded parameters where gamma is chosen.
        RuntimeError: inside torch.compile.
    """
    scheduled = [g for g in groups if g["gamma_schedule"] != "constant" and g["gamma"] != 0]
    if scheduled and torch.compiler.is_compiling():
        raise RuntimeError(
            "gamma_schedule cannot be compiled: gamma is a number in the graph. Compile the model "
            "instead of the step, or use gamma_schedule='constant'"
        )
    for group in scheduled:
        if group["gamma_schedule"] in BY_LR:
            follow_lr(group)
        else:
            _observe(group, state, amp)
    _choose([g for g in scheduled if g["gamma_schedule"] in CHOSEN])


def check_whole(group: Group) -> None:
    """Raise ValueError for sharded parameters where gamma is chosen from their gradients."""
    if group["gamma_schedule"] not in CHOSEN or not group["gamma"]:
        return
    name = f"gamma_schedule={group['gamma_schedule']!r}"
    if any(layout(param) is not None for param in group["params"]):
        raise ValueError(
            f"{name} does not take sharded parameters (DTensor, tensor-parallel) yet: use 'lr' or "
            "'sqrt_lr', or a number"
        )
    if several_stages():
        raise ValueError(
            f"{name} would choose another gamma for each pipeline stage or expert, of which "
            "Megatron's checkpoints keep one: use 'lr' or 'sqrt_lr', or a number"
        )


def to_json(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """What the schedules remember beside the parameters' state, group by group."""
    kept = [{key: group[key] for key in REMEMBERED if key in group} for group in groups]
    return [
        {k: v.tolist() if isinstance(v, Tensor) else v for k, v in of_group.items()}
        for of_group in kept
    ]


def from_json(groups: Iterable[Group], data: Iterable[dict[str, Any]]) -> None:
    """Go on from what :func:`to_json` gave, to the same bits."""
    for group, kept in zip(groups, data, strict=True):
        tensors = {
            k: torch.tensor(v, dtype=torch.float64, device="cpu")
            for k, v in kept.items()
            if k in (SUMS, SILENT)
        }
        group |= {**kept, **tensors}


def out_of_state(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict whose probes are in its groups, in the order of the parameters.

    Hosts take what is in the state of a parameter for tensors of its shape. What is given is left
    as it is.
    """
    state, groups = dict(state_dict["state"]), []
    for group in state_dict["param_groups"]:
        probes = [state.get(i, {}).get(PROBE) for i in group["params"]]
        has_any = any(probe is not None for probe in probes)
        groups.append({**group, PROBES: probes} if has_any else group)
        for i, probe in zip(group["params"], probes, strict=True):
            if probe is not None:
                state[i] = {key: value for key, value in state[i].items() if key != PROBE}
    return {**state_dict, "state": state, "param_groups": groups}


def into_state(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The way back; a state dict with probes in its state, as they once were, is left as it is.

    Raises:
        ValueError: for probes of another number of parameters, or that a flattening has lost.
    """
    if not any(PROBES in group for group in state_dict["param_groups"]):
        for its in state_dict["state"].values():
            if not isinstance(its.get(PROBE, torch.empty(0)), Tensor):
                raise ValueError(
                    "the checkpoint lacks what gamma's schedule remembers, which is in the groups: "
                    "use StateDictOptions(flatten_optimizer_state_dict=False)"
                )
        return state_dict
    state, groups = dict(state_dict["state"]), []
    for group in state_dict["param_groups"]:
        probes = group.get(PROBES) or []
        groups.append({key: value for key, value in group.items() if key != PROBES})
        if probes and len(probes) != len(group["params"]):
            raise ValueError(
                f"{PROBES} are of {len(probes)} parameters and their group has "
                f"{len(group['params'])}: the groups of the checkpoint are in another order, or "
                "another model's"
            )
        for i, probe in zip(group["params"], probes, strict=False):
            if i in state and not isinstance(state[i].get(PROBE), Tensor):
                state[i] = {key: value for key, value in state[i].items() if key != PROBE}
                if probe is not None:
                    state[i][PROBE] = probe
    return {**state_dict, "state": state, "param_groups": groups}


def follow_lr(group: Group) -> None:
    """gamma_t = gamma lr_t / lr_peak, or its root; the peak is the highest lr of the run so far.

    So gamma keeps its value in a warm-up, and falls as the steps get shorter: lag is proportional
    to the learning rate and noise is not.
    """
    lr = float(at_least_zero("lr", group["lr"]))
    peak = group["lr_peak"] = max(lr, float(group.get("lr_peak", 0.0)))
    part = lr / peak if peak > 0.0 else 1.0
    group["gamma_now"] = float(group["gamma"]) * (
        math.sqrt(part) if group["gamma_schedule"] == "sqrt_lr" else part
    )


def _observe(group: Group, state: MutableMapping[Tensor, dict[str, Any]], amp: Amp) -> None:
    """Add what this step shows to the group's memory; nothing waits for the device."""
    params = [p for p in group["params"] if p.grad is not None and not p.grad.is_sparse]
    check_whole(group)
    if not params:
        return
    criterion = CRITERIA[group["gamma_schedule"]]
    _forget_another(criterion, group, state)
    group.setdefault("gamma_now", float(group["gamma"]))
    if SUMS not in group:  # from the first step on: DCP loads what an optimizer has after one
        nothing = torch.zeros(criterion.SUMS, dtype=torch.float64, device=params[0].device)
        group[SUMS] = criterion.remember(None, nothing, 1)
        group[SILENT] = torch.zeros(2, dtype=torch.float64, device=params[0].device)
    steps = group["gamma_steps"] = int(group.get("gamma_steps", 0)) + 1
    shares = Shares(*(newest_weight(beta, steps) for beta in group["betas"]))
    buckets: dict[Any, list[Tensor]] = defaultdict(list)
    for p in params:
        buckets[p.device, p.dtype, PROBE in state[p]].append(p)
    sums = []
    for (*_, known), bucket in buckets.items():
        samples = _samples(bucket, criterion)
        (g,) = amp.unscaled([torch.cat(samples)])
        g = _wide_enough(g, [state[p][PROBE] for p in bucket] if known else [])
        if not known:
            fresh = criterion.begin(g.nan_to_num(0.0, 0.0, 0.0))
            for p, probe in zip(bucket, _cut(fresh, samples), strict=True):
                state[p][PROBE] = probe.clone()
            continue
        probes = _probes(bucket, state, g.dtype)
        old = torch.cat(probes, 1)
        seen, new = criterion.look(g, old, shares)
        # a step that overflowed leaves nothing, and what an earlier one left is 0
        finite = torch.isfinite(seen).all()
        if g.dtype == torch.float64:
            finite &= torch.isfinite(new).all()
            seen = torch.where(finite, seen, torch.nan)
        sums.append(seen)
        if finite.device.type != "cpu" or not finite:  # elsewhere without waiting
            new = torch.where(finite, new, old.nan_to_num(0.0, 0.0, 0.0))
        torch._foreach_copy_(probes, _cut(new, samples))
    if sums:
        total = torch.stack([s.to(sums[0].device) for s in sums]).sum(0)
        group[SUMS] = criterion.remember(group.get(SUMS), total, steps)
        if steps > 2:  # before, no step has been taken that could be told of
            _count_silence(group, total)


def _wide_enough(g: Tensor, probes: list[Tensor]) -> Tensor:
    """``g`` in a dtype that holds its square, and that of a thousandth of it.

    float32 does in the ordinary range. Beyond it, one element would be kept as inf, or all as 0:
    float64 then, from there on. Without waiting nobody knows: on an accelerator always float64.
    """
    if g.device.type == "cpu" and all(probe.dtype == g.dtype for probe in probes):
        low, high = torch.aminmax(g) if g.numel() else (g.sum(), g.sum())
        size = max(-float(low), float(high))
        if SMALLEST <= size <= LARGEST or size == 0.0 or not math.isfinite(size):
            return g
    return g.double()


def _probes(
    params: list[Tensor], state: MutableMapping[Tensor, dict[str, Any]], dtype: torch.dtype
) -> list[Tensor]:
    """What is kept of each, in ``dtype`` from now on."""
    for p in params:
        if state[p][PROBE].dtype != dtype:
            state[p][PROBE] = state[p][PROBE].to(dtype)
    return [state[p][PROBE] for p in params]


def _count_silence(group: Group, sums: Tensor) -> None:
    """Count a step of which ``sums`` tell nothing: not finite, or all zero. Nothing waits."""
    told = torch.isfinite(sums).all() & (sums.abs().sum() > 0)
    silent = 1.0 - told.to(sums.dtype)
    before = group.get(SILENT)
    in_a_row, all_of_them = (silent * 0.0,) * 2 if before is None else before.to(sums).unbind()
    group[SILENT] = torch.stack([(in_a_row + 1.0) * silent, all_of_them + silent])


def silence(group: Group) -> str | None:
    """In words, that a schedule has stopped or has skipped steps; waits for the device."""
    if SILENT not in group or group["gamma_schedule"] not in CHOSEN or not group["gamma"]:
        return None
    (in_a_row, skipped), steps = group[SILENT].tolist(), int(group["gamma_steps"])
    name = f"gamma_schedule={group['gamma_schedule']!r}"
    why = "their gradients were zero, inf or NaN"
    if in_a_row >= EVERY:
        return f"{name} has stopped: the last {in_a_row:.0f} of {steps} steps told nothing ({why})"
    if skipped:
        return f"{name} has skipped {skipped:.0f} of {steps} steps ({why})"
    return None


def _forget_another(
    criterion: Criterion, group: Group, state: MutableMapping[Tensor, dict[str, Any]]
) -> None:
    """Begin anew where the group's schedule was edited in the run."""
    known = [state[p] for p in group["params"] if PROBE in state.get(p, ())]
    if any(len(its[PROBE]) != criterion.ROWS for its in known):
        group.pop(SUMS, None)
        for its in known:
            del its[PROBE]


def _samples(params: list[Tensor], criterion: Criterion) -> list[Tensor]:
    """Evenly spaced elements of each gradient, scaled so that their sums are the whole's.

    At most SAMPLE of each, in float32 or wider.
    """
    samples, scales = [], []
    for p in params:
        flat = as_real(p.grad).reshape(-1)
        sample = flat[:: -(-flat.numel() // SAMPLE)] if flat.numel() > SAMPLE else flat
        samples.append(sample.to(torch.promote_types(sample.dtype, torch.float32)))
        scales.append((flat.numel() / max(1, sample.numel())) ** (1.0 / criterion.DEGREE))
    return samples if set(scales) == {1.0} else list(torch._foreach_mul(samples, scales))


def sampled_bytes(tensor: Tensor, schedule: str) -> int:
    """What the criterion keeps of ``tensor``, in bytes."""
    wide = torch.float32 if tensor.device.type == "cpu" else torch.float64  # in the ordinary range
    dtype = torch.promote_types(tensor.dtype, wide)
    return CRITERIA[schedule].ROWS * sampled(tensor.numel()) * dtype.itemsize


def sampled(numel: int) -> int:
    """How many of so many elements are looked at."""
    return -(-numel // max(1, -(-numel // SAMPLE)))


def _cut(rows: Tensor, samples: list[Tensor]) -> list[Tensor]:
    """(rows, all sampled) -> (rows, sampled) of each tensor."""
    return list(torch.split(rows, [sample.numel() for sample in samples], 1))


def _choose(groups: list[Group]) -> None:
    """gamma_now, of groups whose sums are due to be read: by at most RATE, within [0, HIGHEST]."""
    for group in groups:
        steps = int(group.get("gamma_steps", 0))
        if SUMS not in group or steps < FIRST or steps % EVERY:
            continue
        now, beta = gamma_of(group), 1.0 - newest_weight(group["betas"][0], steps)
        criterion = CRITERIA[group["gamma_schedule"]]
        wanted, group[SUMS] = criterion.settle(now, group[SUMS], beta)
        move = min(RATE, max(-RATE, wanted - now))
        group["gamma_now"] = min(HIGHEST, max(0.0, now + move))
