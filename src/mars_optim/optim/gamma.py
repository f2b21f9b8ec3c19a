r"""gamma_t: a number, tied to the learning rate, or chosen from the noise and lag of the steps.

"auto": with g_t the gradient and a_{t-1} its plain average from before the step, five dot products,
averaged over the last steps, tell the noise N of a batch and the error Q of the average::

    N = |g_t - g_{t-1}|^2 / 2
    Q = |a_{t-1}|^2 - 2 <g_t, a_{t-1}> + <g_t, g_{t-1}> + (|g_t|^2 - |g_{t-1}|^2) / 2

The newest gradient then deserves the weight w = Q / (Q + N), the gain of a Kalman filter, and has
it at gamma = (w - (1 - beta1)) / beta1. Derived, with what it assumes, in docs/theory.md.

They are taken of a sample of each tensor's elements, so neither kernels nor the optimizer's own
state are concerned, and the cost does not grow with the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from .correction import dot
from .kernels.amp import Amp
from .settings import gamma_of
from .sharded import as_real, is_sharded

Group = dict[str, Any]

BY_LR = ("lr", "sqrt_lr")
BY_NOISE = ("auto", "auto_all")
SUMS = "gamma_sums"
REMEMBERED = ("gamma_now", "gamma_steps", SUMS, "lr_peak")  # keys of a group
PROBE = "gamma_probe"  # state of a parameter: (2, sampled), g_{t-1} and a_{t-1}

SAMPLE = 1 << 12  # elements of a tensor, at the most
FIRST, EVERY = 20, 10  # steps until gamma is first set, and between settings: each waits for sums
SHARE = 0.25  # of all steps so far: how long the averages are
HIGHEST = 0.5  # gamma: beyond, the average is hardly one
RATE = 0.05  # of gamma, at most, at a time


def noise_and_signal(gg: float, ll: float, gl: float) -> tuple[float, float]:
    """(tr Var(g), |grad F_t|^2) from means of |g_t|^2, |g_{t-1}|^2 and <g_t, g_{t-1}>.

    Two batches are independent, so E<g_t, g_{t-1}> = <grad F_t, grad F_{t-1}>. With d the full
    gradient's move in the step, the first is too large and the second too small by |d|^2 / 2.
    """
    return max(0.0, (gg + ll) / 2.0 - gl), gl + (gg - ll) / 2.0


def error_of_last(gg: float, ll: float, gl: float, gm: float, mm: float) -> float:
    """Q = E|a_{t-1} - grad F_t|^2: how far the average in memory is from the gradient that is due.

    Noise and lag of a_{t-1} together, whatever path it came by: the noise of g_t is independent of
    it, so E<g_t, a_{t-1}> = E<grad F_t, a_{t-1}>. Never below 0.
    """
    _, signal = noise_and_signal(gg, ll, gl)
    return max(0.0, mm - 2.0 * gm + signal)


def best_gamma(gg: float, ll: float, gl: float, gm: float, mm: float, *, beta: float) -> float:
    """The gamma in [0, 1] of the least estimated error, from dot products of a run's own steps.

    m_t = (1 - gamma) EMA(g)_t + gamma g_t gives the newest gradient the weight
    w = 1 - beta + gamma beta, and leaves 1 - w to the average a_{t-1} from before. Its error is
    (1 - w)^2 Q + w^2 N, least at w = Q / (Q + N), the gain of a Kalman filter.

    ``gg``, ``ll`` and ``gl`` alone cannot tell it: they give noise and signal, and no lag. The
    last two, of the average that is in memory anyway, close the gap without a model of how the
    gradient moves. Two things limit it: the full gradient's move in one step must be small beside
    the noise, and the mean must be long, for <g_t, g_{t-1}> is itself noisy (docs/theory.md).

    Args:
        gg: mean over recent steps of |g_t|^2.
        ll: of |g_{t-1}|^2.
        gl: of <g_t, g_{t-1}>, of two batches (not the exact form's).
        gm: of <g_t, a_{t-1}>; a_{t-1} is the plain average EMA(g) with Adam's bias correction,
            what ``correction="folded"`` keeps as ``exp_avg``, divided by 1 - beta^(t-1).
        mm: of |a_{t-1}|^2.
        beta: beta1; early in a run 1 - (1 - beta1) / (1 - beta1^t), the weight of a_{t-1}.

    Raises:
        ValueError: for a beta out of range.
    """
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta!r} must be above 0 and below 1")
    if not all(map(math.isfinite, (gg, ll, gl, gm, mm))):
        return 0.0  # a step that overflowed tells nothing: no correction
    noise, _ = noise_and_signal(gg, ll, gl)
    error = error_of_last(gg, ll, gl, gm, mm)
    if error + noise <= 0.0:
        return 0.0
    return min(1.0, max(0.0, (error / (error + noise) - (1.0 - beta)) / beta))


def set_gammas(
    groups: Iterable[Group], state: MutableMapping[Tensor, dict[str, Any]], amp: Amp
) -> None:
    """``gamma_now`` of each group that has a schedule, for the step that is due.

    Raises:
        ValueError: for sharded parameters under "auto".
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
    _choose([g for g in scheduled if g["gamma_schedule"] in BY_NOISE])


def check_whole(group: Group) -> None:
    """Raise ValueError for sharded parameters where gamma is chosen from their gradients."""
    chosen = group["gamma_schedule"] in BY_NOISE and group["gamma"]
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
        sums = {k: torch.tensor(v, dtype=torch.float64) for k, v in kept.items() if k == SUMS}
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
    """Add this step's dot products to the group's averages; nothing waits for the device."""
    params = [p for p in group["params"] if p.grad is not None and not p.grad.is_sparse]
    check_whole(group)
    if not params:
        return
    group.setdefault("gamma_now", group["gamma"])
    steps = group["gamma_steps"] = group.get("gamma_steps", 0) + 1
    share = newest_weight(group["betas"][0], steps)
    buckets: dict[Any, list[Tensor]] = defaultdict(list)
    for p in params:
        buckets[p.device, p.dtype, PROBE in state[p]].append(p)
    sums = []
    for (*_, known), bucket in buckets.items():
        samples = _samples(bucket)
        (g,) = amp.unscaled([torch.cat(samples)])
        if not known:
            fresh = torch.stack([g, g]).nan_to_num(0.0, 0.0, 0.0)
            for p, probe in zip(bucket, _cut(fresh, samples), strict=True):
                state[p][PROBE] = probe.clone()
            continue
        probes = [state[p][PROBE] for p in bucket]
        old = torch.cat(probes, 1)
        last, average = old.unbind()
        dots = [(g, g), (last, last), (g, last), (g, average), (average, average)]
        sums.append(torch.stack([dot(a, b) for a, b in dots]))
        new = torch.stack([g, average.lerp(g, share)])
        # a step that overflowed leaves nothing
        new = torch.where(sums[-1].select(0, 0).isfinite(), new, old)
        torch._foreach_copy_(probes, _cut(new, samples))
    if sums:
        _add(group, torch.stack([s.to(sums[0].device) for s in sums]).sum(0), steps)


def _add(group: Group, sums: Tensor, steps: int) -> None:
    """Running averages over the last SHARE of all steps; those with NaN or inf do not count."""
    means = group[SUMS] if SUMS in group else torch.zeros_like(sums)
    means = means.to(sums.device)
    weight = max(1.0 / max(1, steps - 1), 1.0 / max(FIRST, SHARE * steps))
    finite = torch.isfinite(sums).all()
    group[SUMS] = torch.where(finite, means.lerp(sums, weight), means)


def newest_weight(beta: float, t: int) -> float:
    """Of g_t in the average of t gradients with Adam's bias correction."""
    return (1.0 - beta) / (1.0 - beta**t)


def _samples(params: list[Tensor]) -> list[Tensor]:
    """Evenly spaced elements of each gradient, scaled so that dot products are the whole's.

    At most SAMPLE of each, in float32 or wider.
    """
    samples, scales = [], []
    for p in params:
        flat = as_real(p.grad).reshape(-1)
        sample = flat[:: -(-flat.numel() // SAMPLE)] if flat.numel() > SAMPLE else flat
        samples.append(sample.to(torch.promote_types(sample.dtype, torch.float32)))
        scales.append(math.sqrt(flat.numel() / max(1, sample.numel())))
    return samples if set(scales) == {1.0} else list(torch._foreach_mul(samples, scales))


def sample_size(numel: int) -> int:
    """How many elements of a tensor are sampled."""
    return -(-numel // max(1, -(-numel // SAMPLE)))


def _cut(rows: Tensor, samples: list[Tensor]) -> list[Tensor]:
    """(2, all sampled) -> (2, sampled) of each tensor."""
    return list(torch.split(rows, [sample.numel() for sample in samples], 1))


def _choose(groups: list[Group]) -> None:
    """gamma_now, of groups whose averages are due to be read."""
    due = [g for g in groups if SUMS in g and _is_due(g["gamma_steps"])]
    together = [g[SUMS].tolist() for g in due if g["gamma_schedule"] == "auto_all"]
    for group in due:
        alone = group["gamma_schedule"] == "auto"
        parts = [group[SUMS].tolist()] if alone else together
        sums = [sum(column) for column in zip(*parts, strict=True)]
        beta = 1.0 - newest_weight(group["betas"][0], group["gamma_steps"])
        move = min(HIGHEST, best_gamma(*sums, beta=beta)) - gamma_of(group)
        group["gamma_now"] = gamma_of(group) + min(RATE, max(-RATE, move))


def _is_due(steps: int) -> bool:
    return steps >= FIRST and steps % EVERY == 0
