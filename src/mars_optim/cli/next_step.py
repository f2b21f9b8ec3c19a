"""``mars`` without arguments: the next step in this folder, on one screen."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._version import __version__
from .folder import Found, FoundCanary, FoundPilot, look

ASKS = "Does a MARS optimizer train your model with fewer tokens? Measure it."
OTHERS = 4  # further pilots that are named
_ORDER = {"running": 0, "gone": 1, "stopped": 1, "waiting": 2, "ended": 2}


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what it is good for."""

    command: str
    why: str


_GUARD = Step(
    "guard = mars_optim.Guard(model, optimizer, ...)",
    "in your script: goes back to AdamW by itself if the loss does (docs/production.md)",
)


@dataclass(frozen=True, slots=True)
class Advice:
    """The standing of a folder, and its commands in their order; the first one is the next
    step."""

    here: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


DEMO = Step(
    "mars pilot",
    "trains a small built-in model and shows a complete report; needs nothing of yours",
)
INIT = Step("mars init", "asks what you train and writes a plan for the comparison")


def print_next_step() -> None:
    """Print the next step in this folder."""
    found = look(Path())
    lines = screen(next_step(found), complete=importlib.util.find_spec("cyclopts") is not None)
    sys.stdout.write("\n".join(lines) + "\n")


def screen(advice: Advice, *, complete: bool) -> list[str]:
    """The advice as lines of text.

    Args:
        advice: to show.
        complete: whether the packages of the command line are installed.
    """
    steps: Sequence[Step] = advice.steps
    if not complete:
        install = "pip install 'mars-optim[pilot]'"
        steps = (Step(install, "the commands below need more packages"), *steps)
    lines = [f"mars {__version__}. {ASKS}", "", advice.here]
    for name, step in zip(("Next:", *["Then:"] * len(steps)), steps, strict=False):
        lines += ["", f"  {name}  {step.command}", f"         {step.why}"]
    if advice.notes:
        lines += ["", *advice.notes]
    return [*lines, "", "All commands: mars --help"]


def next_step(found: Found) -> Advice:
    """The next step, by what is found."""
    notes = tuple(f"Note: {line}." for line in found.damaged)
    if found.unreadable:
        here = f"This folder cannot be read: {found.unreadable}."
        return Advice(here, (Step("mars --help", "the list of commands"),))
    pilots = sorted(found.pilots, key=lambda pilot: (_ORDER[pilot.state], -pilot.time))
    unfinished = bool(pilots) and _ORDER[pilots[0].state] < _ORDER["ended"]
    if found.canaries and not unfinished:
        advice, others = _of_canary(found.canaries[-1]), pilots
    elif pilots:
        advice, others = _of_pilot(pilots[0]), pilots[1:]
    else:
        return _at_the_start(found, notes)
    return Advice(advice.here, advice.steps, advice.notes + _also(others) + notes)


def _at_the_start(found: Found, notes: tuple[str, ...]) -> Advice:
    if found.plans:
        plan = shlex.quote(found.plans[0])
        more = found.plans[1:]
        also = (f"Other plans here: {', '.join(more[:OTHERS])}.",) if more else ()
        return Advice(
            f"Here is a plan for a comparison: {found.plans[0]}.",
            (
                Step(f"mars plan --plan {plan}", "measures how long it takes, and what it costs"),
                Step(f"mars pilot --plan {plan}", "trains, compares and writes a report"),
            ),
            also + notes,
        )
    if found.mappings:
        step = Step(f"mars report --from {shlex.quote(found.mappings[0])}", "writes the report")
        return Advice(f"{found.mappings[0]} names runs that exist already.", (step,), notes)
    if found.scripts:
        script = found.scripts[0]
        others = f" (and {len(found.scripts) - 1} more)" if len(found.scripts) > 1 else ""
        why = "shows what MARS would do with each of its parameters, and what would not work"
        return Advice(
            f"Here is a script that builds an optimizer: {script}{others}.",
            (Step(f"mars doctor {shlex.quote(script)}", why), INIT),
            notes,
        )
    return Advice("This folder has no training job yet.", (INIT, DEMO), notes)


