"""``mars plan``: the pilot's price, the seeds it needs, and what others found."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..experiment.pilot.arm_lines import check_lines
from ..experiment.pilot.forecast import Forecast
from ..experiment.pilot.pair_noise import Noise, Seeds
from ..experiment.pilot.price import between, price_line
from ..experiment.pilot.probing import unknown_steps
from ..experiment.plan import Plan
from ..experiment.plan.any_arm import is_any
from ..experiment.report.messages import Messages
from . import budget
from .budget import Choice

PURPOSES = {
    "tune": "tuning learning rates",
    "ladder": "other lengths, to turn losses into tokens saved (the ladder)",
    "compare": "comparing, from the same starting points (seeds)",
    "trunk": "runs that the ladder branches off",
    "sensitivity": "how much the learning rate matters",
}


def as_json(plan: Plan, found: Forecast, choice: Choice | None = None) -> str:
    """All numbers, for programs; what is infinite or not known is null."""
    data = dataclasses.asdict(replace(found, timings={}))
    del data["timings"]  # of the probe
    data["currency"] = plan.cost.currency
    if choice:
        data["budget"] = budget.as_data(choice)
    return json.dumps(_finite(data), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(
    plan: Plan,
    found: Forecast,
    console: Console,
    workers: int,
    choice: Choice | None = None,
    *,
    given: str = "",
    compared: bool = False,
) -> None:
    """Print the forecast, and what a budget buys.

    Args:
        plan: in hand.
        found: its forecast.
        console: to print on.
        workers: runs at a time.
        choice: what a budget buys, if there is one.
        given: options of ``mars pilot`` that name the plan in hand.
        compared: whether the budget's designs are printed, too.
    """
    bought = ["", *budget.lines(choice, given)] if choice else []
    beside = ["", *budget.table(choice)] if choice and compared else []
    for line in lines(plan, found, workers) + beside + bought:
        console.print(line, soft_wrap=True)


def lines(plan: Plan, found: Forecast, workers: int) -> list[str]:
    """The forecast as text."""
    several = f"{workers} runs at a time" if workers > 1 else "one run at a time"
    text = [f"[bold]This pilot:[/] {price_line(found.price, plan.cost.currency)}; {several}."]
    if found.finished:
        text.append(_finished(found))
    if found.left:
        text.append(f"[bold]Left of it:[/] {price_line(found.left, plan.cost.currency)}.")
    purposes = dict.fromkeys((i.size, i.purpose) for i in found.price.items)
    for size, purpose in purposes:
        items = [i for i in found.price.items if (i.size, i.purpose) == (size, purpose)]
        runs = [sum(i.runs[end] for i in items) for end in (0, 1)]
        tokens = [sum(i.steps[end] for i in items) * found.tokens_per_step for end in (0, 1)]
        where = "" if size == "main" else f" at size {size}"
        arms = ", ".join(dict.fromkeys(i.arm for i in items))
        text.append(
            f"  {PURPOSES.get(purpose, purpose)}{where}: {between(runs[0], runs[1], 0)} runs, "
            f"{between(tokens[0] / 1e6, tokens[1] / 1e6, 1)} M tokens ({arms})"
        )
    text += ["", *_around(plan, found), *_memory(plan, found), "", *_noise(found.noise)]
    text += [_seeds_line(plan, seeds) for seeds in found.seeds]
    if found.target:
        text += ["", "[bold]The real job:[/]", *(f"  {escape(line)}" for line in found.target)]
    if found.checks:
        text += ["", "[bold]Optimizers that arms name:[/]"]
        text += [f"  {line}" for line in check_lines(found.checks)]
    if is_any(plan.arm[plan.comparison.candidate].optimizer):
        return text  # what is published here is of MARS
    return [*text, "", *_published(found)]


def _finished(found: Forecast) -> str:
    if found.verdict is None:
        return "[bold]Left of it:[/] nothing; --out has every run that this plan asks for."
    return (
        f"[bold]This pilot is finished:[/] {Messages()(f'title.{found.verdict}')}. No run is left."
    )


def _around(plan: Plan, found: Forecast) -> list[str]:
    """Time of a run besides its steps, if the two can be told apart."""
    name = plan.comparison.baseline
    row = found.probe[name]
    if row["ratio"] is None:
        return []
    outside, training = row["outside"], plan.training.steps * row["seconds"]
    share = outside / (outside + training) if outside else 0.0
    text = f"[bold]Besides its steps[/] a run of {name} takes {_short(outside)}"
    way = "longer runs spend less"
    if "evaluation" in row:
        times = f"{row['evaluations']} evaluations" if row["evaluations"] > 1 else "one evaluation"
        text += f", with {times} of {_short(row['evaluation'])}"
        way = "lower training.eval_tokens or training.evaluations to save it"
    else:
        text += " to start, to evaluate and to end"
    way = f"; {way}" if share > 0.2 else ""
    return [f"{text}: {share:.0%} of its {_short(outside + training)}{way}."]


def _short(seconds: float) -> str:
    """Seconds, or minutes from two of them on."""
    return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds / 60:,.2g} min"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def _memory(plan: Plan, found: Forecast) -> list[str]:
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    old, new = found.probe[baseline], found.probe[candidate]
    text = f"[bold]{candidate} here:[/] "
    if new["ratio"] is None:
        text += unknown_steps(found.probe).removesuffix(".")
    else:
        low, high = f"{new['ratio_low']:.2f}", f"{new['ratio_high']:.2f}"
        text += f"a step takes {new['ratio']:.2f} times {baseline}'s (quartiles {low} to {high})"
    if found.parameters and new["state_bytes"]:
        per = [row["state_bytes"] / found.parameters for row in (old, new)]
        text += f"; optimizer state {per[1]:.1f} bytes per parameter, {baseline}'s {per[0]:.1f}"
    return [text + "."]


def _noise(noise: Noise) -> list[str]:
    if noise.sd is None:
        return ["[bold]Noise:[/] not known: the short runs do not learn enough to show it."]
    where = {
        "runs": f"{noise.pairs} finished pairs of this pilot",
        "short runs": (
            f"{noise.pairs} pairs of short runs at the default rates. This is a guess: whole "
            "runs may differ more or less"
        ),
    }[noise.source]
    rates = (
        "The noise from the choice of the learning rates is not known yet; the seeds "
        "below leave it out."
        if noise.rates is None
        else f"The choice of the learning rates adds {noise.rates:.3f}, which no seed narrows."
    )
    return [
        (
            "[bold]Noise[/]: how far runs differ by chance: standard deviation of the log "
            f"token ratio between pairs with the same seed: {noise.sd:.3f} (80 % interval "
            f"{noise.low:.3f} to {noise.high:.3f}), assumed from {where}. {rates}"
        )
    ]


def _seeds_line(plan: Plan, seeds: Seeds) -> str:
    what = "see" if not seeds.threshold else f"end as go (worth {seeds.threshold:.0%}) at"
    count = str(seeds.needed) if seeds.needed else "more than 200"
    ends = [str(end) if end else "more than 200" for end in (seeds.low, seeds.high)]
    have = len(plan.comparison.seeds)
    return (
        f"  To {what} a saving of {seeds.effect:.0%} in four of five pilots: {count} seeds "
        f"({ends[0]} to {ends[1]} over the noise's interval); the plan has {have}."
    )


def _published(found: Forecast) -> list[str]:
    if not found.published:
        return ["[bold]Published:[/] no match: the number of the job's parameters is not known."]
    text = ["[bold]Published[/] results of MARS-AdamW nearest in size and batch:"]
    for match in found.published:
        result = match.result
        effect = result.outcome
        if result.difference is not None:
            effect += f", loss {result.difference:+.3f}"
        text.append(
            f"  {effect}: {result.model}, {result.tokens / 1e9:.3g} B tokens, batch "
            f"{result.batch_tokens / 1e3:.3g} k ({_times(match.size_factor)} times your size, "
            f"{_times(match.batch_factor)} times your batch); {result.who}; {result.note}"
        )
    if found.published[0].distance > math.log(10):
        text.append("  None of these is close to your job, so they say little about it.")
    return text
