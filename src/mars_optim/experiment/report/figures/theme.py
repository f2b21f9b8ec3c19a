"""The figures' colours: matplotlib draws the light ones, style rules turn them for the dark."""

from __future__ import annotations

import math

from ...analysis import ArmResult, Shown

INK, TICKS, AXIS, GRID, CARD, MIN_SAVING = (
    "#333333",
    "#555555",
    "#888888",
    "#e6e6e6",
    "#ffffff",
    "#b00020",
)
# Okabe and Ito's palette, told apart with any colour vision
ARMS = {"baseline": "#4d4d4d", "candidate": "#0072b2", "control": "#e69f00"}
OTHERS = (
    *("#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31", "#7570b3"),
    *("#882255", "#999933"),
)
BINS = ("#08519c", "#3182bd", "#6baed6", "#bdd7e7", "#eff3ff")
"""From the best loss to a bad one; in the dark, from bright to dim."""
DARK = {
    INK: "#d8dce1",
    TICKS: "#b4bac2",
    AXIS: "#7c838c",
    GRID: "#30353c",
    CARD: "#1b1f24",
    MIN_SAVING: "#ff7b86",
    "#4d4d4d": "#c3c8ce",
    "#0072b2": "#4db4f0",
    "#e69f00": "#f2b134",
    "#009e73": "#2fd0a2",
    "#cc79a7": "#e39cc4",
    "#d55e00": "#ff8a3d",
    "#56b4e9": "#8fd0f7",
    "#8c6d31": "#c9a55a",
    "#7570b3": "#a5a1e0",
    "#882255": "#d06b9f",
    "#999933": "#cfcf6a",
    "#08519c": "#cfe6fb",
    "#3182bd": "#7fbce9",
    "#6baed6": "#3f82b4",
    "#bdd7e7": "#27506f",
    "#eff3ff": "#1f2b36",
}
FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Hiragino Sans', "
    "'Yu Gothic UI', Meiryo, 'Noto Sans JP', 'Noto Sans CJK JP', sans-serif"
)
"""For the page and the figures: the browser draws the text, Japanese too."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mars-optim",
    "font.family": "DejaVu Sans",  # to measure by; FONTS stands in the file
    "font.size": 9.5,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": AXIS,
    "axes.labelcolor": INK,
    "xtick.color": TICKS,
    "ytick.color": TICKS,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def pictured(analysis: Shown) -> tuple[ArmResult, ...]:
    """Arms with a colour of their own, in the plan's order.

    All of them; of many, baseline, candidate, control and the best of the others.
    """
    others = [arm for arm in analysis.arms if arm.role == "other"]
    best = sorted(others, key=_loss)[: len(OTHERS)]
    return tuple(arm for arm in analysis.arms if arm.role != "other" or arm in best)


def _loss(arm: ArmResult) -> float:
    tried = [trial.loss for trial in arm.trials if trial.loss is not None]
    if arm.mean_loss is not None:
        return arm.sign * arm.mean_loss
    return min((arm.sign * loss for loss in tried), default=math.inf)


def colour(analysis: Shown, arm: ArmResult) -> str:
    """The arm's colour, the same in every figure; grey of those that are not :func:`pictured`."""
    if arm.role in ARMS:
        return ARMS[arm.role]
    others = [a.name for a in pictured(analysis) if a.role == "other"]
    return OTHERS[others.index(arm.name)] if arm.name in others else AXIS


def dark_rules() -> str:
    """Style rules that turn every colour of a figure; they need ``svg`` above the elements."""
    return "\n".join(
        f'svg [style*="{key}: {light}"] {{ {key}: {dark} !important }}'
        for light, dark in DARK.items()
        for key in ("fill", "stroke")
    )
