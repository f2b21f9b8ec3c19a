"""The ladder: the baseline's loss over its budget, on which the others' losses are read."""

from __future__ import annotations

from matplotlib.axes import Axes

from ...analysis import Analysis
from ..document import Cell, Picture, Table
from ..figures.draw import MARKERS, legend, svg_element, ticks_at
from ..figures.theme import ARMS, colour, pictured
from ..messages import Messages
from .arm_cells import of_pictured


def picture(analysis: Analysis, say: Messages) -> Picture:
    """The baseline's ladder of each seed, and the others at the common budget."""
    baseline = analysis.baseline.name
    tokens = sorted({t for _, t, _ in analysis.ladder})
    losses = {(seed, t): f"{value:.4f}" for seed, t, value in analysis.ladder}
    data = Table(
        say("figure.ladder.data", baseline=baseline),
        (say("seed"), *(say("tokens", n=t) for t in tokens)),
        tuple(
            (Cell(str(seed)), *(Cell(losses.get((seed, t), say("missing"))) for t in tokens))
            for seed in _seeds(analysis)
        ),
    )
    rungs = len(analysis.plan.ladder) + 1
    caption = say("figure.ladder.caption", baseline=baseline, rungs=rungs)
    return Picture(
        "ladder",
        say("figure.ladder.text", baseline=baseline),
        of_pictured(analysis, say, caption),
        data,
        svg_element("ladder", lambda ax: _draw(ax, analysis, say)),
    )


def _seeds(analysis: Analysis) -> list[int]:
    return sorted({seed for seed, _, _ in analysis.ladder})


def _draw(ax: Axes, analysis: Analysis, say: Messages) -> None:
    style = dict(color=ARMS["baseline"], marker="s", ms=4, lw=1.2, alpha=0.75)
    for i, seed in enumerate(_seeds(analysis)):
        points = [(t, loss) for s, t, loss in analysis.ladder if s == seed]
        label = analysis.baseline.name if i == 0 else None
        ax.plot(*zip(*points, strict=True), label=label, **style)  # type: ignore[arg-type]
    for arm in pictured(analysis):
        losses = [s.loss for s in arm.seeds if s.loss is not None]
        if arm.role == "baseline" or not losses:
            continue
        x = [analysis.unit_tokens] * len(losses)
        edge = dict(mfc="none", mec=colour(analysis, arm), mew=1.6, ms=7)
        ax.plot(x, losses, MARKERS[arm.role], label=arm.name, **edge)  # type: ignore[arg-type]
    ticks_at(ax, sorted({t for _, t, _ in analysis.ladder}))
    ax.set_xlabel(say("figure.ladder.x"))
    ax.set_ylabel(say("figure.y"))
    legend(ax)
