"""When is a run no longer what AdamW's history says it should be? Pure arithmetic on numbers."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .baseline import Baseline, quantile
from .settings import GuardSettings, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A signal that is on.

    Args:
        signal: which.
        step: at which it is on.
        since: first step of those that are beyond; for "drift", the step of the lowest median.
        value: now.
        limit: of the value.
    """

    signal: Signal
    step: int
    since: int
    value: float
    limit: float


class Detector:
    """Feeds on one step after another and tells which signals are on.

    Args:
        settings: the limits.
        baseline: AdamW's history.
    """

    def __init__(self, settings: GuardSettings, baseline: Baseline) -> None:
        self.settings = settings
        self.noise = baseline.loss_noise(settings.window, settings.patience)
        self._margin = max(settings.loss_sigmas * self.noise.middle, self.noise.tail)
        self.limits: dict[Signal, float] = {
            "grad_norm": settings.grad_norm_factor * quantile(baseline.grad_norms, 0.99),
            "clip_share": settings.clip_share_rise + quantile(baseline.clip_shares, 1.0),
            "step_seconds": settings.step_time_factor * quantile(baseline.step_seconds, 0.5),
        }
        if not baseline.clip_shares:
            self.limits["clip_share"] = math.inf
        self._losses = RunningMedian(baseline.losses[-settings.window :], settings.window)
        self._lowest, self._lowest_step = self._losses.median, -1
        self._beyond: dict[Signal, deque[tuple[int, bool]]] = {}

    @property
    def reference(self) -> float:
        """The running median of the loss."""
        return self._losses.median

    @property
    def loss_limit(self) -> float:
        """Losses above it count as a spike."""
        return self._above(self.reference, self.settings.loss_rise)

    def feed(
        self,
        step: int,
        loss: float,
        *,
        grad_norm: float | None = None,
        clip_share: float | None = None,
        step_seconds: float | None = None,
    ) -> list[Alarm]:
        """The signals that are on at this step.

        Args:
            step: steps taken, with this one.
            loss: of the step.
            grad_norm: of the step.
            clip_share: of the step.
            step_seconds: of the step.
        """
        if not math.isfinite(loss):
            return [Alarm(signal="nonfinite", step=step, since=step, value=loss, limit=math.inf)]
        alarms = [self._persistent("loss", step, loss, self.loss_limit)]
        self._losses.add(loss)
        if self.reference < self._lowest:
            self._lowest, self._lowest_step = self.reference, step
        rise = self._above(self._lowest, self.settings.drift_rise)
        if self.reference > rise:
            since = max(0, self._lowest_step)
            drift = Alarm(signal="drift", step=step, since=since, value=self.reference, limit=rise)
            alarms.append(drift)
        others: list[tuple[Signal, float | None]] = [
            ("grad_norm", grad_norm),
            ("clip_share", clip_share),
            ("step_seconds", step_seconds),
        ]
        for signal, value in others:
            if value is not None:
                alarms.append(self._persistent(signal, step, value, self.limits[signal]))
        return [alarm for alarm in alarms if alarm is not None]

    def _above(self, level: float, rise: float) -> float:
        return level + max(self._margin, rise * abs(level))

    def _persistent(self, signal: Signal, step: int, value: float, limit: float) -> Alarm | None:
        """On, if more than half of the last ``patience`` values are beyond."""
        recent = self._beyond.setdefault(signal, deque(maxlen=self.settings.patience))
        recent.append((step, not value <= limit))  # NaN is beyond
        beyond = [at for at, is_beyond in recent if is_beyond]
        if 2 * len(beyond) <= self.settings.patience:
            return None
        return Alarm(signal=signal, step=step, since=beyond[0], value=value, limit=limit)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as plain data."""
        return {
            "losses": list(self._losses.values),
            "lowest": [self._lowest, self._lowest_step],
            "beyond": {signal: list(recent) for signal, recent in self._beyond.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._losses = RunningMedian(state["losses"], self.settings.window)
        self._lowest, self._lowest_step = state["lowest"]
        self._beyond = {
            signal: deque(map(tuple, recent), maxlen=self.settings.patience)
            for signal, recent in state["beyond"].items()
        }


class RunningMedian:
    """The median of the last ``size`` values."""

    def __init__(self, values: Sequence[float], size: int) -> None:
        self.values = deque(values, maxlen=size)
        self._sorted = sorted(self.values)

    def add(self, value: float) -> None:
        """Take one more value; the oldest is forgotten."""
        if len(self.values) == self.values.maxlen:
            del self._sorted[bisect_left(self._sorted, self.values[0])]
        self.values.append(value)
        insort(self._sorted, value)

    @property
    def median(self) -> float:
        """The upper one of two."""
        return self._sorted[len(self._sorted) // 2]
