"""The picture of the README: tokens saved against a tuned AdamW, here and in public runs.

python -m docs.figures.evidence, from the repository's root. Every number is read: ours from
docs/studies/*-fit/verdict.json, others' from the table of docs/public-runs.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from mars_optim.experiment.report.figures.draw import svg_element
from mars_optim.experiment.report.figures.svg import standalone
from mars_optim.experiment.report.figures.theme import AXIS, CARD

DOCS = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("evidence.svg")
STUDIES = {
    "gpt-fit": "built-in GPT, 0.1 M",
    "shakespeare-fit": "tinyshakespeare",
    "cifar-fit": "CIFAR-10",
}
PUBLIC = "public runs, 537 M, all settings tuned"
ARMS = {
    "mars-adamw": "MARS-AdamW",
    "nadamw-auto": 'MARS-AdamW\ngamma="auto"',
    "nadamw": "NAdamW\n(the control)",
    "muon": "Muon",
    "mars-m": "MARS-M",
}
TABLE_NAMES = {"mars": "mars-adamw", "nadamw": "nadamw", "muon": "muon"}
TINTS = {
    "gpt-fit": "#0072b2",
    "shakespeare-fit": "#009e73",
    "cifar-fit": "#e69f00",
    "public": "#4d4d4d",
}
LEFT, RIGHT = -0.5, 0.5


class Saving(NamedTuple):
    """Share of the baseline's tokens that an arm saves, with its 95 % interval.

    A bound has no upper end: ``high`` is its mean.
    """

    mean: float
    low: float
    high: float
    at_least: bool = False


def ours() -> dict[tuple[str, str], Saving]:
    """(arm, study) -> what our studies with fitted rates found."""
    found = {}
    for study in STUDIES:
        verdict = json.loads((DOCS / "studies" / study / "verdict.json").read_text("utf-8"))
        for arm in ARMS:
            result = verdict["arms"][arm]
            saved = result["tokens_saved"]
            bound = result["outside_ladder"] == ["at least"]
            high = saved["mean"] if bound else saved["high"]
            low = saved["mean"] if saved["low"] is None else saved["low"]
            found[arm, study] = Saving(saved["mean"], low, high, bound)
    return found


def public(page: str) -> dict[tuple[str, str], Saving]:
    """(arm, "public") -> the column "saved at the largest" of docs/public-runs.md."""
    rows = re.findall(
        r"^\| (\w+) \|.*\| (-?[\d.]+)% \((-?[\d.]+)% to (-?[\d.]+)%\) \| [a-z-]+ \|$", page, re.M
    )
    numbers = {name: Saving(*(float(x) / 100 for x in row)) for name, *row in rows}
    return {(arm, "public"): numbers[name] for name, arm in TABLE_NAMES.items()}


def savings() -> dict[tuple[str, str], Saving]:
    """All that the picture shows, by arm and source."""
    return ours() | public((DOCS / "public-runs.md").read_text("utf-8"))


def draw(ax: Axes) -> None:
    """One block of rows for each arm; a row for each source."""
    found, y, ticks = savings(), 0.0, []
    for arm in ARMS:
        sources = [s for s in (*STUDIES, "public") if (arm, s) in found]
        ticks.append((y - (len(sources) - 1) / 2, ARMS[arm]))
        for source in sources:
            _row(ax, y, found[arm, source], TINTS[source])
            y -= 1
        y -= 0.8
    for source, label in {**STUDIES, "public": PUBLIC}.items():
        ax.plot([], [], "o-", color=TINTS[source], lw=5, ms=5, mfc=CARD, label=label)
    ax.axvline(0, color=AXIS, lw=1)
    ax.set_xlim(LEFT, RIGHT)
    ax.set_ylim(y + 0.9, 0.9)
    ax.set_xticks([-0.4, -0.2, 0, 0.2, 0.4], ["\u221240 %", "\u221220", "0", "20", "40 %"])
    ax.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    ax.set_xlabel("tokens saved against a tuned AdamW, 95 % interval\ntriangle: at least this much")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, 1.17), ncols=2, fontsize=8, frameon=False)


def _row(ax: Axes, y: float, saving: Saving, tint: str) -> None:
    low, high = max(saving.low, LEFT), min(saving.high, RIGHT)
    ax.plot([low, high], [y, y], color=tint, lw=5, alpha=0.35, solid_capstyle="butt")
    ax.plot(saving.mean, y, ">" if saving.at_least else "o", ms=5, mec=tint, mfc=CARD, mew=1.5)
    if saving.low < LEFT:
        ax.plot(LEFT + 0.012, y, "<", ms=4, color=tint)


def main() -> None:
    """Write the picture beside this file."""
    PICTURE.write_text(standalone(svg_element("evidence", draw, height=4.2)), encoding="utf-8")


if __name__ == "__main__":
    main()
