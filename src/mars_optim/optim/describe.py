"""A table of what an optimizer does to which parameters, and silent failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..optimizer_options import CHOSEN, IN_GROUPS, MATRIX_RULES
from .backends import explain, state_dtypes
from .correction import dot_and_difference, tensor_norm
from .distributed.sharded import as_real, local
from .gamma.choice import silence
from .gamma.schedule import sampled_bytes
from .groups.names import kind_of, tensors_of
from .groups.roles import misplaced, unstacked
from .hyperparameters import Settings, gamma_of

Group = Mapping[str, Any]
HEADER = (
    "kind rule correction gamma clip lr betas decay tensors parameters dtype state path why"
).split()
# what a group says once an optimizer has it, for those of param_groups that none has yet
_DEFAULTS = {name: option.default for name, option in IN_GROUPS.items()}
_LARGE = 100_000  # elements; no bias or norm gain has so many


def describe(groups: Iterable[Group], ratios: Mapping[int, Tensor] | None = None) -> str:
    """A table of parameter groups, one line each, and below it what to beware of.

    Args:
        groups: of an optimizer, or of :func:`~mars_optim.param_groups`.
        ratios: of a run's correction to its gradient, by number of the group, where measured.
    """
    groups = list(groups)
    paths = [path(group) for group in groups]
    rows = [HEADER, *(_row(group, way) for group, (way, _) in zip(groups, paths, strict=True))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    notes = list(dict.fromkeys(f"- path {way}: {why}" for way, why in paths if why))
    found = (*warnings(groups), *_idle(groups, ratios or {}), *_silent(groups))
    beware = [f"! {w}" for w in found]
    return "\n".join([*(line.rstrip() for line in lines), *notes, *beware])


def path(group: Group) -> tuple[str, str]:
    """The backend that steps the group's parameters, and why it is not a faster one."""
    tensors = tensors_of(group)
    if not tensors:
        return "-", ""
    return explain(tensors, Settings.from_group({**_DEFAULTS, **group}))


@torch.no_grad()
def correction_ratio(params: Iterable[Tensor], states: Mapping[Any, Any]) -> Tensor | None:
    """|g_t - g_{t-1}| / |g_t| over these parameters, before a step; 0-d, None without history."""
    changes, sizes = [], []
    for param in params:
        last_grad = states.get(param, {}).get("last_grad")
        if param.grad is not None and last_grad is not None:
            grad = as_real(local(param.grad))
            changes.append(dot_and_difference(grad, as_real(local(last_grad)))[1])
            sizes.append(tensor_norm(grad).double().square())
    if not changes:
        return None
    device = changes[0].device
    change, size = (torch.stack([s.to(device) for s in sums]).sum() for sums in (changes, sizes))
    return torch.where(size > 0, (change / size).sqrt(), torch.nan)


def _idle(groups: list[Group], ratios: Mapping[int, Tensor]) -> list[str]:
    """Groups whose correction did nothing in a real step."""
    why = {
        "approx": "its gradients equal those of the step before",
        "exact": "its gradients are the same at both points: was lr 0, or is the model compiled "
        "and previous_point was not given it?",
    }
    return [
        (
            f"correction ratio 0 in {_name(groups[i])}: {why[groups[i]['correction']]}, so "
            "MARS has no effect there"
        )
        for i, ratio in ratios.items()
        if groups[i]["gamma"] and float(ratio) == 0.0
    ]


def _silent(groups: list[Group]) -> list[str]:
    """Groups whose gamma is chosen by the gradients, where these told nothing."""
    return [f"{_name(g)}: {words}" for g in groups if (words := silence(dict(g)))]


def _name(group: Group) -> str:
    names = _names(group)
    return f"the group of {names[0]}" if names else f"the {group['rule']} group"


