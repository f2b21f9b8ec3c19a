"""Messages of ``mars train`` before and after a run, in rich's markup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ..experiment.pilot.standing import clock
from ..experiment.plan import Plan, RunSpec
from ..experiment.plan.task import what_is_trained
from ..experiment.records import Outcome

if TYPE_CHECKING:
    from ..experiment.pilot.run_estimate import RunEstimate


def before(plan: Plan, spec: RunSpec, outlook: RunEstimate, run: Path) -> list[str]:
    """Summary of the run before its first step, in rich's markup."""
    training = spec.training
    title = plan.recipe.title or what_is_trained(spec.task)
    kind = "images" if spec.task.kind == "images" else "tokens"
    lines = [
        f"[bold]{escape(title)}[/]: {spec.arm_name}, lr {spec.lr:g}, seed {spec.seed}",
        f"  model: {outlook.parameters:,} parameters",
        f"  data: {outlook.tokens:,} {kind} in {spec.steps:,} steps of "
        f"{outlook.tokens // spec.steps:,}",
        f"  schedule: {_schedule(spec)}; clip {training.grad_clip:g}; precision "
        f"{training.precision}; convention: {training.convention}",
        f"  optimizer: {escape(outlook.optimizer)}",
        f"  published: {escape(told_of(plan, spec.arm_name))}",
    ]
    if changes := _changes(plan, spec):
        lines.append(f"  differs from the recipe: {escape('; '.join(changes))}")
    known = [f"about {clock(outlook.seconds)} by an earlier run"] if outlook.seconds else []
    if spec.task.kind == "gpt":
        known.append(f"{outlook.flops:.2g} FLOP (6 x parameters x tokens)")
    lines.append(f"  estimate: {', '.join(known) or 'from the first steps on'}")
    return [*lines, f"  records: {escape(str(run))}"]


def _schedule(spec: RunSpec) -> str:
    training = spec.training
    if spec.arm.own_schedule:
        return "the optimizer's own, at a constant lr"
    warmup = round(training.warmup * spec.steps)
    return f"{training.decay}, {warmup:,} steps of warm-up, down to {training.min_lr:g}"


def told_of(plan: Plan, arm: str) -> str:
    """Published result of an arm, in a line."""
    known = plan.published.get(arm)
    if known is None:
        return "nothing in this file"
    numbers = []
    if known.loss is not None:
        numbers.append(f"loss {known.loss:g}")
    if known.accuracy is not None:
        numbers.append(f"accuracy {known.accuracy:g} %")
    text = f"{', '.join(numbers)} ({known.source})" if numbers else known.source
    if known.note:
        text += f"; {known.note}"
    return text + (
        "; the arm's settings are not published: tune them" if known.settings == "ours" else ""
    )


def _changes(plan: Plan, spec: RunSpec) -> list[str]:
    """The plan's, of this arm's and of the run itself."""
    others = tuple(f"arm.{name}." for name in plan.arms if name != spec.arm_name)
    changed = [text for text in plan.recipe.changed if not text.startswith(others)]
    if plan.recipe.title and spec.lr != spec.arm.lr:
        changed.append(f"lr = {spec.lr:g} (recipe: {spec.arm.lr:g})")
    return changed


def after(
    plan: Plan, spec: RunSpec, outcome: Outcome, rows: list[dict[str, Any]], out: Path
) -> list[str]:
    """The result next to the published one; in rich's markup."""
    if outcome.final_loss is None:
        lines = [f"[red]diverged[/]: {escape(outcome.reason)}"]
    else:
        lines = [f"[bold]loss {outcome.final_loss:.4f}[/]{_beside(plan, spec, outcome, rows)}"]
    lines.append(
        f"  {outcome.tokens:,} tokens in {clock(outcome.seconds)} of training; optimizer state "
        f"{outcome.state_bytes / max(1, outcome.parameters):.1f} bytes per parameter"
    )
    lines.append(f"  {escape(str(out / 'runs' / spec.run_id))}; mars report {escape(str(out))}")
    return lines


def _beside(plan: Plan, spec: RunSpec, outcome: Outcome, rows: list[dict[str, Any]]) -> str:
    """Accuracy if there is one, and the published numbers with their difference."""
    last: dict[str, Any] = next((r for r in reversed(rows) if r.get("valid_loss") is not None), {})
    accuracy, known = last.get("accuracy"), plan.published.get(spec.arm_name)
    text = f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
    if known is None or outcome.final_loss is None:
        return text
    changed, beside = bool(_changes(plan, spec)), []
    if known.loss is not None:
        more = "" if changed else f" (ours {outcome.final_loss - known.loss:+.4f})"
        beside.append(f"loss {known.loss:g}{more}")
    if known.accuracy is not None:
        more = ""
        if accuracy is not None and not changed:
            more = f" (ours {100 * accuracy - known.accuracy:+.2f})"
        beside.append(f"accuracy {known.accuracy:g} %{more}")
    text += f"; published: {', '.join(beside) or known.source}"
    if beside and changed:
        text += ", for the unchanged recipe: this run differs from it"
    return text
