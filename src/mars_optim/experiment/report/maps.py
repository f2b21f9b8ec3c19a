"""Figures of the parts that not every pilot has: sensitivity, sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..analysis import Analysis
from ..analysis.sensitivity import Line
from ..analysis.stats import saved
from . import numbers
from .messages import Messages
from .sensitivity import label
from .theme import ARMS, AXIS, BINS, CARD, INK, MIN_SAVING, colour

EDGES = (0.01, 0.02, 0.05, 0.10)  # of the squares' shades: loss above the line's best, relative


def sensitivity(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """Learning rate across, a row for each arm and gamma: squares shaded by the loss."""

    def draw(ax: Axes) -> None:
        rows = analysis.sensitivity
        for y, line in enumerate(reversed(rows)):
            for lr, loss in line.points:
                if loss is None or line.best is None:
                    ax.plot(lr, y, "x", color=MIN_SAVING, ms=6, mew=1.6)
                else:
                    excess = (loss - line.best) / abs(line.best)
                    shade = BINS[sum(excess > edge for edge in EDGES)]
                    ax.plot(lr, y, "s", ms=11, mfc=shade, mec=AXIS, mew=0.6)
            _safe(ax, line, y, colour(analysis, analysis.arm(line.arm)))
            # above its row, from the left: a long name must not take the room of the map
            at = ax.get_yaxis_transform()
            ax.text(0.01, y + 0.36, label(line, rows), transform=at, fontsize=8.5, va="center")
        ax.set_yticks([])
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.margins(x=0.08)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: power(x)))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: power(x, "25")))
        ax.set_xlabel(words("figure.sensitivity.x"))
        ax.grid(axis="y", visible=False)

    return draw


def _safe(ax: Axes, line: Line, y: int, tint: str) -> None:
    """The safe range under the row, with an arrow where it may go on."""
    if line.safe is None:
        return
    under = y - 0.33
    ax.plot([line.safe.low, line.safe.high], [under, under], color=tint, lw=3)
    for end, bound, marker in (
        (line.safe.low, line.safe.low_bound, "<"),
        (line.safe.high, line.safe.high_bound, ">"),
    ):
        ax.plot(end, under, marker if bound else "|", color=tint, ms=6 if bound else 5, mew=1.5)


def sizes(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """Tokens saved over the parameters, with intervals and seeds."""

    def draw(ax: Axes) -> None:
        tint = ARMS["candidate"]
        for size in analysis.sizes:
            share = size.log_ratio.map(saved)
            if math.isfinite(share.low):
                x = [size.parameters] * 2
                ax.plot(x, [100 * share.low, 100 * share.high], color=tint, lw=7, alpha=0.3)
            values = [100 * saved(ratio) for ratio in size.ratios]
            ax.plot([size.parameters] * len(values), values, "o", ms=6, mec=tint, mfc=CARD)
            ax.plot(size.parameters, 100 * share.mean, "_", color=tint, ms=18, mew=3)
        ax.axhline(0, color=AXIS, lw=1)
        min_saving = 100 * analysis.plan.decision.min_saving
        ax.axhline(min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
        ax.set_xscale("log")
        ticks = [size.parameters for size in analysis.sizes]
        ax.set_xticks(ticks, [numbers.count(t) for t in ticks])
        ax.set_xlim(min(ticks) / 1.3, max(ticks) * 1.3)
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()
        ax.tick_params(colors=INK)
        ax.set_xlabel(words("figure.sizes.x"))
        ax.set_ylabel(words("figure.sizes.y"))

    return draw


def power(x: float, digits: str = "123456789") -> str:
    """0.002 as "2e-3", if its first digit is among these."""
    text = f"{x:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return text if text[0] in digits else ""


def noise_course(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """Signal and noise over tokens, on a logarithmic scale: noise above signal is noise-limited."""
    points, tint = analysis.noise, colour(analysis, analysis.candidate)

    def draw(ax: Axes) -> None:
        tokens = [p.tokens for p in points]
        ax.plot(tokens, [p.noise for p in points], color=tint, lw=1.4, label=words("noise-squared"))
        signals = [p.signal if p.signal > 0 else math.nan for p in points]
        ax.plot(tokens, signals, "--", color=tint, lw=1.4, label=words("signal-squared"))
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: power(x)))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda x, _: power(x, "25")))
        _over_tokens(ax, words, "figure.course.noise")

    return draw


def correction_course(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """The correction's size beside the gradient's, and how often the clip acts, over tokens."""
    points, tint = analysis.noise, colour(analysis, analysis.candidate)

    def draw(ax: Axes) -> None:
        tokens = [p.tokens for p in points]
        ratios = [p.correction_ratio for p in points]
        ax.plot(tokens, ratios, color=tint, lw=1.4, label=words("correction-ratio"))
        rates = [p.clip_rate for p in points]
        ax.plot(tokens, rates, ":", color=AXIS, lw=1.6, label=words("clip-rate"))
        ax.set_ylim(bottom=0)
        _over_tokens(ax, words, "figure.course.correction")

    return draw


def _over_tokens(ax: Axes, words: Messages, title: str) -> None:
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.count(x)))
    ax.set_xlabel(words("figure.curves.x"))
    ax.set_title(words(title), fontsize=9.5)
    ax.legend(frameon=False, fontsize=8.5)
