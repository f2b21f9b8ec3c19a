r"""Noise and signal as the steps show them: four sums per tensor.

.. math::
    \|c_t\|^2,\; \|g_t\|^2,\; \|g_{t-1}\|^2,\; \langle g_t, g_{t-1} \rangle

Kept on the device and added up over the steps since they were last read; reading is the only wait.

With g_t = s_t + n_t, a signal that moves slowly and noise that is independent from batch to batch,
E<g_t, g_{t-1}> = |s|^2 and E|g_t - g_{t-1}|^2 / 2 = tr Var(g) (plus half the signal's own move).
For ``correction="exact"`` g_{t-1} is this batch's gradient at the last point instead, so that their
difference is the signal's move and little noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .correction import inners
from .distributed.sharded import Shards
from .hyperparameters import Settings

CC, GG, LL, GL, SUMS = range(5)

# Told (tensors, SUMS), or of plain steps norms (tensors,), and the clip's scales (tensors,), None
# without a clip; of which whole tensors these are shards; and whether there is a g_{t-1}.
Observe = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTelemetry:
    """Means over ``steps`` steps of one parameter group, all its tensors together.

    Args:
        group: number of the parameter group.
        kind: what is in it, as in ``describe()``.
        steps: since telemetry was last read; the very first, which has no g_{t-1}, is left out.
        gradient: root mean square of |g_t|, after the user's own gradient clipping.
        signal: estimate of |E g|^2, the mean of <g_t, g_{t-1}>; may be negative in noise. This and
            the next three are NaN where no g_{t-1} is kept: no correction, or a folded one.
        noise: estimate of tr Var(g), the mean of |g_t - g_{t-1}|^2 / 2. NaN for
            ``correction="exact"``, whose two gradients are of one batch.
        cosine: of g_t and g_{t-1}.
        correction_ratio: k |g_t - g_{t-1}| / |g_t|, by root mean squares.
        clip_rate: share of tensors whose c_t was clipped; 0 without a clip.
        gamma: in force when it was read.
        tensors: with gradients in the group.
    """

    group: int
    kind: str
    steps: int
    gradient: float
    signal: float
    noise: float
    cosine: float
    correction_ratio: float
    clip_rate: float
    gamma: float
    tensors: int

    @property
    def noise_scale(self) -> float:
        """tr Var(g) / |E g|^2: above 1 the batch's gradient is more noise than signal.

        In units of the batch that was trained on, it is McCandlish's simple noise scale.
        """
        return math.inf if self.signal <= 0 else self.noise / self.signal

    def to_dict(self) -> dict[str, Any]:
        """All of it, ``noise_scale`` too."""
        return {**asdict(self), "noise_scale": self.noise_scale}


# Of a bucket's step: sums, scales, shards, whether there is a g_{t-1}, as Telemetry.add has them.
_Reading = tuple[Tensor, Tensor | None, Shards | None, bool]


class _Totals:
    """Readings of one bucket, added up: of its steps with as many tensors, a clip, a g_{t-1}.

    They are added one after the other, so it does not matter how many are added in one go.
    """

    def __init__(self, shards: Shards | None, kind: tuple[bool, bool, int]) -> None:
        self.shards, self.kind = shards, kind
        self.paired, self.clips, self.tensors = kind  # is there a g_{t-1}, is there a clip
        # sums, clipped tensors times steps, steps; of this process's shards
        self.total: list[float] | Tensor = [0.0] * (SUMS + 2)

    def add(self, readings: Sequence[_Reading]) -> None:
        """More steps. Nothing waits."""
        sums = torch.stack([reading[0] for reading in readings])
        if sums.ndim == 2:
            sums = _of_norms(sums)
        sums = sums.sum(1)
        every_scales = [scales for _, scales, *_ in readings if scales is not None]
        clipped = (torch.stack(every_scales) < 1.0).sum(1) if every_scales else None
        if sums.is_cpu and isinstance(self.total, list):
            its_clipped = [0.0] * len(readings) if clipped is None else clipped.tolist()
            self._add_numbers(sums.tolist(), its_clipped)
        else:
            self._add_tensors(sums, torch.zeros_like(sums[:, 0]) if clipped is None else clipped)

    def _add_tensors(self, sums: Tensor, clipped: Tensor) -> None:
        """Sums (steps, SUMS) and clipped tensors (steps,) of more steps."""
        rows = torch.cat([sums, clipped[:, None].to(sums.dtype), torch.ones_like(sums[:, :1])], 1)
        if self.paired:  # there is a g_{t-1} from the second step on
            rows = torch.where(sums[:, LL : LL + 1] > 0, rows, 0.0)
        before = self.total
        if isinstance(before, list):
            before = torch.tensor(before, dtype=rows.dtype, device="cpu")
        before = before.to(rows.device, rows.dtype, non_blocking=True)
        self.total = torch.cat([before[None], rows]).cumsum(0)[-1]

    def _add_numbers(self, sums: list[list[float]], clipped: list[float]) -> None:
        """The same in numbers: on a CPU small tensors cost more."""
        for row, its_clipped in zip(sums, clipped, strict=True):
            if self.paired and not row[LL] > 0:
                continue
            new = (*row, its_clipped, 1.0)
            self.total = [a + b for a, b in zip(self.total, new, strict=True)]

    def sums(self) -> list[float]:
        """Those of the whole tensors; with shards this is a collective."""
        if self.shards is None:
            return self.numbers()[:SUMS]
        own = torch.as_tensor(self.total, dtype=torch.float64)[:SUMS]
        whole: list[float] = self.shards.whole_sums(own).tolist()
        return whole

    def numbers(self) -> list[float]:
        """``total`` in numbers; waits for the device."""
        return self.total if isinstance(self.total, list) else self.total.tolist()


class Telemetry:
    """Keeps what the steps of an optimizer show, in every ``every``-th step; see the module.

    Readings are kept as they come, and MOST are added up in one go: so a step costs next to
    nothing. Sums of shards stay apart until they are read: reading then takes part in one
    all-reduce per bucket of parameters, so every process must do it.
    """

    MOST = 128

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self._steps = 0
        self._pending: list[tuple[int, int, _Reading]] = []
        self._buckets: dict[tuple[int, int], list[_Totals]] = {}

    def begin_step(self) -> None:
        """Count a step, before its buckets are added."""
        self._steps += 1

    @property
    def is_due(self) -> bool:
        """Whether this step's sums are wanted."""
        return self._steps % self.every == 0

    def add(
        self,
        group: int,
        bucket: int,
        sums: Tensor,
        scales: Tensor | None,
        shards: Shards | None,
        paired: bool,
    ) -> None:
        """Keep one step of one bucket of tensors; without waiting for the device.

        Args:
            group: number of the parameter group.
            bucket: number of the bucket in it.
            sums: (tensors, SUMS), or of plain steps |g| (tensors,), of this process's shards; not
                to be written to afterwards.
            scales: (tensors,), of the clip; None without one. The same holds.
            shards: of which whole tensors these are shards.
            paired: whether there is a g_{t-1}, from the second step on.
        """
        self._pending.append((group, bucket, (sums, scales, shards, paired)))
        if len(self._pending) == self.MOST:
            self._fold()

    def _fold(self) -> dict[tuple[int, int], list[_Totals]]:
        """Totals with all that is pending, of each bucket by the kinds of its steps."""
        pending, self._pending = self._pending, []
        alike: dict[tuple[int, ...], list[_Reading]] = {}
        for group, bucket, reading in pending:
            sums, scales, _, paired = reading
            key = group, bucket, paired, scales is not None, sums.shape[0], sums.ndim
            alike.setdefault(key, []).append(reading)
        for (group, bucket, *kinds), readings in alike.items():
            kind = bool(kinds[0]), bool(kinds[1]), kinds[2]
            known = self._buckets.setdefault((group, bucket), [])
            same = next((totals for totals in known if totals.kind == kind), None)
            if same is None:
                known.append(same := _Totals(readings[0][2], kind))
            same.add(readings)
        return self._buckets

    def to_json(self) -> dict[str, Any]:
        """Sums so far, for a checkpoint; none of sharded parameters."""
        buckets = [
            [*key, b.numbers(), *b.kind]
            for key, kinds in sorted(self._fold().items())
            for b in kinds
            if b.shards is None
        ]
        return {"steps": self._steps, "buckets": buckets}

    def from_json(self, data: dict[str, Any]) -> None:
        """Go on from what :meth:`to_json` gave, to the same bits."""
        self._steps = data["steps"]
        for group, number, total, *kind in data["buckets"]:
            paired, clips, tensors = kind
            bucket = _Totals(None, (paired, clips, tensors))
            bucket.total = list(total)
            self._buckets.setdefault((group, number), []).append(bucket)

    def read(self, groups: list[dict[str, Any]]) -> list[GroupTelemetry]:
        """Means over the steps since the last reading, group by group; starts anew."""
        buckets, self._buckets = self._fold(), {}
        return [
            _means(i, groups[i], [kinds for (g, _), kinds in sorted(buckets.items()) if g == i])
            for i in sorted({group for group, _ in buckets})
        ]


