"""Figures as inline SVG: each a pure function of the analysis, bytewise repeatable."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..analysis import Analysis, ArmResult
from ..analysis.verdict import percent, saved

# Okabe and Ito's palette, told apart with any colour vision
COLOURS = {"baseline": "#4d4d4d", "candidate": "#0072b2", "control": "#e69f00"}
OTHERS = ("#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31", "#7570b3")
MARKERS = {"baseline": "s", "candidate": "o", "control": "^", "other": "D"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mars-optim",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888",
    "axes.labelcolor": "#333",
    "xtick.color": "#555",
    "ytick.color": "#555",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colour(analysis: Analysis, arm: ArmResult) -> str:
    """The arm's colour, the same in every figure."""
    if arm.role in COLOURS:
        return COLOURS[arm.role]
    others = [a.name for a in analysis.arms if a.role == "other"]
    return OTHERS[others.index(arm.name) % len(OTHERS)]


def saving(analysis: Analysis) -> str:
    """Tokens saved against the baseline: a dot per seed, the mean and its interval per arm."""
    arms = [a for a in analysis.arms if a.log_ratio]

    def draw(ax: Axes) -> None:
        for row, arm in enumerate(reversed(arms)):
            tint = colour(analysis, arm)
            share = arm.log_ratio.map(saved) if arm.log_ratio else None
            assert share is not None
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
                ax.plot(x, row, marker, ms=6, mec=tint, mfc="white", mew=1.4)
        worth = 100 * analysis.plan.decision.worth
        ax.axvline(0, color="#888", lw=1)
        ax.axvline(worth, color="#b00020", lw=1.2, ls=(0, (4, 3)))
        ax.set_yticks(range(len(arms)), [a.name for a in reversed(arms)])
        ax.set_ylim(-0.6, len(arms) - 0.1)
        ax.text(worth, len(arms) - 0.2, " worth a switch", color="#b00020", va="top", fontsize=9)
        ax.set_xlabel(f"tokens saved against {analysis.baseline.name}, %")
        ax.grid(axis="y", visible=False)

    arms_text = "; ".join(_saving_text(a) for a in arms)
    return _svg("saving", draw, f"Tokens saved. {arms_text}", height=1.3 + 0.55 * len(arms))


def ladder(analysis: Analysis) -> str:
    """The baseline's loss over its budget, every run fully decayed, and the others' at theirs."""

    def draw(ax: Axes) -> None:
        baseline = analysis.baseline
        for i, seed in enumerate(sorted({s for s, _, _ in analysis.ladder})):
            points = [(t, loss) for s, t, loss in analysis.ladder if s == seed]
            ax.plot(
                *zip(*points, strict=True),
                color=COLOURS["baseline"],
                marker="s",
                ms=4,
                lw=1.2,
                alpha=0.75,
                label=baseline.name if i == 0 else None,
            )
        for arm in analysis.arms:
            losses = [s.loss for s in arm.seeds if s.loss is not None]
            if arm.role == "baseline" or not losses:
                continue
            x = [analysis.unit_tokens] * len(losses)
            ax.plot(
                x,
                losses,
                MARKERS[arm.role],
                mfc="none",
                mec=colour(analysis, arm),
                mew=1.6,
                ms=7,
                label=arm.name,
            )
        ax.set_xscale("log")
        ticks = sorted({t for _, t, _ in analysis.ladder})
        ax.set_xticks(ticks, [_count(t) for t in ticks])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()
        ax.set_xlabel("training tokens, every run decayed to zero")
        ax.set_ylabel("final validation loss, nats")
        _legend(ax)

    text = "Final loss of the baseline at each budget, and of the other arms at the common one."
    return _svg("ladder", draw, text)


