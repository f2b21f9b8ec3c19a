"""The ladder: the baseline's loss over its budget, on which the others' losses are read."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from ...analysis import Analysis
from ..document import Cell, Picture, Table
from ..figures.draw import MARKERS, legend, svg_element, ticks_at
from ..figures.theme import ARMS, colour, pictured
from ..messages import Messages
from .arm_cells import of_pictured

Rungs = tuple[tuple[int, int, float], ...]


def picture(analysis: Analysis, say: Messages) -> Picture:
    """The baseline's ladder of each seed, and the others at the common budget."""
    baseline = analysis.baseline.name
    tokens = sorted({t for _, t, _ in analysis.ladder})
    losses = {(seed, t): f"{value:.4f}" for seed, t, value in analysis.ladder}

    def lacking(seed: int) -> str:
        return say("missing" if seed in analysis.plan.comparison.with_rungs else "none")

    data = Table(
        say("figure.ladder.data", baseline=baseline),
        (say("seed"), *(say("tokens", n=t) for t in tokens)),
        tuple(
            (Cell(str(seed)), *(Cell(losses.get((seed, t), lacking(seed))) for t in tokens))
            for seed in _seeds(analysis.ladder)
        ),
    )
    rungs = len(tokens)
    caption = say("figure.ladder.caption", baseline=baseline, rungs=rungs)
    if few := analysis.plan.comparison.ladder_seeds:
        caption = say("figure.ladder.caption.mean", baseline=baseline, rungs=rungs, seeds=few)
    if analysis.plan.training.trunk:
        candidate, share = analysis.candidate.name, analysis.plan.training.decay_share
        names = dict(baseline=baseline, candidate=candidate)
        caption = say("figure.ladder.caption.trunk", rungs=rungs, share=share, **names)
    return Picture(
        "ladder",
        say("figure.ladder.text", baseline=baseline),
        of_pictured(analysis, say, caption),
        data,
        svg_element("ladder", lambda ax: _draw(ax, analysis, say)),
    )


def _seeds(ladder: Rungs) -> list[int]:
    return sorted({seed for seed, _, _ in ladder})


def _draw(ax: Axes, analysis: Analysis, say: Messages) -> None:
    style: dict[str, Any] = dict(lw=1.2, alpha=0.75)
    squares = style | dict(color=ARMS["baseline"], marker="s", ms=4)
    _lines(ax, analysis.ladder, label=analysis.baseline.name, **squares)
    _lines(ax, analysis.candidate_ladder, color=ARMS["candidate"], ls="--", **style)
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


def _lines(ax: Axes, ladder: Rungs, *, label: str | None = None, **style: Any) -> None:
    """A line for each seed."""
    for i, seed in enumerate(_seeds(ladder)):
        points = [(t, loss) for s, t, loss in ladder if s == seed]
        ax.plot(*zip(*points, strict=True), label=None if i else label, **style)
