"""The noise over training, as the candidate's own steps saw it, and what MARS did to it."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from ...analysis import Analysis
from ...analysis.noise import NoisePoint
from .. import numbers
from ..document import Cell, Picture, Table
from ..figures.draw import counts, powers, svg_element
from ..figures.theme import AXIS, colour
from ..messages import Messages
from .arm_cells import evenly


def picture(analysis: Analysis, say: Messages) -> Picture:
    """Noise and signal, and correction and clip, over tokens; a table of the same."""
    points, name = analysis.noise, analysis.candidate.name
    first, last = points[0], points[-1]
    head = ("training-tokens", "noise-scale", "signal-squared", "noise-squared", "correction-ratio")
    data = Table(
        say("figure.course.data", arm=name),
        say.each(*head, "clip-rate", "gamma"),
        tuple(_row(point, say) for point in evenly(points)),
    )
    text = say(
        "figure.course.text",
        arm=name,
        first=_scale(first, say),
        last=_scale(last, say),
        ratio=last.correction_ratio,
        clip=last.clip_rate,
    )
    svgs = svg_element("course", lambda ax: _draw_noise(ax, analysis, say))
    svgs += svg_element("correction", lambda ax: _draw_correction(ax, analysis, say))
    return Picture("course", text, say("figure.course.caption"), data, svgs)


def _row(point: NoisePoint, say: Messages) -> tuple[Cell, ...]:
    return (
        Cell(numbers.count(point.tokens)),
        Cell(_scale(point, say)),
        Cell(f"{point.signal:.3g}"),
        Cell(f"{point.noise:.3g}"),
        Cell(f"{point.correction_ratio:.2f}"),
        Cell(say.percent(point.clip_rate)),
        Cell(f"{point.gamma:.3g}"),
    )


def _scale(point: NoisePoint, say: Messages) -> str:
    return say("none") if math.isinf(point.scale) else f"{point.scale:.3g}"


def _draw_noise(ax: Axes, analysis: Analysis, say: Messages) -> None:
    """On a logarithmic scale: noise above signal is noise-limited."""
    points, tint = analysis.noise, colour(analysis, analysis.candidate)
    tokens = [p.tokens for p in points]
    ax.plot(tokens, [p.noise for p in points], color=tint, lw=1.4, label=say("noise-squared"))
    signals = [p.signal if p.signal > 0 else math.nan for p in points]
    ax.plot(tokens, signals, "--", color=tint, lw=1.4, label=say("signal-squared"))
    ax.set_yscale("log")
    powers(ax.yaxis)
    _over_tokens(ax, say, "figure.course.noise")


def _draw_correction(ax: Axes, analysis: Analysis, say: Messages) -> None:
    """The correction's size beside the gradient's, and how often the clip acts."""
    points, tint = analysis.noise, colour(analysis, analysis.candidate)
    tokens = [p.tokens for p in points]
    ratios = [p.correction_ratio for p in points]
    ax.plot(tokens, ratios, color=tint, lw=1.4, label=say("correction-ratio"))
    ax.plot(tokens, [p.clip_rate for p in points], ":", color=AXIS, lw=1.6, label=say("clip-rate"))
    ax.set_ylim(bottom=0)
    _over_tokens(ax, say, "figure.course.correction")


def _over_tokens(ax: Axes, say: Messages, title: str) -> None:
    counts(ax.xaxis)
    ax.set_xlabel(say("figure.curves.x"))
    ax.set_title(say(title), fontsize=9.5)
    ax.legend(frameon=False, fontsize=8.5)
