"""Steps of the rollout and their conditions, as plain data; the report has the words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["done", "failed", "under-way", "next", "later", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of the checklist.

    Args:
        key: of its text, ``condition.KEY`` in ``experiment/report/messages/en.toml``.
        numbers: what stands in the text; shares as fractions, None where not known.
        met: whether it holds; None if the pilot cannot know.
    """

    key: str
    numbers: Mapping[str, str | int | float | None]
    met: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStep:
    """A step with what must hold to enter it, to leave it upwards, and what sends it back.

    Args:
        number: 1, 2 or 3.
        key: "pilot", "canary" or "production"; its title is ``stage.KEY`` of the messages.
        status: "done", "failed", "under-way", "next", "later", or "closed": not to be entered.
        command: what carries it out.
        entry: all must hold.
        exit: all must hold to go on to the next step.
        rollback: any one ends the step; with what ending it means.
        happened: what the stage's own records say; empty without any.
    """

    number: int
    key: Literal["pilot", "canary", "production"]
    status: Status
    command: str
    entry: tuple[Condition, ...]
    exit: tuple[Condition, ...]
    rollback: tuple[Condition, ...]
    happened: tuple[Condition, ...] = ()
