"""What was run, by which rule, and the command that runs it again."""

from __future__ import annotations

import shlex

from ..analysis import Analysis
from ..records.plan import overrides, plan_toml
from .document import Block, Bullets, Code, Section, Text
from .words import Words

MOST_OVERRIDES = 8  # with more, the plan's file is the shorter command


def section(analysis: Analysis, words: Words) -> Section:
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
    if settable and len(changed) <= MOST_OVERRIDES:
        sets = "".join(f" \\\n  --set {shlex.quote(change)}" for change in changed)
        blocks += [Text(words("repeat.command")), Code(f"mars pilot --out again{sets}")]
    else:
        blocks += [Text(words("repeat.plan")), Code("mars pilot --plan plan.toml --out again")]
    toml = plan_toml(analysis.plan)
    blocks.append(Code(toml, summary=words("repeat.the-plan"), language="toml"))
    return Section("repeat", words("section.repeat"), tuple(blocks))


def what_was_run(analysis: Analysis, words: Words) -> str:
    """Runs, model, text, tokens and machine in a few sentences."""
    totals, corpus = analysis.totals, analysis.plan.task.corpus
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
    return words(
        "run.what",
        runs=runs,
        parameters=analysis.parameters,
        corpus=words("run.stdlib") if corpus == "stdlib" else corpus,
        tokens=analysis.unit_tokens,
        total=totals.tokens,
        machine=", ".join(part for part in machine if part),
    )


def rule(analysis: Analysis, words: Words) -> str:
    """The rule that was fixed in the plan."""
    decision = analysis.plan.decision
    return words("repeat.rule", confidence=decision.confidence, worth=decision.worth)


def limits(words: Words) -> Section:
    """What a pilot does not tell."""
    items = tuple(words(f"limit.{key}") for key in ("size", "ladder", "lr"))
    return Section("limits", words("section.limits"), (Bullets(items),))
