"""The steps of one run, as they are taken: a bar on a terminal, lines elsewhere; Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from ..errors import UserError
from ..experiment.pilot.standing import Line, clock, speed, with_bars
from ..experiment.plan import RunSpec
from ..experiment.records import read_run

TOLD_FIRST, TOLD_SHARE = 10.0, 0.02  # seconds between lines without a terminal, at least


class Steps:
    """Shows the steps, and ends the run between two of them after Ctrl-C.

    Args:
        console: to write to.
        spec: of the run.
        run: its folder, whose rows tell the loss.
        alone: whether this process makes the run by itself; of several, each may be at another
            step, so that Ctrl-C ends them as it does any program.
    """

    def __init__(self, console: Console, spec: RunSpec, run: Path, *, alone: bool) -> None:
        self.console, self.spec, self.run = console, spec, run
        self.alone = alone
        self.stopped = False
        self.before: Any = None  # what dealt with Ctrl-C
        self.first: int | None = None  # the step that this session began after
        self.started = self.told = time.monotonic()
        self.live = Live(self._bar(0), console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Steps:
        if self.alone and threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._stop)
        if self.console.is_terminal:
            self.live.start()
        return self

    def _stop(self, *_: object) -> None:
        """The first Ctrl-C waits for the step under way; the second does not."""
        self.stopped = True
        # not by print, which may be at work already
        os.write(2, b"\nStopping after this step; Ctrl-C again stops at once.\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *exception: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
        if self.console.is_terminal:
            self.live.stop()

    def __call__(self, step: int) -> None:
        """Take note of a step.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        if self.stopped:
            raise KeyboardInterrupt  # between two steps, so that a checkpoint can be written
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.told = step, now, now
            if step > 1:
                self.console.print(f"  continues after step {step - 1:,}")
        wait = (
            0.5 if self.console.is_terminal else max(TOLD_FIRST, TOLD_SHARE * (now - self.started))
        )
        if now - self.told < wait:
            return
        self.told = now
        state = self._state(step, now)
        if self.console.is_terminal:
            self.live.update(self._bar(step, state))
        else:
            self.console.print(f"  step {step:,} of {self.spec.steps:,}{state}", soft_wrap=True)

    def _bar(self, step: int, state: str = "") -> RenderableType:
        text = f"  step {step:,} of {self.spec.steps:,}"
        return with_bars([Line(text, step / self.spec.steps, state)])

    def _state(self, step: int, now: float) -> str:
        """The last loss on disk, the rate so far, and the time left at that rate."""
        text = ""
        try:
            row = next(r for r in reversed(read_run(self.run).rows) if r.get("loss") is not None)
            text += f", loss {row['loss']:.4f}"
        except (UserError, StopIteration):
            pass  # no row yet
        if self.first is not None and step > self.first:
            rate = (step - self.first) / max(1e-9, now - self.started)
            text += f", {speed(rate, 'steps')}, {clock((self.spec.steps - step) / rate)} left"
        return text
