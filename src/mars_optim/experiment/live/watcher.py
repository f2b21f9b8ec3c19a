"""Looks at a pilot's folder, as seldom as the readers of its page allow."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ...errors import UserError
from ..pilot.progress import STATUS
from ..pilot.spending import spent_seconds
from ..pilot.status import take
from ..report import LANGS, Messages
from .curves import draw
from .runs_table import one_line
from .view import View, view_of

SHARE = 0.1
"""Most of one core that looking and drawing may take from the pilot."""
REPORT_AFTER = 120.0
"""Seconds after a pilot's end in which its report is waited for."""
REPORTS = tuple(f"report{Messages(lang).suffix}.html" for lang in LANGS)


class Watcher:
    """The page of a pilot as it stood a moment ago; nothing is written, no lock taken.

    Nobody looks while nobody asks. What is shown is at most ``every`` seconds old, or older where
    a look takes long: looking takes :data:`SHARE` of one core at the most.

    Args:
        out: folder of the pilot.
        say: texts of the page's language.
        every: seconds between looks.
        clock: seconds, by a monotonic clock.

    Raises:
        UserError: if there is no pilot in ``out``.
    """

    def __init__(
        self,
        out: Path,
        say: Messages,
        *,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out, self.say, self.every = out, say, every
        self._clock = clock
        self._lock = threading.Lock()
        self._beat: int | None = None
        self._heard = clock()
        self._pictures: dict[str, tuple[str, str]] = {}
        self._view = self._read()
        self._next = clock() + every

    def view(self) -> View:
        """The page; a second reader gets the last one while the first one's look goes on."""
        if self._clock() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._view

    def picture(self, name: str) -> str | None:
        """The SVG of one of the view's pictures; None if it has none of that name."""
        found = next((s.curves for s in self._view.figures if s.curves.name == name), None)
        if found is None or not found.lines:
            return None
        with self._lock:  # matplotlib's settings are of the whole process
            if self._pictures.get(name, ("", ""))[0] != found.version:
                began = self._clock()
                self._pictures[name] = found.version, draw(found, self.say)
                self._next += (self._clock() - began) / SHARE
            return self._pictures[name][1]

    def _look(self) -> None:
        began = self._clock()
        try:
            self._view = self._read()
        except (UserError, OSError) as error:
            self._view = dataclasses.replace(self._view, problem=one_line(str(error)))
        except Exception as error:  # whatever files by another hand hold: the page goes on
            why = f"{type(error).__name__}: {error}"
            self._view = dataclasses.replace(self._view, problem=one_line(why))
        now = self._clock()
        self._next = now + max(self.every, (now - began) / SHARE)

    def _read(self) -> View:
        snapshot = take(self.out)
        if snapshot.beat != self._beat:
            self._beat, self._heard = snapshot.beat, self._clock()
        reports = self._reports() if snapshot.state == "ended" else ()
        return view_of(
            snapshot,
            self.say,
            quiet=self._clock() - self._heard,
            paid=spent_seconds(self.out),
            reports=reports,
            ended=snapshot.state == "ended" and (bool(reports) or self._long_ended()),
        )

    def _reports(self) -> tuple[str, ...]:
        """The reports that were written after the pilot's last word."""
        said = _written(self.out / STATUS) or 0.0
        return tuple(n for n in REPORTS if (_written(self.out / n) or -1.0) >= said)

    def _long_ended(self) -> bool:
        """Whether no report is to be expected any more."""
        said = _written(self.out / STATUS)
        return said is None or self._clock() - self._heard > REPORT_AFTER


def _written(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None
