"""What was run, by which rule, and the command that runs it again."""

from __future__ import annotations

import dataclasses
import shlex

from ..analysis import Analysis
from ..plan.plan_file import overrides, plan_toml
from .document import Block, Bullets, Code, Section, Text
from .messages import Messages

MOST_OVERRIDES = 8  # with more, the plan's file is the shorter command


def section(analysis: Analysis, words: Messages) -> Section:
    """The runs, the rule, what was changed since, the command, the plan."""
    blocks: list[Block] = [Text(what_was_run(analysis, words)), Text(rule(analysis, words))]
    if analysis.amendments:
        items = tuple(
            words("amendment", date=a.get("date", ""), changes="; ".join(a.get("changes", ())))
            for a in analysis.amendments
        )
        blocks.append(Bullets(items, title=words("amendments")))
    changed = overrides(analysis.plan)
    settable = not any("." in arm for arm in analysis.plan.arms)  # the dot divides keys
    if analysis.plan.task.kind == "imported":
        blocks.append(Text(words("repeat.imported")))
    elif settable and len(changed) <= MOST_OVERRIDES:
        sets = "".join(f" \\\n  --set {shlex.quote(change)}" for change in changed)
        blocks += [Text(words("repeat.command")), Code(f"mars pilot --out again{sets}")]
    else:
        blocks += [Text(words("repeat.plan")), Code("mars pilot --plan plan.toml --out again")]
    toml = plan_toml(analysis.plan)
    blocks.append(Code(toml, summary=words("repeat.the-plan"), language="toml"))
    return Section("repeat", words("section.repeat"), tuple(blocks))


def what_was_run(analysis: Analysis, words: Messages) -> str:
    """Runs, model, text, tokens and machine in a few sentences."""
    totals = analysis.totals
    environment = analysis.environment
    machine = [
        words("environment.python", version=environment["python"])
        if "python" in environment
        else "",
        f"torch {environment['torch']}" if "torch" in environment else "",
        *(str(environment.get(key, "")) for key in ("system", "device", "date")),
    ]
    runs = words("run.runs", n=totals.runs)
    if totals.diverged:
        runs += words("run.diverged", n=totals.diverged)
    if totals.missing:
        runs += words("run.missing", n=totals.missing)
    text = words(
        "run.what",
        runs=runs,
        trained=trained(analysis, words),
        tokens=analysis.unit_tokens,
        total=totals.tokens,
    )
    parts = [part for part in machine if part]
    return text + words("run.machine", machine=", ".join(parts)) if parts else text


def trained(analysis: Analysis, words: Messages) -> str:
    """What was trained, and on what."""
    task = dataclasses.asdict(analysis.plan.task)
    if task.get("corpus") == "stdlib":
        task["corpus"] = words("run.stdlib")
    what = words(f"run.{task['kind']}", **task)
    if not analysis.parameters:
        return what
    return words("run.parameters", trained=what, parameters=analysis.parameters)


def rule(analysis: Analysis, words: Messages) -> str:
    """The rule that was fixed in the plan."""
    decision = analysis.plan.decision
    return words("repeat.rule", confidence=decision.confidence, min_saving=decision.min_saving)


def limits(words: Messages) -> Section:
    """What a pilot does not tell."""
    items = tuple(words(f"limit.{key}") for key in ("size", "ladder", "lr"))
    return Section("limits", words("section.limits"), (Bullets(items),))
