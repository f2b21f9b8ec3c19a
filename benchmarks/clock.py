"""Two optimizers against each other, in turns, on the same tensors."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .contenders import Contender, Params, state_bytes
from .machine import Copy

WARM_UP = 3  # rounds: state is made in the first, a MARS looks once at its correction in the third
_SETTLE = 90.0  # seconds at most before the first contender
_SHORTEST = 0.02  # seconds; shorter steps are repeated within a round


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over rounds."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least two values."""
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3)


class Field:
    """One set of parameters and gradients on which everybody steps, the baseline beside each."""

    def __init__(
        self,
        params: Params,
        grads: dict[str, Tensor],
        baseline: Contender,
        copy: Copy | None = None,
    ) -> None:
        self.copy = copy
        self.baseline = baseline
        self.params = params
        self.grads = grads
        self._kept = {name: grad.clone() for name, grad in grads.items()}
        self.reference = baseline.build(params)
        if copy is not None:
            self._settle(copy)

    def _settle(self, copy: Copy) -> None:
        """Step AdamW until it moves memory about as fast as a copy does.

        Fresh memory can be ten times slower for a minute, until the system has found large pages
        for it (seen on a virtual machine).
        """
        assert self.baseline.bytes is not None
        size = self.baseline.bytes * sum(p.numel() for p in self.params.values())
        until = time.perf_counter() + _SETTLE
        while time.perf_counter() < until:
            moved = size / statistics.median(self._seconds(self.reference, 1) for _ in range(5))
            if moved > 0.9 * copy.bytes / min(copy.seconds() for _ in range(3)):
                return

    def compare(self, contender: Contender, *, rounds: int) -> dict[str, Any]:
        """Step baseline and contender in turns; a row of the result.

        Each round times both, one after the other, so that what disturbs the machine for longer
        than a round disturbs both; the ratio is taken within the round. Gradients are given once
        and must be what they were afterwards.
        """
        gc.collect()  # the last contender's state
        optimizer = contender.build(self.params)
        for _ in range(WARM_UP):
            repeats = self._repeats(self.reference), self._repeats(optimizer, contender)
        ours, theirs, copies = [], [], []
        gc.disable()
        try:
            for _ in range(rounds):
                theirs.append(self._seconds(self.reference, repeats[0]))
                ours.append(self._seconds(optimizer, repeats[1], contender))
                if self.copy is not None:
                    copies.append(self.copy.seconds())
        finally:
            gc.enable()
        parameters = sum(p.numel() for p in self.params.values())
        adamw = statistics.median(theirs)
        return {
            "name": contender.name,
            "kind": contender.kind,
            "seconds": asdict(Spread.of(ours)),
            "ratio": asdict(Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])),
            "baseline_seconds": adamw,
            **self._floor(contender, adamw, copies, parameters),
            "bytes": contender.bytes,
            "state_bytes": state_bytes(optimizer, self.params) / parameters,
            "gradients_kept": self._gradients_kept(),
            "rounds": [{"seconds": a, "baseline": b} for a, b in zip(ours, theirs, strict=True)],
        }

    def _floor(
        self, contender: Contender, adamw: float, copies: list[float], parameters: int
    ) -> dict[str, float | None]:
        """Least time for the method's bytes at the best bandwidth seen in these rounds.

        That is copy_'s or AdamW's own: in-place work need not fetch what it overwrites.
        None where caches hold the tensors or arithmetic is the limit.
        """
        if self.copy is None:
            return dict.fromkeys(("copy_bandwidth", "baseline_bandwidth", "floor_ratio"))
        assert self.baseline.bytes is not None
        copied = self.copy.bytes / statistics.median(copies)
        moved = self.baseline.bytes * parameters / adamw
        floor = None
        if contender.bytes is not None:
            floor = contender.bytes * parameters / max(copied, moved) / adamw
        return {"copy_bandwidth": copied, "baseline_bandwidth": moved, "floor_ratio": floor}

    def _repeats(self, optimizer: Any, contender: Contender | None = None) -> int:
        taken = self._seconds(optimizer, 1, contender)
        return max(1, round(_SHORTEST / taken))

    def _give_gradients(self) -> None:
        for name, param in self.params.items():
            param.grad = self.grads[name]

    def _gradients_kept(self) -> bool:
        """Whether p.grad is the same tensor with the same values; put right if not."""
        kept = True
        for name, param in self.params.items():
            grad = self.grads[name]
            if param.grad is not grad or not torch.equal(grad, self._kept[name]):
                kept = False
                grad.copy_(self._kept[name])
        return kept

    def _seconds(self, optimizer: Any, repeats: int, contender: Contender | None = None) -> float:
        """Seconds of one step, as the mean of ``repeats``."""
        total = 0.0
        for _ in range(repeats):
            self._give_gradients()  # some peers take them away
            if contender is not None and contender.before is not None:
                contender.before(optimizer)
            start = time.perf_counter()
            optimizer.step()
            total += time.perf_counter() - start
        return total / repeats
