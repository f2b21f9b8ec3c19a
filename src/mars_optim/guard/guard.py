"""The guard of a MARS run: watches, warns, and goes back to AdamW with moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from .baseline import Baseline
from .detector import Alarm, Detector
from .log import EventLog
from .readings import Readings, StepValues, Value
from .rollback import RollbackTarget, repoint
from .settings import GuardSettings
from .snapshots import Snapshot, Stateful, copied, rng_state, set_rng_state, store_for

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Record of a rollback by the guard.

    Args:
        optimizer: to train on with: a torch.optim.AdamW, or the same MARS turned into AdamW
            (``in_place=True``).
        step: steps taken in the state that was restored; the next one is ``step + 1``.
        position: what :meth:`Guard.watch` was told there: where the data stood.
        detected: step at which it was decided.
        alarm: the signal that decided.
        clean: whether the snapshot is from before the first step beyond the limit, with a margin
            of ``patience`` steps; False if all that are kept are younger.
    """

    optimizer: Optimizer
    step: int
    position: Any
    detected: int
    alarm: Alarm
    clean: bool


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
        snapshots: "memory", or a folder for files (default: "memory").
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
        ValueError: if the optimizer keeps no second moment to go back with, or the baseline cannot
            be used.
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
        self.settings = settings or GuardSettings()
        self.baseline = baseline if isinstance(baseline, Baseline) else Baseline.load(baseline)
        self.model = model
        self.optimizer = optimizer
        self.step = step
        self.rolled_back = False
        self._start = step
        self._extras = dict(extras or {})
        self._on_rollback = on_rollback
        self._target = RollbackTarget.of(optimizer, adamw, lr_scale=lr_scale, in_place=in_place)
        self._detector = Detector(self.settings, self.baseline)
        self._readings = Readings(optimizer, self.settings.every)
        self._store = store_for(snapshots)
        self._log = EventLog(log)
        self._position: Any = None
        self._on: set[str] = set()
        self._first: Snapshot | None = copied(self._state_of_run())

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
        """
        if self.rolled_back:
            self.step += 1
            return None
        if self._first is not None:
            self._begin(self._first)
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
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another guard of the same settings stood.

        Restore the model and the optimizer first. Snapshots on disk are found again; in memory the
        restored state becomes the first one. Where ``rolled_back`` is true afterwards, the run had
        gone back to AdamW, and the optimizer to restore is an AdamW.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ValueError: if the state is of another format.
        """
        if state.get("format") != FORMAT:
            raise ValueError(f"state has format {state.get('format')!r}, not {FORMAT}")
        self.baseline = Baseline(**state["baseline"])
        self.step, self._start = state["step"], state["start"]
        self.rolled_back = state["rolled_back"]
        self._detector = Detector(self.settings, self.baseline)
        self._detector.load_state_dict(state["detector"])
        self._on = set(state["on"])
        self._target.load_state_dict(state["rollback"])
        self._first = None
        for later in [s for s in self._store.steps() if s > self.step]:
            self._store.drop(later)
        if self.rolled_back:
            self.close()
        elif not self._store.steps():
            self._take_snapshot()

    # --- inside ------------------------------------------------------------------------------

    def _begin(self, first: Snapshot) -> None:
        """The state at the switch is the first snapshot; those of an earlier run are dropped."""
        for old in self._store.steps():
            self._store.drop(old)
        self._store.put(self.step, first, copy=False)
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
        if self._on & set(self.settings.rollback_on):
            return  # not a state to go back to
        self._store.put(self.step, self._state_of_run())
        for old in self._store.steps()[: -self.settings.keep]:
            self._store.drop(old)
        self._log.write("checkpoint", self.step)

    def _state_of_run(self) -> Snapshot:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "extras": {name: extra.state_dict() for name, extra in self._extras.items()},
            "rng": rng_state(),
            "position": self._position,
        }

    def _go_back(self, alarm: Alarm) -> Rollback:
        kept = self._store.steps()
        before = [step for step in kept if step <= alarm.since - self.settings.patience]
        chosen = before[-1] if before else kept[0]
        clean = bool(before) or chosen == self._start  # nothing of MARS is in the first one
        detected = self.step
        snapshot = self._store.get(chosen)
        self.close()
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(copied(snapshot["optimizer"]))
        for name, extra in self._extras.items():
            extra.load_state_dict(copied(snapshot["extras"][name]))
        adamw = self._target.go(self.optimizer)
        for extra in self._extras.values():
            repoint(extra, self.optimizer, adamw, self._target.lr_scale)
        set_rng_state(snapshot["rng"])
        self.optimizer, self.step, self.rolled_back = adamw, chosen, True
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
            optimizer=adamw,
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
