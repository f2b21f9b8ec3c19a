"""Figures as inline SVG: each a pure function of the analysis, bytewise repeatable."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..analysis import Analysis, ArmResult, Shown
from ..analysis.stats import saved
from . import numbers
from .maps import correction_course, noise_course, power, sensitivity, sizes
from .messages import Messages
from .theme import ARMS, AXIS, CARD, FONTS, MIN_SAVING, STYLE, colour, pictured

MARKERS = {"baseline": "s", "candidate": "o", "control": "^", "other": "D"}
LEGEND_WIDTH = 60  # characters
MOST_MARKS = 12  # on a validation curve


def draw_figures(analysis: Analysis, words: Messages) -> dict[str, str]:
    """Every figure of the report by name, as ``<svg>`` elements; the curves have two."""
    pictures = {
        "saving": svg_element(
            "saving", saving(analysis, words), height=1.3 + _rows_height(analysis)
        ),
        "ladder": svg_element("ladder", ladder(analysis, words)),
        "sweep": svg_element("sweep", sweep(analysis, words)),
        "curves": svg_element("curves", curves(analysis, words, close=False))
        + svg_element("ends", curves(analysis, words, close=True)),
    }
    if lines := len(analysis.sensitivity):
        draw = sensitivity(analysis, words)
        pictures["sensitivity"] = svg_element("sensitivity", draw, height=0.9 + 0.55 * lines)
    if analysis.noise:
        pictures["course"] = svg_element("course", noise_course(analysis, words)) + svg_element(
            "correction", correction_course(analysis, words)
        )
    if analysis.sizes:
        pictures["sizes"] = svg_element("sizes", sizes(analysis, words), height=2.8)
    return pictures


def _rows_height(analysis: Analysis) -> float:
    """Of the arms' rows, inches: closer where there are many."""
    rows = sum(arm.log_ratio is not None for arm in analysis.arms)
    return min(0.5 * rows, 2.0 + 0.25 * rows)


def saving(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """Tokens saved against the baseline: a dot per seed, the mean and its interval per arm."""
    arms = [a for a in analysis.arms if a.log_ratio]

    def draw(ax: Axes) -> None:
        for row, arm in enumerate(reversed(arms)):
            tint = colour(analysis, arm)
            assert arm.log_ratio is not None
            share = arm.log_ratio.map(saved)
            if math.isfinite(share.low):
                ax.plot(
                    [100 * share.low, 100 * share.high], [row, row], color=tint, lw=7, alpha=0.3
                )
            ax.plot([100 * share.mean] * 2, [row - 0.2, row + 0.2], color=tint, lw=3)
            for seed in arm.seeds:
                if seed.log_ratio is None or seed.reading is None:
                    continue
                marker = {"": "o", "at least": ">", "at most": "<"}[seed.reading.bound]
                x = 100 * saved(seed.log_ratio)
                ax.plot(x, row, marker, ms=6, mec=tint, mfc=CARD, mew=1.4)
        min_saving = 100 * analysis.plan.decision.min_saving
        ax.axvline(0, color=AXIS, lw=1)
        ax.axvline(min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
        ax.set_yticks(range(len(arms)), [a.name for a in reversed(arms)])
        ax.set_ylim(-0.6, max(len(arms), 1) - 0.1)
        ax.annotate(
            words("figure.saving.threshold"),
            (min_saving, max(len(arms), 1) - 0.2),
            (4, 0),
            textcoords="offset points",
            color=MIN_SAVING,
            va="top",
            fontsize=9,
        )
        ax.set_xlabel(words("figure.saving.x", baseline=analysis.baseline.name))
        ax.grid(axis="y", visible=False)

    return draw


def ladder(analysis: Analysis, words: Messages) -> Callable[[Axes], None]:
    """The baseline's loss over its budget, every run fully decayed, and the others' at theirs."""

    def draw(ax: Axes) -> None:
        baseline = analysis.baseline
        style = dict(color=ARMS["baseline"], marker="s", ms=4, lw=1.2, alpha=0.75)
        for i, seed in enumerate(sorted({s for s, _, _ in analysis.ladder})):
            points = [(t, loss) for s, t, loss in analysis.ladder if s == seed]
            label = baseline.name if i == 0 else None
            ax.plot(*zip(*points, strict=True), label=label, **style)  # type: ignore[arg-type]
        for arm in pictured(analysis):
            losses = [s.loss for s in arm.seeds if s.loss is not None]
            if arm.role == "baseline" or not losses:
                continue
            x = [analysis.unit_tokens] * len(losses)
            edge = dict(mfc="none", mec=colour(analysis, arm), mew=1.6, ms=7)
            ax.plot(x, losses, MARKERS[arm.role], label=arm.name, **edge)  # type: ignore[arg-type]
        ax.set_xscale("log")
        ticks = sorted({t for _, t, _ in analysis.ladder})
        ax.set_xticks(ticks, [numbers.count(t) for t in ticks])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()
        ax.set_xlabel(words("figure.ladder.x"))
        ax.set_ylabel(words("figure.y"))
        legend(ax)

    return draw


def sweep(analysis: Shown, words: Messages, x: str = "figure.sweep.x") -> Callable[[Axes], None]:
    """Final loss over the learning rate, for each arm, of the runs that tried it."""

    def draw(ax: Axes) -> None:
        top = _sweep_top(analysis)
        for arm in pictured(analysis):
            tint = colour(analysis, arm)
            label = arm.name
            for seed in sorted({t.seed for t in arm.trials}):
                finite = [
                    (t.lr, t.loss) for t in arm.trials if t.loss is not None and t.seed == seed
                ]
                if finite:
                    lrs, losses = zip(*finite, strict=True)
                    line = MARKERS[arm.role] + ("-" if label == arm.name else ":")
                    ax.plot(lrs, losses, line, color=tint, ms=5, lw=1.4, label=label)
                    label = "_"  # one entry in the legend for all seeds
            _chosen(ax, arm, tint)
            for trial in arm.trials:
                if trial.loss is None:
                    ax.plot(trial.lr, top, "x", color=tint, ms=8, mew=2, clip_on=False)
        ax.set_ylim(top=top)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: power(x)))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: power(x, "25")))
        ax.set_xlabel(words(x))
        ax.set_ylabel(words("figure.y"))
        legend(ax)

    return draw


