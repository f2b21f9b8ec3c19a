"""An optimizer's own account: its groups, settings without effect, telemetry."""

from __future__ import annotations

import warnings as python_warnings
from functools import partial
from typing import Any

import torch

from ..optimizer_options import CHOSEN, MATRIX_RULES
from .describe import correction_ratio, describe, misplaced_in, warnings
from .gamma.kept import is_chosen
from .state.checkpointed import Checkpointed
from .telemetry import GroupTelemetry, Observe, Telemetry


def _idle(why: str) -> str:
    """The sentence that a gamma which was to be chosen has nothing to correct."""
    return (
        f"gamma='auto' corrects nothing, since vectors get plain AdamW and {why}: give "
        "optimize_1d=True for a correction of vectors, or gamma=0"
    )


class Observed(Checkpointed):
    """``describe()`` in words, and ``telemetry()`` in numbers that the steps gather on request."""

    def describe(self) -> str:
        """A table of the groups, and below it what would silently not work, or did not."""
        return describe(self.param_groups, self._runtime["ratios"])

    def measure(self, every: int = 1) -> None:
        """Begin to add up what :meth:`telemetry` tells. Cheap; nothing waits.

        Where our own CPU kernels take the step the sums are by-products; elsewhere they cost a
        pass over the gradients. Not part of the state dict, nor of a compiled step; not with
        ``release_gradients``. Called again, it changes ``every`` and keeps what there is.

        Args:
            every: in each so-many-th step alone, at least 1 (default: 1). On an accelerator, where
                small kernels cost a launch for each tensor, 4 is a quarter of the price.

        Raises:
            ValueError: for an ``every`` below 1.
        """
        if type(every) is not int or every < 1:
            raise ValueError(f"every={every!r} must be a whole number of at least 1")
        telemetry = self._runtime["telemetry"]
        if telemetry is None:
            self._runtime["telemetry"] = Telemetry(every)
        else:
            telemetry.every = every

    @property
    def measures(self) -> bool:
        """Whether :meth:`measure` has been called."""
        return self._runtime["telemetry"] is not None

    def telemetry(self) -> list[GroupTelemetry]:
        """Noise, signal, correction and clip of each group with gradients, and start anew.

        Means over the measured steps since the last call, or since :meth:`measure`. Reading waits
        for the device; with sharded parameters every process must call it.

        Raises:
            RuntimeError: if :meth:`measure` was not called before.
        """
        telemetry = self._runtime["telemetry"]
        if telemetry is None:
            raise RuntimeError(
                "nothing has been measured yet: call optimizer.measure() before the steps"
            )
        return telemetry.read(self.param_groups)

    def _begin_measuring(self) -> None:
        """Tell the telemetry that a step is due."""
        if (telemetry := self._runtime["telemetry"]) and not torch.compiler.is_compiling():
            telemetry.begin_step()

    def _observer(self, group: int, bucket: int) -> Observe | None:
        """Who is told of a bucket's step; nobody in backward, where tensors come one by one."""
        telemetry = self._runtime["telemetry"]
        if telemetry is None or not telemetry.is_due or self._runtime["released"]:
            return None
        if torch.compiler.is_compiling():
            return None
        return partial(telemetry.add, group, bucket)

    def _refuse_silence(self) -> None:
        """A correction that was asked for and reaches no parameter is an error, or a warning."""
        asked = self.defaults["gamma"] != 0
        groups = self.param_groups
        if asked and all(g["rule"] == "adamw" and not g["gamma"] for g in groups):
            (*_, message) = ["", *warnings(groups)]
            if message and self.defaults["rule"] in MATRIX_RULES:
                raise ValueError(f"{type(self).__name__}: {message}")
            kinds = {group.get("kind") for group in groups if group["params"]}
            if not message and kinds == {"vector"} and self.defaults["gamma_schedule"] in CHOSEN:
                message = _idle("it has only vectors")
            if message:
                python_warnings.warn(f"{type(self).__name__}: {message}", stacklevel=3)
        self._warn_of_misplaced(groups)

    def _tell_of_idle_choice(self) -> None:
        """Before the first step: is gamma to be chosen by gradients that there are not?"""
        released, arrived = self._runtime["released"], self._runtime["arrived"]
        groups = [group for group in self.param_groups if group["params"]]
        stepped = [g for g in groups if any(p.grad is not None for p in g["params"])]
        corrected = bool(arrived) or any(group["gamma"] for group in stepped)
        if any(map(is_chosen, groups)) and (released or stepped) and not corrected:
            why = _idle("none of its matrices has a gradient in this first step")
            python_warnings.warn(f"{type(self).__name__}: {why}", stacklevel=2)

    def _warn_of_misplaced(self, groups: list[dict[str, Any]]) -> None:
        """Say which parameters go to Newton-Schulz that look as if they should not."""
        found = [row for group in groups for row in misplaced_in(group)]
        for what, way in dict.fromkeys((what, way) for _, what, way in found):
            names = [name for name, looks, _ in found if looks == what]
            shown = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
            python_warnings.warn(
                f"{type(self).__name__} gives to Newton-Schulz what looks like {what.rstrip(',')}: "
                f"{shown}; {way}",
                stacklevel=4,
            )

    def _check_itself(self) -> None:
        """In the third step, when warm-up and priming steps are past: does the correction act?"""
        if torch.compiler.is_compiling():  # a counter would be a reason to compile again
            return
        self._runtime["steps"] += 1
        if self._runtime["steps"] == 1:
            self._tell_of_idle_choice()
        if self._runtime["steps"] == 3:
            for i, group in enumerate(self.param_groups):
                ratio = correction_ratio(group["params"], self.state) if group["gamma"] else None
                if ratio is not None:
                    self._runtime["ratios"][i] = ratio