def _of_pilot(pilot: FoundPilot) -> Advice:
    folder, option = shlex.quote(pilot.folder), _out(pilot.folder)
    damage = (f"Note: {pilot.damaged}.",) if pilot.damaged else ()
    goes_on = Step(f"mars pilot{option}", "continues where it stopped; give your --workers again")
    if pilot.state == "running":
        watch = Step(f"mars watch {folder}", "shows the progress; Ctrl-C ends only the watching")
        return Advice(
            f"The pilot in {pilot.folder} is running{_progress(pilot)}.", (watch,), damage
        )
    if pilot.state in ("gone", "stopped"):
        return Advice(
            f"The pilot in {pilot.folder} stopped before its end{_progress(pilot)}.",
            (goes_on,),
            damage,
        )
    if pilot.damaged:
        remake = Step(f"mars pilot{option}", "repeats the missing runs; finished runs are kept")
        return Advice(f"{pilot.damaged}.", (remake,))
    report = Step(f"mars report {folder}", f"writes {Path(pilot.folder, 'report.html')} again")
    if pilot.verdict is None:
        if pilot.state == "ended":
            return Advice(f"The pilot in {pilot.folder} has ended.", (report,))
        return Advice(f"The pilot in {pilot.folder} has no verdict yet.", (goes_on, report))
    here = f"The pilot in {pilot.folder} has ended. {pilot.sentence}"
    if pilot.verdict == "go":
        here = f"{here} {pilot.not_yet}".rstrip()
    if pilot.verdict == "go" and pilot.canary_done:
        return Advice(f"{here} Its canary says go on.", (_GUARD, report))
    if pilot.verdict == "go" and pilot.by_hand:
        why = "has the conditions of the canary, which is by hand for this job (docs/production.md)"
        return Advice(here, (Step(report.command, why),))
    if pilot.verdict == "go":
        plan = shlex.quote(str(Path(pilot.folder, "plan.toml")))
        canary = Step(
            f"mars canary CHECKPOINT --plan {plan}",
            "continues your own AdamW checkpoint on a copy (docs/production.md)",
        )
        return Advice(here, (canary, report))
    if pilot.verdict == "no-go":
        return Advice(f"{here} Stay with what you have.", (report,))
    why = "the report says what would decide it, such as more seeds"
    return Advice(here, (Step(report.command, why),))


def _of_canary(canary: FoundCanary) -> Advice:
    again = "mars canary CHECKPOINT" + _out(canary.folder, "mars-canary")
    if not canary.recommendation:
        told = canary.damaged or f"The canary in {canary.folder} has no result yet"
        return Advice(f"{told}.", (Step(again, "your command continues where it stopped"),))
    here = f"The canary in {canary.folder} has ended. {canary.sentence}"
    if canary.recommendation == "production":
        return Advice(here, (_GUARD,))
    if canary.recommendation == "back":
        why = "tries other settings; AdamW stays until then"
        return Advice(here, (Step("mars pilot --out another-pilot", why),))
    why = "more data orders; finished ones are kept"
    return Advice(here, (Step(f"{again} --seeds 1 ... --seeds 8", why),))


def _also(pilots: Sequence[FoundPilot]) -> tuple[str, ...]:
    """A line for each further pilot."""
    lines = [f"Also here: {p.folder}, {p.verdict or _STATES[p.state]}." for p in pilots[:OTHERS]]
    if len(pilots) > OTHERS:
        lines.append(f"And {len(pilots) - OTHERS} more pilots.")
    return tuple(lines)


_STATES = {
    "running": "running",
    "gone": "stopped before its end",
    "stopped": "stopped before its end",
    "waiting": "without a verdict",
    "ended": "ended",
}


def _progress(pilot: FoundPilot) -> str:
    done = f", {pilot.runs[0]} of {pilot.runs[1]} runs done" if pilot.runs else ""
    return done + (f" ({pilot.share:.0%})" if pilot.share is not None else "")


def _out(folder: str, default: str = "mars-pilot") -> str:
    return "" if folder == default else f" --out {shlex.quote(folder)}"
