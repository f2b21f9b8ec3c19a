"""The picture of what a decision costs: budgets until it, and how often it is wrong.

python -m docs.figures.designs, from the repository's root. Every number is read from the table of
"Beside others' protocols" in docs/statistics.md, whose command is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from scipy.stats import binomtest

from mars_optim.experiment.report.figures.draw import svg_element
from mars_optim.experiment.report.figures.svg import standalone
from mars_optim.experiment.report.figures.theme import CARD

PAGE = Path(__file__).parents[1] / "statistics.md"
PICTURE = Path(__file__).with_name("designs.svg")
COMMAND = re.compile(r"`python -m benchmarks\.rival_designs --pilots (\d+)")
DESIGNS = {
    "pilot, 5 pairs": ("pilot of before: 5 pairs", "#4d4d4d", "s"),
    "pilot, built-in plan": ("pilot: built-in plan", "#0072b2", "o"),
    "successive halving": ("successive halving (Optuna)", "#e69f00", "^"),
    "AlgoPerf's median of studies": ("median of studies (AlgoPerf)", "#009e73", "D"),
}
CONFIDENCE = 0.95
TOLD = 13.0  # per cent wrong from which on a point says at which saving


class Point(NamedTuple):
    """One design at one true saving: mean budgets, and wrong decisions among its pilots."""

    design: str
    saving: str
    budgets: float
    wrong: int
    pilots: int

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the 95 % interval of the share that is wrong, in per cent (Wilson)."""
        found = binomtest(self.wrong, self.pilots).proportion_ci(CONFIDENCE, "wilson")
        return 100 * found.low, 100 * found.high


def points(page: str) -> list[Point]:
    """The rows of the table that the picture shows."""
    command = COMMAND.search(page)
    assert command
    pilots = int(command[1])
    rows = re.findall(
        r"^\| (-?\d+%) \| ([^|]+) \|[^|]*\|[^|]*\| ([\d.]+) ± [\d.]+ \| ([\d.]+) \|$",
        page[command.start() :],
        re.M,
    )
    return [
        Point(name, saving, float(budgets), round(float(wrong) * pilots / 100), pilots)
        for saving, name, wrong, budgets in rows
        if name in DESIGNS
    ]


def draw(ax: Axes) -> None:
    """A point for each design and saving, its interval up and down."""
    for point in points(PAGE.read_text("utf-8")):
        _, tint, marker = DESIGNS[point.design]
        share = 100 * point.wrong / point.pilots
        ax.plot([point.budgets] * 2, point.ends, color=tint, lw=4, alpha=0.3)
        ax.plot(point.budgets, share, marker, ms=6, mec=tint, mfc=CARD, mew=1.6, zorder=3)
        if share >= TOLD:
            left = point.design == "successive halving"
            ax.annotate(
                f"{point.saving[:-1]} % saved",
                (point.budgets, share),
                (-8 if left else 8, -3),
                ha="right" if left else "left",
                textcoords="offset points",
                size=8,
            )
    for label, tint, marker in DESIGNS.values():
        ax.plot([], [], marker, color=tint, lw=4, ms=6, mfc=CARD, mew=1.6, label=label)
    ax.set_xlim(0, 62)
    ax.set_ylim(-3, 100)
    ax.set_xlabel("tokens until the decision, in whole runs, tuning included")
    ax.set_ylabel("wrong decisions, %")
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, 1.28), ncols=2, fontsize=8, frameon=False)


def main() -> None:
    """Write the picture beside this file."""
    PICTURE.write_text(standalone(svg_element("designs", draw, height=3.0)), encoding="utf-8")


if __name__ == "__main__":
    main()
