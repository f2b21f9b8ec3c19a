"""The staged way into production and back, as a checklist."""

from __future__ import annotations

from ...analysis import Analysis, Condition, RolloutStep, next_step, rollout_steps
from ...records.production import CanaryRecord
from ..document import Block, Bullets, Cell, Code, Heading, Section, Table
from ..messages import Messages
from .arm_cells import loss


def section(analysis: Analysis, say: Messages) -> Section:
    """Each stage with what must hold to enter it and to go on, and what sends it back."""
    blocks: list[Block] = []
    for stage in rollout_steps(analysis):
        blocks.append(Heading(heading(stage, say)))
        if stage.happened:
            told = tuple(condition_text(c, say) for c in stage.happened)
            blocks.append(Bullets(told, title=say("happened")))
        if stage.key == "canary" and (record := analysis.aftermath.canary):
            blocks.append(_orders(analysis, record, say))
        if stage.status == "closed":
            continue
        blocks.append(Code(stage.command))
        for kind in ("entry", "exit", "rollback"):
            conditions: tuple[Condition, ...] = getattr(stage, kind)
            if conditions:
                items = tuple(condition_text(c, say) for c in conditions)
                ticks = () if kind == "rollback" else tuple(c.met is True for c in conditions)
                blocks.append(Bullets(items, title=say(f"stage.{kind}"), ticks=ticks))
    refused = tuple(say("happened.refused", why=why) for why in analysis.aftermath.refused)
    if refused:
        blocks.insert(0, Bullets(refused))
    return Section("rollout", say("section.stages"), tuple(blocks))


def _orders(analysis: Analysis, record: CanaryRecord, say: Messages) -> Table:
    """Final losses of the canary, order by order."""

    def shown(value: float | None, spiked: bool) -> Cell:
        return Cell(loss(value, say), say("canary.spike") if spiked else "")

    return Table(
        say("table.canary"),
        (say("canary.order"), analysis.baseline.name, analysis.candidate.name, say("difference")),
        tuple(
            (
                Cell(str(order.seed)),
                shown(order.adamw_loss, order.adamw_spike),
                shown(order.mars_loss, order.mars_spike),
                Cell(say("none") if order.difference is None else say.signed(order.difference)),
            )
            for order in record.orders
        ),
    )


def heading(stage: RolloutStep, say: Messages) -> str:
    """Its number, how it stands, its title."""
    status, title = say(f"status.{stage.status}"), say(f"stage.{stage.key}")
    return say("stage.heading", number=stage.number, status=status, title=title)


def next_step_line(analysis: Analysis, say: Messages) -> str:
    """The stage to carry out now; empty where the way ends."""
    stage = next_step(analysis)
    if stage is None:
        return ""
    return say("next-stage", number=stage.number, title=say(f"stage.{stage.key}"))


def condition_text(condition: Condition, say: Messages) -> str:
    """One line of the checklist."""
    return say(f"condition.{condition.key}", **condition.numbers)
