"""The numbers behind the headline, seed by seed, and where those of each reason stand."""

from __future__ import annotations

from ...analysis import Analysis, ArmResult
from ...analysis.arm_model import SeedResult
from ..document import Cell, Table
from ..messages import Messages
from . import arm_cells
from .answer import seed_saving

STATISTICS = "https://github.com/mars-optim/mars-optim/blob/main/docs/statistics.md"
"""Says how each number is computed and how well its interval holds."""

PLACES = {
    "reason.above-min-saving": "answer",
    "reason.below-min-saving": "answer",
    "reason.below-zero": "answer",
    "reason.min-saving-inside": "answer",
    "reason.below-ladder": "figure-ladder",
    "reason.above-ladder": "figure-ladder",
    "reason.rates-dominate": "figure-sweep",
    "reason.at-edge": "figure-sweep",
    "reason.no-pair": "evidence",
    "reason.no-ladder": "figure-ladder",
    "reason.stopped": "answer",
    "reason.no-more-pairs": "answer",
    "reason.hours-lost.pilot": "cost",
    "reason.hours-lost.canary": "cost",
    "at-target.forecast": "at-target",
    "target.missed": "target",
    "target.never": "target",
    "target.coarse": "target",
}
"""Code of a reason -> id of the section or figure that has its numbers."""


def numbers_table(analysis: Analysis, say: Messages) -> Table | None:
    """Final losses of both arms, their difference and the tokens saved, seed by seed.

    Returns:
        None before a run of either arm has finished.
    """
    arms = (analysis.baseline, analysis.candidate)
    if not any(arm.seeds for arm in arms):
        return None
    rows = [_row(arms, seed, say) for seed in analysis.seeds]
    if pair := analysis.candidate.trials_pair:
        rows.append(_by_trials(analysis.candidate, pair, say))
    return Table(
        say("table.headline"),
        (say("seed"), *(arm.name for arm in arms), *say.each("difference", "tokens-saved")),
        tuple(rows),
    )


def _row(arms: tuple[ArmResult, ArmResult], seed: int, say: Messages) -> tuple[Cell, ...]:
    found = [next((s for s in arm.seeds if s.seed == seed), None) for arm in arms]
    difference = found[1].difference if found[1] else None
    return (
        Cell(str(seed)),
        *(Cell(arm_cells.loss(s.loss, say) if s else say("missing")) for s in found),
        Cell(say("none") if difference is None else say.signed(difference)),
        Cell(seed_saving(arms[1], seed, say)),
    )


def _by_trials(arm: ArmResult, pair: SeedResult, say: Messages) -> tuple[Cell, ...]:
    """The tuning seed, where that is a pair."""
    assert pair.loss is not None
    assert pair.difference is not None
    losses = (pair.loss - pair.difference, pair.loss)
    return (
        Cell(say("by-trials", seed=pair.seed)),
        *(Cell(arm_cells.loss(value, say)) for value in losses),
        Cell(say.signed(pair.difference)),
        Cell(seed_saving(arm, pair.seed, say)),
    )


def place_of(code: str) -> str:
    """Id of the part of the page with a reason's numbers; empty where there is none."""
    return next((at for known, at in PLACES.items() if code.startswith(known)), "")
