"""The runs, the rule, and the command that runs it all again."""

from __future__ import annotations

import dataclasses
import shlex

from ...analysis import Analysis
from ...plan.decision import LOSS
from ...plan.plan_file import overrides, plan_toml
from ..document import Block, Bullets, Code, Section, Text
from ..messages import Messages

MOST_OVERRIDES = 8  # with more, the plan's file is the shorter command


def section(analysis: Analysis, say: Messages) -> Section:
    """The runs, the rule, what was changed since, the command, the plan."""
    blocks: list[Block] = [Text(what_was_run(analysis, say)), Text(rule(analysis, say))]
    if analysis.amendments:
        items = tuple(
            say("amendment", date=a.get("date", ""), changes="; ".join(a.get("changes", ())))
            for a in analysis.amendments
        )
        blocks.append(Bullets(items, title=say("amendments")))
    changed = overrides(analysis.plan)
    settable = not any("." in arm for arm in analysis.plan.arms)  # the dot divides keys
    if analysis.plan.task.kind == "imported":
        blocks.append(Text(say("repeat.imported")))
    elif settable and len(changed) <= MOST_OVERRIDES:
        sets = "".join(f" \\\n  --set {shlex.quote(change)}" for change in changed)
        blocks += [Text(say("repeat.command")), Code(f"mars pilot --out again{sets}")]
    else:
        blocks += [Text(say("repeat.plan")), Code("mars pilot --plan plan.toml --out again")]
    toml = plan_toml(analysis.plan)
    blocks.append(Code(toml, summary=say("repeat.the-plan"), language="toml"))
    return Section("repeat", say("section.repeat"), tuple(blocks))


def what_was_run(analysis: Analysis, say: Messages) -> str:
    """Runs, model, text, tokens and machine in a few sentences."""
    totals = analysis.totals
    environment = analysis.environment
    machine = [
        say("environment.python", version=environment["python"]) if "python" in environment else "",
        f"torch {environment['torch']}" if "torch" in environment else "",
        *(str(environment.get(key, "")) for key in ("system", "device", "date")),
    ]
    runs = say("run.runs", n=totals.runs)
    if totals.diverged:
        runs += say("run.diverged", n=totals.diverged)
    if totals.missing:
        runs += say("run.missing", n=totals.missing)
    text = say(
        "run.what",
        runs=runs,
        trained=trained(analysis, say),
        tokens=analysis.unit_tokens,
        total=totals.tokens,
    )
    parts = [part for part in machine if part]
    return text + say("run.machine", machine=", ".join(parts)) if parts else text


def trained(analysis: Analysis, say: Messages) -> str:
    """Model and data of the runs."""
    task = dataclasses.asdict(analysis.plan.task)
    if task.get("corpus") == "stdlib":
        task["corpus"] = say("run.stdlib")
    what = say(f"run.{task['kind']}", **task)
    if not analysis.parameters:
        return what
    return say("run.parameters", trained=what, parameters=analysis.parameters)


def rule(analysis: Analysis, say: Messages) -> str:
    """The rule that was fixed in the plan."""
    decision, most = analysis.plan.decision, analysis.plan.most_pairs
    values = dict(confidence=decision.confidence, min_saving=decision.min_saving)
    every = decision.looks == "every-pair"
    told = [
        say("repeat.rule.every-pair", **values, pairs=most)
        if every
        else say("repeat.rule", **values)
    ]
    if decision.metric != LOSS:
        told.append(say("repeat.rule-metric", direction=decision.direction))
    if decision.target is not None:
        told.append(say("repeat.rule-target"))
    return say.prose(*told)


def limits(analysis: Analysis, say: Messages) -> Section:
    """Limits of a pilot."""
    comparison, tuning = analysis.plan.comparison, analysis.plan.tuning
    exponent, few = comparison.lr_exponent, comparison.ladder_seeds
    ladder = say("limit.ladder.moved", exponent=exponent) if exponent else say("limit.ladder")
    if analysis.plan.training.trunk:
        ladder = say("limit.ladder.trunk")
    names = ", ".join(tuning.over)
    tuned = say("limit.settings", names=names) if tuning.by_design else say("limit.lr")
    mean = (say("limit.ladder.mean", seeds=few),) if few else ()
    fits = (say("limit.trials-pair", seed=tuning.seed),) if analysis.candidate.trials_pair else ()
    by_ladder = (ladder, *mean) if analysis.plan.decision.target is None else ()
    items = (say("limit.size"), *by_ladder, tuned, *fits)
    return Section("limits", say("section.limits"), (Bullets(items),))
