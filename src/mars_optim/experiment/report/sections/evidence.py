"""The evidence: every arm, the ladder, the learning rates, the curves, every seed."""

from __future__ import annotations

import math

from ...analysis import Analysis, ArmResult
from ...analysis.stats import saved
from ...plan.decision import LOSS
from ..document import Block, Cell, Picture, Section, Table
from ..messages import Messages
from ..savings import bounded, ends
from . import arm_cells, curves, ladder, noise_course, sensitivity, sweep
from .cost import quartiles


def section(analysis: Analysis, say: Messages) -> Section:
    """All tables and figures behind the answer."""
    pictures = [_sweep(analysis, say)]
    if analysis.plan.decision.target is None:
        pictures.insert(0, ladder.picture(analysis, say))
    if analysis.sensitivity:
        pictures.append(sensitivity.picture(analysis, say))
    pictures.append(_curves(analysis, say))
    if analysis.noise:
        pictures.append(noise_course.picture(analysis, say))
    blocks: tuple[Block, ...] = (
        arms_table(analysis, say),
        *checks_table(analysis, say),
        *(picture for picture in pictures if picture.data.rows),
        arm_cells.seeds_table(analysis.arms, analysis.seeds, say),
    )
    return Section("evidence", say("section.evidence"), blocks)


def _caption(analysis: Analysis, say: Messages) -> str:
    baseline = analysis.baseline.name
    if analysis.plan.tuning.by_design:
        return say("table.arms.design", baseline=baseline)
    loss = analysis.plan.decision.metric == LOSS
    return say("table.arms" if loss else "table.arms-metric", baseline=baseline)


def _sweep(analysis: Analysis, say: Messages) -> Picture:
    if analysis.plan.tuning.by_design:
        return sweep.picture(analysis, say, code="figure.design-sweep")
    return sweep.picture(analysis, say)


def _curves(analysis: Analysis, say: Messages) -> Picture:
    """Picture of the losses; the section of the target has the metric's own."""
    rule = analysis.plan.decision
    caption = "figure.curves.caption" if rule.target is None else "figure.curves.caption-target"
    text = "figure.curves.text" if rule.metric == LOSS else "figure.curves.text-metric"
    return curves.picture(analysis, say, text=text, caption=caption)


def arms_table(analysis: Analysis, say: Messages) -> Table:
    """A row per arm: rate, loss, difference, saving, time, memory."""
    columns = ("arm", "lr", "mean-loss", "difference", "tokens-saved", "step-time", "state")
    scores, published = arm_cells.score_columns(analysis.arms), analysis.plan.published
    changed = bool(analysis.plan.recipe.changed)

    def row(arm: ArmResult) -> tuple[Cell, ...]:
        cells = _cells(arm, say) + [arm_cells.score(arm, key, say) for key in scores]
        if published:
            cells.append(arm_cells.told(published.get(arm.name), say, changed=changed))
        return tuple(cells)

    return Table(
        _caption(analysis, say),
        (
            *say.each(*columns),
            *(arm_cells.score_name(key, say) for key in scores),
            *([say("runs.published")] if published else []),
        ),
        tuple(row(arm) for arm in analysis.arms),
    )


def checks_table(analysis: Analysis, say: Messages) -> tuple[Table, ...]:
    """A row per arm that names a class: its source, and what the check found before the runs."""
    rows = tuple(
        (
            Cell(name, arm=name),
            Cell(check.optimizer, check.version),
            Cell(" ".join(text for _, text in check.found) or say("optimizers.nothing")),
        )
        for name, check in analysis.checks.items()
    )
    if not rows:
        return ()
    head = say.each("arm", "optimizers.class", "optimizers.found")
    return (Table(say("table.optimizers"), head, rows),)


def _cells(arm: ArmResult, say: Messages) -> list[Cell]:
    none = say("none")
    difference, share = arm.loss_difference, arm.log_ratio and arm.log_ratio.map(saved)
    known = difference is not None and math.isfinite(difference.low)
    spread = share is not None and math.isfinite(share.low) and not arm.all_bounds
    return [
        Cell(arm.name, say(f"role.{arm.role}"), arm=arm.name),
        Cell(f"{arm.lr:.2g}" if arm.lr else none, _trials(arm, say)),
        Cell(arm_cells.loss(arm.mean_loss, say) if arm.seeds else none, arm_cells.seeds(arm, say)),
        Cell(
            say.signed(difference.mean) if difference else none,
            say.between(difference, say.signed) if difference and known else "",
        ),
        Cell(
            bounded(arm.bounds) + say.percent(share.mean) if share else none,
            ends(share, say, arm.bounds) if share and spread else "",
        ),
        Cell(f"{arm.step_time[0]:.2f}" if arm.step_time else none, quartiles(arm, say)),
        arm_cells.memory(arm, say),
    ]


def _trials(arm: ArmResult, say: Messages) -> str:
    n = len(arm.trials)
    if arm.at_edge:
        return say("trials-at-edge", n=n)
    if arm.best_range:
        low, high = arm.best_range
        return say("trials-between", n=n, low=low, high=high)
    return say("trials", n=n)
