"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

from ..experiment.pilot.standing import Line, clock, speed, with_bars

TOLD_EVERY = 10.0  # seconds, where there is no terminal


class Progress:
    """Shows what was said last; with rate and time left where it is known how much there is to do.

    On a terminal one line with a bar, elsewhere a line every TOLD_EVERY seconds; on stderr.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, refresh_per_second=5, transient=True)
        self.begun: tuple[float, float] | None = None  # when, and what was done by then
        self.told = -TOLD_EVERY
        self.complete = False  # whether the last line said so

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line that stays, if there is one to say."""
        if text:
            self.console.print(text, soft_wrap=True, markup=False)

    def __call__(
        self, text: str, done: float = 0.0, total: float = 0.0, units: str = "", size: float = 1.0
    ) -> None:
        """Say what is being done, and how much of how much is done, if that is known.

        Args:
            text: what.
            done: so far.
            total: of it; 0 if not known.
            units: that the rate counts, such as "steps"; "" for no rate.
            size: of a unit, in those of ``done``.
        """
        now, left = time.monotonic(), ""
        if total:
            begun, first = self.begun = self.begun or (now, done)
            if first < done and now > begun:
                rate = (done - first) / (now - begun)
                left = f", {speed(rate / size, units)}" if units else ""
                left += f", about {clock((total - done) / rate)} left" if done < total else ""
        line = Line(text, done / total if total else None, left)
        if self.console.is_terminal:
            self.live.update(with_bars([line]))
        elif now - self.told >= TOLD_EVERY or (total and done >= total and not self.complete):
            self.say(str(line))
            self.told = now
            self.complete = bool(total) and done >= total
