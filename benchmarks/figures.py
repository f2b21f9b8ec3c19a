"""Step times as one figure: bars over a common axis, a panel under the other per set of tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_optim.experiment.report.figures.theme import ARMS, STYLE

_TINT = {"baseline": ARMS["baseline"], "ours": ARMS["candidate"], "peer": "#b5b5b5"}
_MARS_PEERS = "MARS of"


def step_time(results: Sequence[dict[str, Any]]) -> str:
    """Ratios to torch's fused AdamW as an SVG; a tick on a bar is the floor of its method."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        rows = [len(result["rows"]) for result in results]
        height = sum(1.0 + 0.26 * n for n in rows) + 0.3
        figure = Figure(figsize=(8.2, height), layout="constrained")
        shares = [n + 1.5 for n in rows]
        panels = figure.subplots(len(results), 1, squeeze=False, height_ratios=shares)[:, 0]
        for ax, result in zip(panels, results, strict=True):
            _panel(ax, result)
        figure.suptitle(message(results[0]), x=0.01, ha="left", fontsize=12, weight="bold")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    return "\n".join(line.rstrip() for line in svg[svg.index("<svg") :].splitlines()) + "\n"


def message(result: dict[str, Any]) -> str:
    """Message of the figure, from the numbers in it."""
    ratios = {row["name"]: row["ratio"]["median"] for row in result["rows"]}
    others = sorted(v for name, v in ratios.items() if name.startswith(_MARS_PEERS))
    own = ratios.get("MARSAdamW")
    if own is None:
        return "Time of an optimizer's step"
    text = f"A MARSAdamW step takes {own:.1f} times torch's fused AdamW"
    if others:
        low, high = f"{others[0]:.1f}", f"{others[-1]:.1f}"
        text += f",\nother MARS packages' {low if low == high else f'{low} to {high}'} times"
    return text


def _panel(ax: Axes, result: dict[str, Any]) -> None:
    rows = sorted(result["rows"], key=lambda row: -row["ratio"]["median"])
    for y, row in enumerate(rows):
        ratio = row["ratio"]
        ax.barh(y, ratio["median"], color=_TINT[row["kind"]], height=0.66)
        ax.plot([ratio["q1"], ratio["q3"]], [y, y], color="#222", lw=1.2)
        ax.annotate(
            f"{ratio['median']:.2f}",
            (max(ratio["median"], ratio["q3"]), y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
        if row["floor_ratio"] is not None:
            ax.plot([row["floor_ratio"]] * 2, [y - 0.33, y + 0.33], color="#e69f00", lw=2.4)
    ax.axvline(1.0, color="#888", lw=1)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set_xlim(0, 1.12 * max(row["ratio"]["q3"] for row in rows))
    ax.set_xlabel("times torch's fused AdamW (orange: floor of the bytes)")
    ax.set_title(result["title"], fontsize=10, loc="left")
    ax.grid(axis="y", visible=False)
