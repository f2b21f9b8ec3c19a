"""The step of all groups, laid out bucket by bucket before the first parameter moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import backends
from .backends import Amp, Bucket
from .correction import GlobalNorm
from .gamma import schedule as gammas
from .groups.split import checked_settings
from .hyperparameters import Settings
from .observed import Observed
from .state.fit import called
from .state.stepped import Row, alike, made_ready
from .state.traces import Traces
from .types import KEPT

Update = Callable[[], None]


class StepLayout(Observed):
    """From groups to buckets of tensors that one backend steps at a time."""

    def _checked_work(self, amp: Amp) -> list[Update]:
        """The step of all groups; where it is refused, state and groups are left as they were."""
        settings = checked_settings(self.param_groups, self._given)
        traces = Traces(self.param_groups, self.state, self._runtime["plans"])
        try:
            return self._work(amp, settings)
        except Exception:
            traces.remove()
            raise

    def _work(self, amp: Amp, checked: Sequence[Settings] = ()) -> list[Update]:
        """The step of all groups, laid out and not yet taken."""
        gammas.prepare(self.param_groups, self._runtime["plans"])
        self._begin_measuring()
        norm = GlobalNorm()
        updates: list[Update] = []
        for i, group in enumerate(self.param_groups):
            settings = checked[i].in_force(group) if checked else None
            updates += self._updates(i, group, amp, norm, settings)
        return updates

    def _updates(
        self,
        i: int,
        group: dict[str, Any],
        amp: Amp,
        norm: GlobalNorm,
        settings: Settings | None = None,
    ) -> list[Update]:
        """The step of group ``i``'s parameters that have a gradient, bucket by bucket."""
        settings, updates = settings or Settings.from_group(group), []
        for b, (params, grads, states) in enumerate(self._rows(group, settings)):
            bucket = Bucket(
                params,
                grads,
                states,
                settings.beside(params[0]),
                amp=amp,
                observer=self._observer(i, b),
                norm=norm,
            )
            try:
                updates.append(backends.prepare(bucket))
            except backends.MisfitError as error:
                name = called(self.param_groups, params[error.index])
                raise ValueError(f"{name} {error.reason}") from None
        return updates

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor] | None = None,
        grads: list[Tensor] | None = None,
        *kept: list[Tensor],
        skip_non_grad_params: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Fill the lists with the parameters that have a gradient; make state where there is none.

        torch.compile knows this method of optimizers by its name and calls it instead of tracing
        it, so that a new gradient tensor is no reason to compile again. It must find tensors in
        lists of their own: ``kept`` are those of :data:`.types.KEPT`, or nothing. ``settings`` are
        the group's, read again where they are not given.

        Megatron calls it without lists and with ``skip_non_grad_params=False`` before it loads a
        checkpoint: state then is made of parameters without a gradient too.
        """
        settings = settings or Settings.from_group(group)
        found = made_ready(
            self.param_groups, self.state, group, settings, all_params=not skip_non_grad_params
        )
        if params is None or grads is None:
            return
        for param in found:
            if param.grad is None:
                continue
            params.append(param)
            grads.append(param.grad)
            for name, tensors in zip(KEPT, kept, strict=False):
                if name in self.state[param]:
                    tensors.append(self.state[param][name])

    def _rows(self, group: dict[str, Any], settings: Settings) -> Iterable[Row]:
        """Parameters with their gradients and states, apart by device, dtype and layout."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        if torch.compiler.is_compiling():
            kept: list[list[Tensor]] = [[] for _ in KEPT]
            self._init_group(group, params, grads, *kept)
            whole = [(n, ts) for n, ts in zip(KEPT, kept, strict=True) if ts]
            states = [{name: tensors[i] for name, tensors in whole} for i in range(len(params))]
        else:
            self._init_group(group, params, grads, settings=settings)
            states = [self.state[param] for param in params]
        return alike(params, grads, states)
