"""Buckets of parameters that step together, and the backends that step them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..correction import GlobalNorm, clip_norms, plain_norms, scales_of
from ..distributed.sharded import Shards
from ..hyperparameters import Settings
from ..telemetry import CC, Observe, sums_of
from ..types import State
from .amp import Amp


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Tensors that are stepped together: of one group, one device, one dtype and one layout.

    Args:
        params: x_t of any shape and floating dtype; changed in place.
        grads: g_t, shaped like the parameters; only read.
        states: per parameter ``step`` (t - 1) and its buffers (``state_dtypes``); changed.
        settings: the group's hyper-parameters.
        shards: of which whole tensors all of these are shards, if they are.
        amp: by what the gradients are still to be divided, and whether the step is to be skipped.
        observer: is told the sums of every tensor, see ``telemetry``, and its clip's scale.
        norm: of c_t over all tensors, for ``clip_over="global"`` (default: None, over these here).
    """

    params: list[Tensor]
    grads: list[Tensor]
    states: list[State]
    settings: Settings
    shards: Shards | None = None
    amp: Amp = Amp()
    observer: Observe | None = None
    norm: GlobalNorm | None = None

    @property
    def shares_norm(self) -> bool:
        """Whether the clip looks at the norm over more tensors than these."""
        return self.norm is not None and self.settings.clips_together

    def join_norm(self) -> None:
        """Count these c_t in that norm; all join before the first is stepped."""
        if self.norm is not None and self.shares_norm:
            self.norm.add(self.grads, self.states, self.settings, self.shards)

    def shared_norm(self) -> Tensor | None:
        """That norm, once for each tensor, (tensors,); None where the clip looks at these alone."""
        return self.norm.of(self.params) if self.norm is not None and self.shares_norm else None

    def sums(self) -> Tensor:
        """Sums of every tensor for ``telemetry``, by torch's own operations."""
        takes = self.settings.takes_difference
        last_grads = [s["last_grad"] for s in self.states] if takes else None
        return sums_of(self.grads, last_grads, self.settings.gain)

    def observe(self) -> None:
        """Tell the observer, if there is one, what the step is about to do."""
        if self.observer is None:
            return
        sums, scales = self.sums(), None
        if self.settings.clip is not None:
            norms = self.shared_norm()
            if norms is None:
                norms = clip_norms(sums.select(1, CC).sqrt(), self.settings, self.shards)
            scales = scales_of(norms, self.settings.clip)
        self.report(sums, scales)

    def tell_norms(self) -> bool:
        """Tell the observer, if there is one, norms in place of sums, of plain steps; if it can."""
        norms = None if self.observer is None else plain_norms(self.grads)
        if norms is not None:
            self.report(norms, None)
        return norms is not None

    def report(self, sums: Tensor, scales: Tensor | None) -> None:
        """Tell the observer, if there is one, of sums (or norms) and scales that a step found."""
        if self.observer is not None:
            self.observer(sums, scales, self.shards, self.settings.takes_difference)


class Backend(Protocol):
    """A way to take the step of a bucket; each is a module of this package."""

    OWN: frozenset[str]
    """Those of "grad_scale", "found_inf" and "dtypes" that the backend handles itself;
    :func:`~.dispatch.prepare` does the rest around it."""

    def why_not(self, bucket: Bucket) -> str | None:
        """The reason why it cannot take this step, or None if it can."""
        ...

    def step(self, bucket: Bucket) -> None:
        """One MARS step of tensors for which :meth:`why_not` is None, as ``reference.update``."""
        ...