def _means(number: int, group: dict[str, Any], buckets: list[list[_Totals]]) -> GroupTelemetry:
    sums, steps, clipped, chances = [0.0] * SUMS, 0.0, 0.0, 0.0
    for kinds in buckets:
        its_steps = 0.0
        for bucket in kinds:
            sums = [a + b for a, b in zip(sums, bucket.sums(), strict=True)]
            its_clipped, of_kind = bucket.numbers()[SUMS:]
            clipped += its_clipped
            chances += of_kind * bucket.tensors
            its_steps += of_kind
        steps = max(steps, its_steps)
    settings = Settings.from_group(group)
    gg, ll, gl = (sums[i] / steps if steps else math.nan for i in (GG, LL, GL))
    if not settings.takes_difference:
        ll = gl = math.nan
    difference = gg - 2 * gl + ll  # |g_t - g_{t-1}|^2
    return GroupTelemetry(
        group=number,
        kind=str(group.get("kind", group["rule"])),
        steps=int(steps),
        gradient=math.sqrt(gg),
        signal=gl,
        noise=math.nan if settings.exact else difference / 2,
        cosine=gl / math.sqrt(gg * ll) if gg * ll else math.nan,
        correction_ratio=float(settings.gain) * math.sqrt(abs(difference) / gg) if gg else math.nan,
        clip_rate=clipped / chances if chances else math.nan,
        gamma=float(settings.gamma),
        tensors=sum(kinds[-1].tensors for kinds in buckets),
    )


def _of_norms(norms: Tensor) -> Tensor:
    """The four sums, (steps, tensors, SUMS), where c is g and there is no g_{t-1}."""
    gg = norms.double().square()
    zero = torch.zeros_like(gg)
    return torch.stack([gg, gg, zero, zero], dim=-1)


def sums_of(grads: list[Tensor], last_grads: list[Tensor] | None, gain: float | Tensor) -> Tensor:
    """The four sums of each tensor, (tensors, SUMS) in float64, before c_t takes g_{t-1}'s memory.

    |c|^2 = (1 + k)^2 |g|^2 - 2 k (1 + k) <g, g_{t-1}> + k^2 |g_{t-1}|^2.
    """
    gg = inners(grads, grads)
    if last_grads is None:
        zero = torch.zeros_like(gg)
        return torch.stack([gg, gg, zero, zero], dim=1)
    ll, gl = inners(last_grads, last_grads), inners(grads, last_grads)
    k = gain
    cc = (1 + k) ** 2 * gg - 2 * k * (1 + k) * gl + k**2 * ll
    return torch.stack([cc.clamp(min=0.0), gg, ll, gl], dim=1)
