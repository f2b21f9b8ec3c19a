"""Questions of ``mars init``: each with a default and a sentence on what it is for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from ..experiment.plan.arms import ARMS
from .folder import look
from .typed_line import typed_line

KINDS = {
    "demo": "a small built-in language model; needs nothing of yours",
    "script": "your own training script, in any framework",
    "task": "model, data and loss as Python functions",
    "finetune": "fine-tuning of a transformers checkpoint, all weights or LoRA",
    "sft": "supervised fine-tuning by trl's SFTTrainer",
    "bandit": "reinforcement learning by a policy gradient",
    "runs": "nothing: compare runs that have finished already",
}
WRITES = {"demo": "plan", "script": "command"}
"""Kinds of :func:`mars_optim.cli.init.write_example`, where they have another name."""

PARTNERS = {"lion": "mars-lion", "muon": "mars-m"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers to the questions; what was not asked is empty.

    Args:
        kind: of the files, as ``mars init KIND``.
        script: a training script of the user's.
        baseline: the optimizer in use today.
        candidate: the optimizer to try.
        price: of an hour of the machine; 0 for none.
        budget: the most that the comparison may spend; 0 for no limit.
    """

    kind: str
    script: str = ""
    baseline: str = ""
    candidate: str = ""
    price: float = 0.0
    budget: float = 0.0

    @property
    def settings(self) -> tuple[str, ...]:
        """Keys of the plan that the answers set, as given to ``--set``."""
        pairs: list[tuple[str, object]] = []
        if self.baseline and (self.baseline, self.candidate) != ("adamw", "mars-adamw"):
            pairs += [
                ("arms", [self.baseline, self.candidate]),
                ("comparison.baseline", self.baseline),
                ("comparison.candidate", self.candidate),
            ]
        if self.price:
            pairs.append(("cost.price_per_hour", self.price))
        if self.budget:
            pairs.append(("cost.budget", self.budget))
        return tuple(f"{key}={json.dumps(value)}" for key, value in pairs)


def ask_all(console: Console, folder: Path, script: str | None = None) -> Answers:
    """Ask on a terminal until every answer can be used.

    Args:
        console: to ask on.
        folder: that is written into; a script in it is offered.
        script: of the user's, if it is known already.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        EOFError: at the end of the input.
    """
    found = look(folder).scripts
    console.print("Each question has a default in brackets: Enter takes it. Ctrl-C writes nothing.")
    if script is None:
        kind = _choose(
            console,
            "What do you train?",
            "Some kinds come with an example to edit.",
            KINDS,
            "script" if found else "demo",
        )
    else:
        kind = "script"
    answers = Answers(kind=WRITES.get(kind, kind), script=script or "")
    if kind == "script" and script is None:
        answers = replace(answers, script=_script(console, found))
    if kind in ("demo", "script", "task"):
        answers = _optimizers(console, answers, known=kind != "script")
    if kind != "runs":
        answers = _money(console, answers)
    console.print()
    return answers


def _script(console: Console, found: tuple[str, ...]) -> str:
    return _text(
        console,
        "Which script?",
        "The comparison starts it many times, with other optimizers and learning rates.",
        found[0] if found else "train.py",
        lambda text: "" if text.endswith(".py") else "the name of a Python file is needed",
    )


def _optimizers(console: Console, answers: Answers, *, known: bool) -> Answers:
    """The two that are compared; of a script, any names that it knows."""

    def wrong(text: str) -> str:
        if known and text not in ARMS:
            return f"known are {', '.join(ARMS)}"
        return "" if NAME.fullmatch(text) else "letters, digits, '.', '_' and '-' only"

    def wrong_partner(text: str) -> str:
        return "it must be another one" if text == baseline else wrong(text)

    baseline = _text(
        console,
        "Which optimizer do you use today?",
        "The other one must beat it; both get their learning rates tuned alike.",
        "adamw",
        wrong,
    )
    candidate = _text(
        console,
        "Which one do you want to try?",
        "The report says how many training tokens it saves, with an interval.",
        PARTNERS.get(baseline, "mars-adamw"),
        wrong_partner,
    )
    return replace(answers, baseline=baseline, candidate=candidate)


def _money(console: Console, answers: Answers) -> Answers:
    price = _number(
        console,
        "What does an hour of your machine cost, in USD?",
        "The report then shows money, too; 0 leaves money out.",
    )
    if not price:
        return answers
    budget = _number(
        console,
        "What may the comparison cost at most, in USD?",
        "It starts no training that would cost more; 0 sets no limit.",
    )
    return replace(answers, price=price, budget=budget)


def _choose(
    console: Console, question: str, why: str, choices: Mapping[str, str], default: str
) -> str:
    names = list(choices)
    table = [f"  {i} {name:<9} {choices[name]}" for i, name in enumerate(names, start=1)]
    _say(console, question, why, *table)
    while True:
        text = _line(console, default).lower()
        if text in choices:
            return text
        if text.isdecimal() and 1 <= int(text) <= len(names):
            return names[int(text) - 1]
        _say_wrong(console, text, f"a number from 1 to {len(names)}, or a name of the list")


def _text(
    console: Console, question: str, why: str, default: str, wrong: Callable[[str], str]
) -> str:
    _say(console, question, why)
    while True:
        text = _line(console, default)
        if not (problem := wrong(text)):
            return text
        _say_wrong(console, text, problem)


def _number(console: Console, question: str, why: str) -> float:
    _say(console, question, why)
    while True:
        text = _line(console, "0")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if 0 <= number < math.inf:
            return number
        _say_wrong(console, text, "a number of 0 or more")


def _say(console: Console, question: str, *more: str) -> None:
    console.print(f"\n{question}", style="bold", markup=False)
    for line in more:
        console.print(line, markup=False, soft_wrap=True)


def _say_wrong(console: Console, text: str, allowed: str) -> None:
    console.print(f"{text!r} cannot be used: {allowed}.", markup=False, soft_wrap=True)


def _line(console: Console, default: str) -> str:
    console.print(f"[{default}] > ", markup=False, end="")
    return typed_line().strip() or default
