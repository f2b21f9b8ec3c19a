"""Cells of an arm's row, and what captions add, as several sections have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ...analysis import ArmResult, Shown
from ...plan.recipe import Ours, Published
from ..document import Cell, Table
from ..figures.theme import pictured
from ..messages import Messages

T = TypeVar("T")

ROWS = 8  # of a table over tokens, or a few more
KNOWN_SCORES = ("accuracy", "bits_per_byte", "loss")  # with a heading in each language


def of_pictured(analysis: Shown, say: Messages, caption: str) -> str:
    """The caption, and how many arms are drawn if not all are."""
    drawn, arms = len(pictured(analysis)), len(analysis.arms)
    if drawn == arms:
        return caption
    return say.prose(caption, say("figure.some", drawn=drawn, arms=arms))


def evenly(points: Sequence[T]) -> Sequence[T]:
    """Some of them, for the rows of a table; the last is among them."""
    return points[:: -max(1, len(points) // ROWS)][::-1]


def loss(value: float | None, say: Messages) -> str:
    """A loss, or that there is none."""
    return say("diverged") if value is None else f"{value:.4f}"


def seeds(arm: ArmResult, say: Messages) -> str:
    """How many were run, and how many of them diverged."""
    n, diverged = len(arm.seeds), arm.diverged
    return say("seeds-diverged", n=n, diverged=diverged) if diverged else say("seeds", n=n)


def memory(arm: ArmResult, say: Messages) -> Cell:
    """Memory of the optimizer's state, per parameter."""
    return Cell(f"{arm.bytes_per_parameter:.1f} B" if arm.bytes_per_parameter else say("none"))


def seeds_table(arms: Iterable[ArmResult], seeds: Iterable[int], say: Messages) -> Table:
    """Final loss of every seed of every arm."""
    losses = [(arm.name, {s.seed: loss(s.loss, say) for s in arm.seeds}) for arm in arms]
    return Table(
        say("table.seeds"),
        (say("seed"), *(name for name, _ in losses)),
        tuple(
            (Cell(str(seed)), *(Cell(of.get(seed, say("missing"))) for _, of in losses))
            for seed in seeds
        ),
    )


def score_columns(arms: Iterable[ArmResult]) -> list[str]:
    """Scores beside the loss that evaluations of any arm have."""
    return list(dict.fromkeys(key for arm in arms for key in arm.scores))


def score_name(key: str, say: Messages) -> str:
    """The heading of such a column; a task's own score keeps its name."""
    return say(f"score.{key}") if key in KNOWN_SCORES else key


def score(arm: ArmResult, key: str, say: Messages) -> Cell:
    """Its mean over the seeds."""
    value = arm.scores.get(key)
    if value is None:
        return Cell(say("none"))
    return Cell(say.level(round(value, 4)) if key == "accuracy" else f"{value:.4f}")


def told(known: Published | Ours | None, say: Messages, *, changed: bool = False) -> Cell:
    """A recipe's numbers of an arm: loss, accuracy and their qualifications.

    Args:
        known: a dash where nothing is.
        say: texts of the language.
        changed: whether the runs depart from the recipe, which then is said.
    """
    if known is None:
        return Cell(say("none"))
    values = [f"{known.loss:g}"] if known.loss is not None else []
    if known.accuracy is not None:
        values.append(say.level(round(known.accuracy / 100, 6)))
    text = ", ".join(values) or say("none")
    if isinstance(known, Published):
        if changed and values:
            return Cell(text, say("runs.unchanged"))
        return Cell(text, say("runs.settings-ours") if known.settings == "ours" else "")
    return Cell(text, say("seeds", n=known.seeds))
