"""The answer: tokens that each arm saves against the baseline."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from ...analysis import Analysis, ArmResult
from ...analysis.stats import saved
from ..document import Cell, Picture, Section, Table
from ..figures.draw import svg_element
from ..figures.theme import AXIS, CARD, MIN_SAVING, colour
from ..messages import Messages
from ..savings import BOUNDS, closed_part, ends, saving, saving_interval

MARKERS = {"": "o", "at least": ">", "at most": "<"}  # of what is known of a seed


def section(analysis: Analysis, say: Messages) -> Section:
    """The picture; empty while no arm can be told."""
    arms = [a for a in analysis.arms if a.log_ratio]
    values = dict(
        baseline=analysis.baseline.name,
        confidence=analysis.plan.decision.confidence,
        min_saving=analysis.plan.decision.min_saving,
        arms=say.listed(f"{arm.name}: {saving_interval(arm, say)}" for arm in arms),
    )
    # closer rows where there are many
    height = 1.3 + min(0.5 * len(arms), 2.0 + 0.25 * len(arms))
    caption = "figure.saving.caption"
    if analysis.plan.decision.target is not None:
        caption = "figure.saving.caption-target"
    picture = Picture(
        "saving",
        say("figure.saving.text", **values),
        say(caption, **values),
        _data(analysis, arms, say),
        svg_element("saving", lambda ax: _draw(ax, analysis, arms, say), height=height),
    )
    return Section("answer", say("section.answer"), (picture,) if arms else ())


def _data(analysis: Analysis, arms: list[ArmResult], say: Messages) -> Table:
    seeds = analysis.seeds
    by_trials = sorted({arm.trials_pair.seed for arm in arms if arm.trials_pair})
    return Table(
        say("figure.saving.data"),
        (
            *say.each("arm", "tokens-saved"),
            *(say("seed-number", seed=seed) for seed in seeds),
            *(say("seed-by-trials", seed=seed) for seed in by_trials),
        ),
        tuple(
            (
                Cell(arm.name, arm=arm.name),
                Cell(saving(arm, say), _ends(arm, say)),
                *(Cell(seed_saving(arm, seed, say)) for seed in (*seeds, *by_trials)),
            )
            for arm in arms
        ),
    )


def _ends(arm: ArmResult, say: Messages) -> str:
    return ends(arm.log_ratio and arm.log_ratio.map(saved), say, arm.bounds)


def seed_saving(arm: ArmResult, seed: int, say: Messages) -> str:
    """Tokens saved by one seed, or the bound that is known of it."""
    found = next((s for s in arm.pairs if s.seed == seed), None)
    if found is None or found.log_ratio is None or found.reading is None:
        return say("missing" if found is None else "none")
    return BOUNDS[found.reading.bound] + say.percent(saved(found.log_ratio))


def _draw(ax: Axes, analysis: Analysis, arms: list[ArmResult], say: Messages) -> None:
    """A dot per seed, the mean and its interval per arm."""
    for row, arm in enumerate(reversed(arms)):
        _draw_arm(ax, row, arm, colour(analysis, arm))
    min_saving = 100 * analysis.plan.decision.min_saving
    ax.axvline(0, color=AXIS, lw=1)
    ax.axvline(min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
    ax.set_yticks(range(len(arms)), [a.name for a in reversed(arms)])
    ax.set_ylim(-0.6, max(len(arms), 1) - 0.1)
    ax.annotate(
        say("figure.saving.threshold"),
        (min_saving, max(len(arms), 1) - 0.2),
        (4, 0),
        textcoords="offset points",
        color=MIN_SAVING,
        va="top",
        fontsize=9,
    )
    ax.set_xlabel(say("figure.saving.x", baseline=analysis.baseline.name))
    ax.grid(axis="y", visible=False)


def _draw_arm(ax: Axes, row: int, arm: ArmResult, tint: str) -> None:
    assert arm.log_ratio is not None
    share = arm.log_ratio.map(saved)
    if math.isfinite(share.low):
        ax.plot(closed_part(share, arm.bounds), [row, row], color=tint, lw=7, alpha=0.3)
    ax.plot([100 * share.mean] * 2, [row - 0.2, row + 0.2], color=tint, lw=3)
    for seed in arm.pairs:
        if seed.log_ratio is not None and seed.reading is not None:
            marker = MARKERS[seed.reading.bound]
            ax.plot(100 * saved(seed.log_ratio), row, marker, ms=6, mec=tint, mfc=CARD, mew=1.4)
