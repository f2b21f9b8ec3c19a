"""Loss curves of the runs so far, those under way too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..analysis.arm_results import role_of
from ..pilot.status import Snapshot
from ..plan import Plan
from ..records import Run
from ..report import Messages
from ..report.document import Cell, Table
from ..report.figures.theme import ARMS, AXIS, OTHERS
from .runs_table import number

PURPOSES = {"comparison": {"trunk", "ladder", "compare", "train"}, "tuning": {"tune"}}
"""Pictures, and what runs each of them shows."""
MOST_RUNS = 60
MOST_POINTS = 200
"""Points of one run in a picture; more are averaged."""

Point = tuple[float, float]  # tokens, loss


@dataclass(frozen=True, slots=True)
class Line:
    """One run in a picture."""

    arm: str
    points: tuple[Point, ...]
    under_way: bool


@dataclass(frozen=True, slots=True)
class Curves:
    """One picture, not yet drawn.

    Args:
        name: "comparison" or "tuning".
        lines: runs, those under way last, so that they lie on top.
        tints: colour of each arm.
    """

    name: str
    lines: tuple[Line, ...]
    tints: dict[str, str]

    @property
    def version(self) -> str:
        """Changes with what is drawn."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def curves_of(snapshot: Snapshot) -> tuple[Curves, ...]:
    """The pictures, at the plan's own size; those without a line have a place kept for them."""
    plan, running = snapshot.plan, {p.spec.run_id for p in snapshot.running}
    found = []
    for name, purposes in PURPOSES.items():
        runs = [run for run in snapshot.runs if run.spec.purpose in purposes]
        runs = [run for run in runs if run.spec.task == plan.task]
        lines = [Line(r.spec.arm_name, thinned(_points(r)), r.spec.run_id in running) for r in runs]
        lines = sorted((x for x in lines if x.points), key=lambda line: line.under_way)
        found.append(Curves(name, tuple(lines[-MOST_RUNS:]), tints(plan)))
    return tuple(found)


def _points(run: Run) -> list[Point]:
    rows = (r for r in run.rows if number(r.get("tokens")) and number(r.get("loss")))
    return [(row["tokens"], row["loss"]) for row in rows]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most ``most`` points: each the mean of as many neighbours."""
    size = -(-len(points) // most) or 1
    parts = (points[i : i + size] for i in range(0, len(points), size))
    return tuple((fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts)


def tints(plan: Plan) -> dict[str, str]:
    """Colour of each arm, as in the report unless there are more arms than colours."""
    comparison = plan.comparison
    roles = {arm: role_of(arm, comparison.baseline, comparison.candidate) for arm in plan.arms}
    others = [arm for arm, role in roles.items() if role == "other"]
    spare = dict(zip(others, OTHERS, strict=False))
    return {arm: ARMS.get(role) or spare.get(arm, AXIS) for arm, role in roles.items()}


def in_words(curves: Curves, say: Messages) -> str:
    """The picture for those who cannot see it."""
    rows = last_losses(curves, say).rows
    arms = (say("live.curve", arm=a.text, runs=n.text, losses=x.text) for a, n, _, x in rows)
    return say("live.alt", arms=say.listed(arms))


def last_losses(curves: Curves, say: Messages) -> Table:
    """The picture's numbers: arm by arm, how far its runs are and where they stand."""

    def row(arm: str) -> tuple[Cell, ...]:
        lines = [line for line in curves.lines if line.arm == arm]
        ends = [line.points[-1] for line in lines]
        losses = [f"{loss:.4f}" for loss in (min(y for _, y in ends), max(y for _, y in ends))]
        low, high = losses
        return (
            Cell(arm, arm=arm),
            Cell(say("run.runs", n=len(lines))),
            Cell(say("tokens", n=max(x for x, _ in ends))),
            Cell(low if low == high else say("between", low=low, high=high)),
        )

    arms = dict.fromkeys(line.arm for line in curves.lines)
    head = say.each("arm", "live.runs-drawn", "live.so-far", "live.last-loss")
    return Table(say(f"live.data.{curves.name}"), head, tuple(map(row, arms)))


def draw(curves: Curves, say: Messages) -> str:
    """The picture as a file of its own, for light and dark pages."""
    from matplotlib.axes import Axes  # slow to import

    from ..report.figures.draw import counts, legend, svg_element
    from ..report.figures.svg import standalone, titled

    def lines(ax: Axes) -> None:
        for arm in dict.fromkeys(line.arm for line in curves.lines):
            ax.plot([], [], color=curves.tints.get(arm, AXIS), lw=2, label=arm)
        for line in curves.lines:
            width, alpha = (1.8, 1.0) if line.under_way else (0.9, 0.6)
            tint = curves.tints.get(line.arm, AXIS)
            ax.plot(*zip(*line.points, strict=True), color=tint, lw=width, alpha=alpha)
            if line.under_way:
                ax.plot(*line.points[-1], "o", color=tint, ms=4)
        ax.set_ylim(top=_top(curves.lines))
        counts(ax.xaxis)
        ax.set_xlabel(say("figure.curves.x"))
        ax.set_ylabel(say("figure.curves.y"))
        legend(ax)

    return standalone(titled(svg_element(curves.name, lines), in_words(curves, say), say.lang))


def _top(lines: Sequence[Line]) -> float:
    """A little above the highest first loss: a run that diverges leaves the picture there."""
    firsts = [line.points[0][1] for line in lines]
    lowest = min(loss for line in lines for _, loss in line.points)
    return max(firsts) + 0.05 * max(max(firsts) - lowest, 1e-6)