def sweep(analysis: Analysis) -> str:
    """Final loss over the learning rate, for each arm, of the tuning runs."""

    def draw(ax: Axes) -> None:
        top = _sweep_top(analysis)
        for arm in analysis.arms:
            tint = colour(analysis, arm)
            finite = [(t.lr, t.loss) for t in arm.trials if t.loss is not None]
            if not finite:
                continue
            lrs, losses = zip(*finite, strict=True)
            ax.plot(lrs, losses, MARKERS[arm.role] + "-", color=tint, ms=5, lw=1.4, label=arm.name)
            best = min(finite, key=lambda point: point[1])
            ax.plot(*best, MARKERS[arm.role], ms=11, mec=tint, mfc="none", mew=1.6)
            for trial in arm.trials:
                if trial.loss is None:
                    ax.plot(trial.lr, top, "x", color=tint, ms=8, mew=2)
        ax.set_ylim(top=top)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0e}".replace("e-0", "e-")))
        ax.set_xlabel("peak learning rate (cross: diverged; ring: chosen)")
        ax.set_ylabel("final validation loss, nats")
        _legend(ax)

    best = "; ".join(f"{a.name} best at {a.lr:.2g}" for a in analysis.arms if a.lr)
    return _svg("sweep", draw, f"Final loss over learning rate. {best}.")


def curves(analysis: Analysis) -> str:
    """Loss over tokens of every seed: all of training, and the last 40 % closer."""

    def draw_in(close: bool) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            for arm in analysis.arms:
                tint = colour(analysis, arm)
                for i, curve in enumerate(arm.curves):
                    start = 0.6 * analysis.unit_tokens if close else 0
                    points = [p for p in curve.train if p[0] >= start]
                    if not points:
                        continue
                    label = arm.name if i == 0 else None
                    ax.plot(*zip(*points, strict=True), color=tint, lw=0.9, alpha=0.65, label=label)
                    for tokens, loss in curve.valid[-1:]:
                        ax.plot(tokens, loss, MARKERS[arm.role], color=tint, ms=5)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
            ax.set_xlabel("training tokens")
            if not close:
                ax.set_ylabel("loss, nats")
                _legend(ax)
            ax.set_title("the last 40 %" if close else "training loss of every seed", fontsize=10)

        return draw

    text = "Training loss of every seed of every arm; marks at the end are validation losses."
    return _svg("curves", draw_in(False), text, right=draw_in(True))


def _svg(
    name: str,
    draw: Callable[[Axes], None],
    text: str,
    *,
    height: float = 3.3,
    right: Callable[[Axes], None] | None = None,
) -> str:
    """Draw and return an ``<svg>`` element with a text for those who cannot see it."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.6 if right else 5.6, height), layout="constrained")
        panels = figure.subplots(1, 2 if right else 1, squeeze=False)[0]
        draw(panels[0])
        if right:
            right(panels[1])
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # ids must be unique in the page that holds several figures
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    label = _escape(text)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        rf'viewBox="\1" class="{"pair" if right else "single"}" role="img" aria-label="{label}">',
        svg,
        count=1,
    )


def standalone(svg: str) -> str:
    """The element as a file of its own, on white."""
    return svg.replace("<svg ", '<svg style="background:#fff" ', 1)


def _escape(text: str) -> str:
    table: dict[str, Any] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
    return text.translate(str.maketrans(table)).replace("\\", "/")


def _legend(ax: Axes) -> None:
    """Inside where there is room, beside the axes for many arms."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        many = len(labels) > 4
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5)) if many else ax.legend()


def _count(n: float) -> str:
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:g}"


def _saving_text(arm: ArmResult) -> str:
    share = arm.log_ratio.map(saved) if arm.log_ratio else None
    if share is None:
        return arm.name
    return f"{arm.name}: {percent(share.mean)}, from {percent(share.low)} to {percent(share.high)}"


def _sweep_top(analysis: Analysis) -> float:
    """Upper end of the loss axis: bad trials must not flatten the good ones."""
    losses = sorted(t.loss for a in analysis.arms for t in a.trials if t.loss is not None)
    if not losses:
        return 1.0
    span = max(losses[-1] - losses[0], 1e-3)
    return losses[-1] + 0.08 * span
