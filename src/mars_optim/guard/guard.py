"""The guard of a MARS run: watches, warns, and goes back to AdamW with moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from ..optim.tools.origin import unwrapped
from ..optim.values import whole
from .arguments import baseline_of, check_held, settings_of
from .baseline import Baseline
from .detector import Alarm, Detector
from .keeper import SnapshotKeeper
from .log import EventLog
from .ranks import world_size
from .readings import Readings, StepValues, Value
from .rollback import Rollback, RollbackTarget
from .schedulers import check_schedulers, repoint
from .settings import GuardSettings
from .snapshots import Snapshot, Stateful, copied, rng_state, set_rng_state

FORMAT = 1


class Guard:
    """Watches MARS against AdamW's history and takes the run back to AdamW if need be.

    Make it right after the switch, before the first step of MARS: the state at that moment is the
    first snapshot. Tell it of every step by :meth:`watch`. Alarms are logged; one of
    ``settings.rollback_on`` puts model, moments, schedulers and random state back to the newest
    snapshot from before the trouble, as AdamW with AdamW's own settings. From then on the guard
    only looks on.

    In several processes (DDP, FSDP2) every rank makes a guard and calls it at the same steps: the
    values are averaged over ranks at each reading, so all decide the same.

    Args:
        model: whose parameters and buffers are kept.
        optimizer: the MARS (rule "adamw" in every group), as :func:`~mars_optim.migrate` made it,
            or an AdamW under :func:`~mars_optim.variance_reduce`.
        baseline: AdamW's history, or a file with one.
        settings: limits and intervals (default: None, ``GuardSettings()``).
        snapshots: "memory", or a folder for files of this run alone (default: "memory").
        log: JSON Lines file of events (default: None).
        adamw: the AdamW before the switch, or its param groups, whose betas, eps and weight_decay
            hold again after going back (default: None, those of the MARS).
        lr_scale: how many times AdamW's lr that of the MARS is, in its schedule too; going back
            divides by it (default: 1.0).
        extras: what else is saved and restored, by name: schedulers, a GradScaler, a data loader
            with a state.
        in_place: go back by turning off the correction of ``optimizer`` itself, which then computes
            what AdamW does. For hosts that hold on to their optimizer (default: False).
        step: steps taken before the switch (default: 0).
        on_rollback: called with the :class:`Rollback` once all is restored.

    Raises:
        ValueError: if no AdamW can go on from the optimizer, if it steps parameters that are not
            the model's, or if an argument cannot be used; in the first :meth:`watch`, for a
            position that cannot be read back from a file.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        baseline: Baseline | str | Path,
        settings: GuardSettings | None = None,
        snapshots: str | Path = "memory",
        log: str | Path | None = None,
        adamw: Optimizer | Sequence[Mapping[str, Any]] | None = None,
        lr_scale: float = 1.0,
        extras: Mapping[str, Stateful] | None = None,
        in_place: bool = False,
        step: int = 0,
        on_rollback: Callable[[Rollback], None] | None = None,
    ) -> None:
        self.settings = settings_of(settings)
        self.baseline = baseline_of(baseline)
        self.model = model
        self.optimizer = optimizer
        self.step = whole("step", step)
        self.rolled_back = False
        self._start = self.step
        self._bare = unwrapped(optimizer)
        has_own = type(optimizer).state_dict is not Optimizer.state_dict  # a wrapper with a state
        self._stateful = optimizer if has_own else self._bare
        self._extras = dict(extras or {})
        self._on_rollback = on_rollback
        self._target = RollbackTarget.of(self._bare, adamw, lr_scale=lr_scale, in_place=in_place)
        check_schedulers(self._extras, self._bare, self._target.factors(self._bare))
        check_held(model, self._bare)
        self._detector = Detector(self.settings, self.baseline)
        self._readings = Readings(self._bare, self.settings.every)
        self._kept = SnapshotKeeper(snapshots, self.settings.keep, self._readings.device)
        self._log = EventLog(log)
        self._position: Any = None
        self._on: set[str] = set()
        self._first: Snapshot | None = copied(self._state_of_run())
        self._kept.check(self._first)

    def watch(
        self,
        *,
        loss: Value,
        grad_norm: Value | None = None,
        step_seconds: float | None = None,
        position: Any = None,
    ) -> Rollback | None:
        """Tell the guard of a step, after the optimizer (and scheduler) took it.

        Args:
            loss: of the step. A tensor is left on its device until the next reading.
            grad_norm: of the whole gradient, as ``clip_grad_norm_`` returns it.
            step_seconds: wall time (default: None, the time since the last call).
            position: where the data stands, as plain data; handed back when going back.

        Returns:
            What was done, if the run went back at this step.

        Raises:
            ValueError: if the optimizer's groups have changed since the guard was made.
        """
        if self.rolled_back:
            self.step += 1
            return None
        self._target.check(self._bare, self.step)
        if self._first is not None:
            self._begin(self._first, position)
        self.step += 1
        self._position = position
        readings = self._readings.add(loss, grad_norm, step_seconds)
        back = self._examine(readings) if readings else None
        if back is None:
            if self.step % self.settings.checkpoint_every == 0:
                self._take_snapshot()
            self._readings.start_clock()
        return back

    def flush(self) -> Rollback | None:
        """Judge the steps that wait for a reading."""
        return None if self.rolled_back else self._examine(self._readings.read())

    def finish(self) -> Rollback | None:
        """Call this at the end of a run: judge its last steps, log the end, and close.

        Returns:
            What was done, if the run went back at its last steps. Then it has not ended: train on,
            and call this again.
        """
        back = self.flush()
        if back is None:
            if self._first is None:  # else no step was watched, and the log has no start
                self._log.write("end", self.step, rolled_back=self.rolled_back)
            self.close()
        return back

    def close(self) -> None:
        """Take the hook out of the optimizer; the run goes on unwatched."""
        self._readings.close()

    def state_dict(self) -> dict[str, Any]:
        """For the run's checkpoint; steps since the last reading are left out."""
        return {
            "format": FORMAT,
            "step": self.step,
            "start": self._start,
            "rolled_back": self.rolled_back,
            "baseline": {k: list(v) for k, v in asdict(self.baseline).items()},
            "detector": self._detector.state_dict(),
            "on": sorted(self._on),
            "rollback": self._target.state_dict(),
            "run": self._kept.run,
            "world_size": world_size(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another guard of the same settings stood.

        Restore the model and the optimizer first. Snapshots on disk are found again by the same
        number of processes; else, and in memory, the restored state becomes the first one. Where
        ``rolled_back`` is true afterwards, the run had gone back to AdamW, and the optimizer to
        restore is an AdamW.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ValueError: if the state is of another format, or of other groups.
        """
        if state.get("format") != FORMAT:
            raise ValueError(f"state has format {state.get('format')!r}, not {FORMAT}")
        if not state["rolled_back"]:
            self._target.load_state_dict(state["rollback"], self._bare)
        self.baseline = Baseline(**state["baseline"])
        self.step, self._start = state["step"], state["start"]
        self.rolled_back = state["rolled_back"]
        self._detector = Detector(self.settings, self.baseline)
        self._detector.load_state_dict(state["detector"])
        self._on = set(state["on"])
        self._first = None
        if self.rolled_back:
            self.close()
        else:
            size = state.get("world_size", world_size())
            if self._kept.resume(state.get("run", ""), size, self._state_of_run()):
                self._log.write("checkpoint", self.step)

    # --- inside ------------------------------------------------------------------------------

    def _begin(self, first: Snapshot, position: Any) -> None:
        """The state at the switch is the first snapshot; those of an earlier run are dropped."""
        self._kept.check({**first, "position": position})
        self._kept.begin(first)
        self._first = None
        noise = dict(loss=self._detector.reference, loss_limit=self._detector.loss_limit)
        self._log.write("start", self.step, **noise, limits=self._detector.limits)

    def _examine(self, readings: Sequence[StepValues]) -> Rollback | None:
        for i, reading in enumerate(readings):
            step = self.step - len(readings) + 1 + i
            alarms = self._detector.feed(step, **asdict(reading))
            self._report(step, alarms)
            for alarm in alarms:
                settled = alarm.signal == "nonfinite" or step > self._start + self.settings.settle
                if settled and alarm.signal in self.settings.rollback_on:
                    return self._go_back(alarm)
        return None

    def _report(self, step: int, alarms: list[Alarm]) -> None:
        """Log signals that went on or off."""
        now: dict[str, Alarm] = {alarm.signal: alarm for alarm in alarms}
        for signal in sorted(now.keys() - self._on):
            self._log.write("warn", **_told(now[signal], step))
        for signal in sorted(self._on - now.keys()):
            self._log.write("clear", step, signal=signal)
        self._on = set(now)

    def _take_snapshot(self) -> None:
        if self._on & set(self.settings.rollback_on) or not self._kept.fits(self._bare):
            return  # not a state to go back to
        if self._kept.take(self._state_of_run()):
            self._log.write("checkpoint", self.step)

    def _state_of_run(self) -> Snapshot:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._stateful.state_dict(),
            "extras": {name: extra.state_dict() for name, extra in self._extras.items()},
            "rng": rng_state(),
            "position": self._position,
        }

    def _go_back(self, alarm: Alarm) -> Rollback:
        self._target.check(self._bare, self.step)
        limit = alarm.since - self.settings.patience
        snapshot = self._kept.newest(limit)
        chosen, detected = snapshot["step"], self.step
        clean = chosen <= limit or chosen == self._start  # nothing of MARS is in the first one
        self.close()
        self.model.load_state_dict(snapshot["model"])
        self._stateful.load_state_dict(copied(snapshot["optimizer"]))
        for name, extra in self._extras.items():
            extra.load_state_dict(copied(snapshot["extras"][name]))
        factors = self._target.factors(self._bare)
        adamw = self._target.go(self._bare)
        repoint(self._extras.values(), self._bare, adamw, factors)
        set_rng_state(snapshot["rng"])
        if not self._target.in_place:  # else the host's own goes on
            self.optimizer = adamw
        self.step, self.rolled_back = chosen, True
        self._position = snapshot["position"]
        self._log.write(
            "rollback",
            **_told(alarm, detected),
            to_step=chosen,
            clean=clean,
            optimizer=type(adamw).__name__,
            lr=[float(group["lr"]) for group in adamw.param_groups],
        )
        back = Rollback(
            optimizer=self.optimizer,
            step=chosen,
            position=self._position,
            detected=detected,
            alarm=alarm,
            clean=clean,
        )
        if self._on_rollback:
            self._on_rollback(back)
        return back


def _told(alarm: Alarm, step: int) -> dict[str, Any]:
    """An alarm as the log has it, at the step at which it was seen."""
    keys = ("signal", "value", "limit", "since")
    return {"step": step, **{key: getattr(alarm, key) for key in keys}}
