"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

from ..experiment.pilot.standing import Line, clock, with_bars

TOLD_EVERY = 10.0  # seconds, where there is no terminal


class Progress:
    """Shows what was said last, with the time left where it is known how much there is to do."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, refresh_per_second=5, transient=True)
        self.begun: tuple[float, float] | None = None  # when, and what was done by then
        self.told = -TOLD_EVERY

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

    def __call__(self, text: str, done: float = 0.0, total: float = 0.0) -> None:
        """Say what is being done, and how much of how much is done, if that is known."""
        now, left = time.monotonic(), ""
        if total:
            begun, first = self.begun = self.begun or (now, done)
            if first < done < total:
                left = f", about {clock((total - done) * (now - begun) / (done - first))} left"
        line = Line(text, done / total if total else None, left)
        if self.console.is_terminal:
            self.live.update(with_bars([line]))
        elif now - self.told >= TOLD_EVERY or (total and done >= total):
            self.say(str(line))
            self.told = now