def warnings(groups: Iterable[Group]) -> list[str]:
    """Settings that would silently not work, one sentence each with the way out."""
    groups = list(groups)
    found = []
    tensors = [t for group in groups for t in tensors_of(group)]
    corrected = any(group["gamma"] and tensors_of(group) for group in groups)
    if not corrected and all(t.ndim < 2 for t in tensors) and any(map(_is_flat, tensors)):
        found.append(
            "no matrix reached a rule with a correction: all parameters have fewer than two "
            "dimensions, some of them very many elements, and get plain AdamW. If these are flat "
            "partitions (FSDP1, ZeRO), use optimize_1d=True, clip=None with rule 'adamw' or "
            "'lion': without a clip these are right element by element"
        )
    for group in groups:
        tensors = tensors_of(group)
        flat = [t for t in tensors if _is_flat(t)]
        if flat and group["gamma"] and group["clip"] is not None:
            found.append(
                f"{len(flat)} 1-D tensors of {flat[0].numel():,} and more elements are clipped by "
                "their own norm: if they are partitions of larger tensors, set clip=None"
            )
        if group["gamma"] and group["betas"][0] == 0.0 and group["correction"] != "folded":
            found.append(
                f"betas[0]=0 makes the correction of {_name(group)} 0, whatever gamma: it is "
                "gamma * beta1 / (1 - beta1)"
            )
        found += [
            f"{name} looks like {what} under rule={group['rule']!r}: {way}"
            for name, what, way in misplaced_in(group)
        ]
    return found


def misplaced_in(group: Group) -> list[tuple[str, str, str]]:
    """Parameters that should not be under Newton-Schulz: name, what it looks like, the way out.

    A group of :func:`~mars_optim.param_groups` has been sorted by more than names.
    """
    if group["rule"] not in MATRIX_RULES or "why" in group:
        return []
    tensors, found = tensors_of(group), []
    names: list[str | None] = [*_names(group)] or [None] * len(tensors)
    for name, tensor in zip(names, tensors, strict=True):
        called = name or f"a parameter of shape {tuple(tensor.shape)}"
        if what := misplaced(name, tensor):
            found.append((called, what, "param_groups(model) gives those rule 'adamw'"))
        elif not group.get("stacked") and unstacked(name, tensor):
            way = "'stacked': True in its group makes each its own matrix"
            found.append((called, "a stack of experts, taken as one matrix,", way))
    return found


def state_bytes(group: Group) -> int:
    """Bytes of state that the group's parameters take once they have been stepped."""
    settings = Settings.from_group({**_DEFAULTS, **group})
    total = 0
    for tensor in tensors_of(group):
        for dtype in state_dtypes(tensor.dtype, settings).values():
            total += tensor.numel() * dtype.itemsize
        if settings.exact:
            total += tensor.numel() * tensor.dtype.itemsize
        if settings.gamma_schedule in CHOSEN and settings.corrects:
            total += sampled_bytes(tensor, settings.gamma_schedule)
    return total


def _row(group: Group, way: str) -> list[str]:
    tensors, clip = tensors_of(group), group["clip"]
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in tensors})
    vectors = all(t.ndim < 2 for t in tensors)
    return [
        kind_of(group),
        f"cautious {group['rule']}" if group.get("cautious") else str(group["rule"]),
        group["correction"] if group["gamma"] != 0 else "none",
        _gamma(group),
        "none"
        if clip is None
        else f"{clip:g}" + " over all" * (group.get("clip_over") == "global"),
        f"{float(group['lr']) * group.get('lr_ratio', 1.0):g}",
        "({:g}, {:g})".format(*group["betas"]),
        f"{group['weight_decay']:g}",
        f"{len(tensors):,}",
        f"{sum(t.numel() for t in tensors):,}",
        "+".join(dtypes) or "-",
        _bytes(state_bytes(group)),
        way,
        str(group.get("why", "ndim < 2" if vectors else "ndim >= 2")),
    ]


def _gamma(group: Group) -> str:
    schedule = group.get("gamma_schedule", "constant")
    if schedule == "constant" or group["gamma"] == 0:
        return f"{group['gamma']:g}"
    return f"{float(gamma_of({**_DEFAULTS, **group})):.3g} by {schedule}"


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.3g} {unit}" if unit != "B" else f"{n:.0f} B"
        n /= 1024
    return f"{n:.3g} GiB"


def _is_flat(tensor: Tensor) -> bool:
    return not is_lazy(tensor) and tensor.ndim == 1 and tensor.numel() >= _LARGE


def _names(group: Group) -> list[str]:
    paired = [p[0] for p in group["params"] if isinstance(p, tuple)]
    return paired or list(group.get("param_names", ()))
