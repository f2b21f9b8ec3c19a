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

from .criteria import CRITERIA, EVERY, FIRST, Criterion, Shares, newest_weight
from .kernels.amp import Amp
from .settings import CHOSEN, gamma_of
from .sharded import as_real, is_sharded

Group = dict[str, Any]

BY_LR = ("lr", "sqrt_lr")
SUMS = "gamma_sums"
REMEMBERED = ("gamma_now", "gamma_steps", SUMS, "lr_peak")  # keys of a group
PROBE = "gamma_probe"  # state of a parameter: what its criterion keeps, (rows, sampled)

SAMPLE = 1 << 12  # elements of a tensor, at the most
HIGHEST = 0.5  # gamma: beyond, the average is hardly one
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
    chosen = group["gamma_schedule"] in CHOSEN and group["gamma"]
    if chosen and any(map(is_sharded, group["params"])):
        raise ValueError(
            f"gamma_schedule={group['gamma_schedule']!r} does not take sharded parameters "
            "(DTensor) yet: use 'lr' or 'sqrt_lr', or a number"
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
        sums = {
            k: torch.tensor(v, dtype=torch.float64, device="cpu")
            for k, v in kept.items()
            if k == SUMS
        }
        group |= {**kept, **sums}


def follow_lr(group: Group) -> None:
    """gamma_t = gamma lr_t / lr_peak, or its root; the peak is the highest lr of the run so far.

    So gamma keeps its value in a warm-up, and falls as the steps get shorter: lag is proportional
    to the learning rate and noise is not.
    """
    lr = float(group["lr"])
    peak = group["lr_peak"] = max(lr, group.get("lr_peak", 0.0))
    part = lr / peak if peak > 0.0 else 1.0
    group["gamma_now"] = group["gamma"] * (
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
    group.setdefault("gamma_now", group["gamma"])
    steps = group["gamma_steps"] = group.get("gamma_steps", 0) + 1
    shares = Shares(*(newest_weight(beta, steps) for beta in group["betas"]))
    buckets: dict[Any, list[Tensor]] = defaultdict(list)
    for p in params:
        buckets[p.device, p.dtype, PROBE in state[p]].append(p)
    sums = []
    for (*_, known), bucket in buckets.items():
        samples = _samples(bucket, criterion)
        (g,) = amp.unscaled([torch.cat(samples)])
        if not known:
            fresh = criterion.begin(g.nan_to_num(0.0, 0.0, 0.0))
            for p, probe in zip(bucket, _cut(fresh, samples), strict=True):
                state[p][PROBE] = probe.clone()
            continue
        probes = [state[p][PROBE] for p in bucket]
        old = torch.cat(probes, 1)
        seen, new = criterion.look(g, old, shares)
        sums.append(seen)
        finite = torch.isfinite(seen).all()  # a step that overflowed leaves nothing
        if finite.device.type != "cpu":
            new = torch.where(finite, new, old)  # without waiting
        elif not finite:
            continue
        torch._foreach_copy_(probes, _cut(new, samples))
    if sums:
        total = torch.stack([s.to(sums[0].device) for s in sums]).sum(0)
        group[SUMS] = criterion.remember(group.get(SUMS), total, steps)


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
    dtype = torch.promote_types(tensor.dtype, torch.float32)
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
        steps = group.get("gamma_steps", 0)
        if SUMS not in group or steps < FIRST or steps % EVERY:
            continue
        now, beta = gamma_of(group), 1.0 - newest_weight(group["betas"][0], steps)
        criterion = CRITERIA[group["gamma_schedule"]]
        wanted, group[SUMS] = criterion.settle(now, group[SUMS], beta)
        move = min(RATE, max(-RATE, wanted - now))
        group["gamma_now"] = min(HIGHEST, max(0.0, now + move))