def _chosen(ax: Axes, arm: ArmResult, tint: str) -> None:
    """A ring at the rate that was chosen, on the line through the trials; a bar over its range."""
    first = min((t.seed for t in arm.trials), default=0)
    finite = sorted((t.lr, t.loss) for t in arm.trials if t.loss is not None and t.seed == first)
    if not finite:
        return
    lrs, losses = zip(*finite, strict=True)
    lr = arm.lr or min(finite, key=lambda point: point[1])[0]
    height = float(np.interp(math.log(lr), [math.log(x) for x in lrs], losses))
    ax.plot(lr, height, MARKERS[arm.role], ms=11, mec=tint, mfc="none", mew=1.6)
    if arm.best_range:
        ax.plot(arm.best_range, [height, height], "-", color=tint, lw=4, alpha=0.3)


def curves(analysis: Shown, words: Messages, *, close: bool) -> Callable[[Axes], None]:
    """Loss over tokens of every seed: all of training, or the last 40 % ``close``."""

    def draw(ax: Axes) -> None:
        start = 0.6 * analysis.unit_tokens if close else 0
        for arm in pictured(analysis):
            tint, label = colour(analysis, arm), arm.name
            for curve in arm.curves:
                train, valid = ([p for p in c if p[0] >= start] for c in (curve.train, curve.valid))
                if train:
                    line = dict(color=tint, lw=0.9, alpha=0.65, label=label)
                    ax.plot(*zip(*train, strict=True), **line)  # type: ignore[arg-type]
                    label = "_"  # one entry in the legend for all seeds
                if valid:
                    marks = MARKERS[arm.role] if len(valid) <= MOST_MARKS else ""
                    ax.plot(*zip(*valid, strict=True), marks + ":", color=tint, lw=1.2, ms=4)
                    ax.plot(*valid[-1], MARKERS[arm.role], color=tint, ms=5)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.count(x)))
        ax.set_xlabel(words("figure.curves.x"))
        ax.set_ylabel(words("figure.curves.y"))
        ax.set_title(words("figure.curves.end" if close else "figure.curves.all"), fontsize=9.5)
        if not close:
            legend(ax)

    return draw


def svg_element(name: str, draw: Callable[[Axes], None], *, height: float = 3.3) -> str:
    """Draw and return an ``<svg>`` element, hidden from screen readers: its caption speaks."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        # matplotlib only measures the text; the browser draws it, in a font that has the glyphs
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(4.8, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # ids must be unique in the page that holds several figures
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace(" font-family: 'DejaVu Sans';", "")
    # markers take their colours from where they are used, where style rules reach them
    svg = re.sub(rf'(<path id="{name}-m[^"]+" d="[^"]*") style="[^"]*"', r"\1", svg)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        rf'viewBox="\1" font-family="{FONTS}">',
        svg,
        count=1,
    )


def legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        columns = max(1, min(3, LEGEND_WIDTH // (max(map(len, labels)) + 4)))
        ax.figure.legend(loc="outside upper left", ncols=columns, fontsize=9)


def _sweep_top(analysis: Shown) -> float:
    """Upper end of the loss axis: bad trials must not flatten the good ones."""
    losses = sorted(t.loss for a in analysis.arms for t in a.trials if t.loss is not None)
    if not losses:
        return 1.0
    span = max(losses[-1] - losses[0], 1e-3)
    return losses[-1] + 0.08 * span
