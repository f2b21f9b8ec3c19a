"""The page of a folder of runs: curves, sweep, comparison; survey -> :class:`Page`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from ..._version import __version__
from ..analysis import ArmResult, Experiment, Interval, Survey
from ..analysis.folder import CONFIDENCE
from ..plan.recipe import Ours, Published
from .document import Block, Bullets, Cell, Page, Picture, Section, Table, Text, Tile
from .messages import Messages
from .sections import arm_cells, curves, sweep
from .verdict_json import interval_data

REPORT_FORMAT = 1


def build_runs_page(found: Survey, say: Messages, out: Path) -> Page:
    """The page in the language of ``say``.

    Args:
        found: in the folder.
        say: texts of the language.
        out: the folder, for the commands that the page names.
    """
    first = found.experiments[0]
    code, values = lead(first)
    arms = dict.fromkeys(arm.name for e in found.experiments for arm in e.arms)
    several = len(found.experiments) > 1
    sections = [_section(e, say, i, several) for i, e in enumerate(found.experiments)]
    return Page(
        lang=say.lang,
        question=first.title or say("runs.of", task=first.task),
        decision="runs",
        title=say("runs.title", arms=len(arms), runs=sum(e.runs for e in found.experiments)),
        lead=say(code, **values),
        tiles=_tiles(first, say),
        reasons=tuple(_notes(found, say)),
        reasons_title=say("runs.keep-in-mind"),
        following="",
        sections=(*sections, _repeat(say, out)),
        footer=say("runs.footer", version=__version__),
    )


def lead(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    """Result of the first experiment, as a code and its values."""
    baseline, best = experiment.baseline, experiment.best
    if best is None or best.mean_loss is None:
        return "runs.lead.diverged", {}
    values: dict[str, Any] = dict(arm=best.name, loss=best.mean_loss, lr=best.lr)
    if len(experiment.arms) == 1:
        return "runs.lead.one", values | dict(tokens=experiment.unit_tokens)
    if best is baseline:
        return "runs.lead.baseline", values
    difference, values = best.loss_difference, values | dict(baseline=baseline.name)
    if difference is None:
        return "runs.lead.unpaired", values
    values |= dict(size=abs(difference.mean), pairs=difference.n)
    if difference.n < 2:
        return "runs.lead.pair", values
    values |= dict(low=difference.low, high=difference.high, confidence=CONFIDENCE)
    return ("runs.lead.lower" if difference.high < 0 else "runs.lead.open"), values


def _tiles(experiment: Experiment, say: Messages) -> tuple[Tile, ...]:
    best = experiment.best
    runs = say("run.runs", n=experiment.runs)
    total = sum(experiment.seconds[a.name] * len(a.seeds) for a in experiment.arms)
    time = Tile(say("runs.tile.time"), say.duration(total), runs)
    if best is None:
        return (time,)
    at = say("runs.at", arm=best.name, lr=best.lr)
    tiles = [Tile(say("runs.tile.lowest"), arm_cells.loss(best.mean_loss, say), at)]
    if len(experiment.arms) > 1:
        difference = best.loss_difference
        tiles.append(
            Tile(
                say("runs.tile.difference", baseline=experiment.baseline.name),
                say.signed(difference.mean) if difference else say("none"),
                _ends(difference, say),
            )
        )
    tiles.append(Tile(say("runs.tile.published"), *_published_tile(experiment, best, say)))
    return (*tiles, time)


def _published_tile(experiment: Experiment, arm: ArmResult, say: Messages) -> tuple[str, str]:
    known = experiment.published.get(arm.name)
    if known is None or known.loss is None:
        return say("none"), say("runs.not-published")
    if experiment.changed:
        return f"{known.loss:g}", say("runs.unchanged")
    return f"{known.loss:g}", say("runs.ours-less", difference=(arm.mean_loss or 0) - known.loss)


def _ends(interval: Interval | None, say: Messages) -> str:
    if interval is None:
        return ""
    if not math.isfinite(interval.low):
        return say("one-pair")
    return say.between(interval, say.signed)


def _notes(found: Survey, say: Messages) -> list[str]:
    """Limits of these numbers, over all experiments."""
    notes = []
    arms = [arm for e in found.experiments for arm in e.arms]
    for code, some in (
        ("runs.note.edge", [a for a in arms if a.at_edge]),
        ("runs.note.one-rate", [a for a in arms if len(a.trials) == 1]),
        ("runs.note.chosen", [a for a in arms if len(a.trials) > 1]),
    ):
        if some:
            names = say.listed(dict.fromkeys(a.name for a in some))
            notes.append(say(code, arms=names))
    changed = dict.fromkeys(text for e in found.experiments for text in e.changed)
    if changed:
        notes.append(say("runs.note.changed", changes="; ".join(changed)))
    unfinished = [*(r for e in found.experiments for r in e.unfinished), *found.unfinished]
    if unfinished:
        notes.append(say("runs.note.unfinished", runs=say.listed(unfinished)))
    if found.damaged:
        notes.append(say("runs.note.damaged", runs=say.listed(found.damaged)))
    return notes


def _section(experiment: Experiment, say: Messages, number: int, several: bool) -> Section:
    """One experiment; names of figures and colours carry its number from the second on."""
    tail, arms = f"-{number + 1}" if number else "", experiment.arms
    seeds = sorted({s.seed for arm in arms for s in arm.seeds})
    blocks: list[Block] = [
        Text(_what(experiment, say)),
        comparison_table(experiment, say),
        curves.picture(experiment, say, tail=tail, caption="figure.runs.curves.caption"),
    ]
    if any(len(arm.trials) > 1 for arm in arms):
        rates = sweep.picture(experiment, say, name=f"rates{tail}", code="figure.runs.sweep")
        blocks.append(rates)
    blocks += [arm_cells.seeds_table(arms, seeds, say), *_sources(experiment, say)]
    title = experiment.title or say("runs.of", task=experiment.task)
    title = title if several else say("section.evidence")
    section = Section(f"evidence{tail}", title, tuple(blocks))
    return _tagged(section, f"#{number}") if number else section


def _what(experiment: Experiment, say: Messages) -> str:
    text = say(
        "runs.what",
        task=experiment.task,
        parameters=experiment.parameters,
        steps=experiment.steps,
        tokens=experiment.unit_tokens,
    )
    known = experiment.environment
    named = {"torch": "torch "}
    keys = [key for key in ("device", "system", "torch", "date") if key in known]
    machine = ", ".join(f"{named.get(key, '')}{known[key]}" for key in keys)
    return text + (say("run.machine", machine=machine) if machine else "")


def comparison_table(experiment: Experiment, say: Messages) -> Table:
    """A row per arm: rate, loss, difference, scores, time, memory, and what was published."""
    scores = arm_cells.score_columns(experiment.arms)
    told = ("runs.published", *(["runs.recorded"] if experiment.ours else []))
    return Table(
        say("table.runs", baseline=experiment.baseline.name),
        (
            *say.each("arm", "lr", "mean-loss", *told, "difference"),
            *(arm_cells.score_name(key, say) for key in scores),
            *say.each("runs.time", "state"),
        ),
        tuple(_row(experiment, arm, scores, say) for arm in experiment.arms),
    )


def _row(
    experiment: Experiment, arm: ArmResult, scores: list[str], say: Messages
) -> tuple[Cell, ...]:
    rates = say("runs.rates-at-edge" if arm.at_edge else "runs.rates", n=len(arm.trials))
    difference, ours = arm.loss_difference, experiment.ours
    return (
        Cell(arm.name, say(f"role.{arm.role}"), arm=arm.name),
        Cell(f"{arm.lr:.3g}", rates),
        Cell(arm_cells.loss(arm.mean_loss, say), arm_cells.seeds(arm, say)),
        arm_cells.told(experiment.published.get(arm.name), say),
        *([arm_cells.told(ours.get(arm.name), say)] if ours else []),
        Cell(say.signed(difference.mean) if difference else say("none"), _ends(difference, say)),
        *(arm_cells.score(arm, key, say) for key in scores),
        Cell(say.duration(experiment.seconds[arm.name])),
        arm_cells.memory(arm, say),
    )


def _sources(experiment: Experiment, say: Messages) -> list[Block]:
    """Where the published numbers stand, arm by arm, and what qualifies ours."""
    told = [
        say("runs.source", arm=name, text=": ".join(filter(None, (known.source, known.note))))
        for name, known in experiment.published.items()
    ]
    blocks: list[Block] = []
    if told:
        blocks.append(Bullets(tuple(told), say("runs.sources")))
    recorded = [
        say(
            "runs.source",
            arm=name,
            text=", ".join(filter(None, (e.machine, e.date, e.command, e.note))),
        )
        for name, e in experiment.ours.items()
    ]
    if recorded:
        blocks.append(Bullets(tuple(recorded), say("runs.recorded-how")))
    return blocks


def _repeat(say: Messages, out: Path) -> Section:
    return Section("repeat", say("section.repeat"), (Text(say("runs.repeat", out=out)),))


def _tagged(section: Section, tag: str) -> Section:
    """The same with the number in each arm's key for colours: names may come again."""

    def table(t: Table) -> Table:
        rows = tuple(
            tuple(dataclasses.replace(c, arm=c.arm + tag) if c.arm else c for c in row)
            for row in t.rows
        )
        return dataclasses.replace(t, rows=rows)

    def block(b: Block) -> Block:
        if isinstance(b, Table):
            return table(b)
        return dataclasses.replace(b, data=table(b.data)) if isinstance(b, Picture) else b

    return dataclasses.replace(section, blocks=tuple(map(block, section.blocks)))


def runs_data(found: Survey) -> dict[str, Any]:
    """report.json: the numbers, for programs."""
    return {
        "format": REPORT_FORMAT,
        "mars_optim": __version__,
        "experiments": [_experiment_data(e) for e in found.experiments],
        "unfinished": list(found.unfinished),
        "damaged": list(found.damaged),
    }


def _experiment_data(experiment: Experiment) -> dict[str, Any]:
    return {
        "title": experiment.title,
        "task": experiment.task,
        "source": experiment.source,
        "changed": list(experiment.changed),
        "parameters": experiment.parameters,
        "steps": experiment.steps,
        "tokens_per_run": experiment.unit_tokens,
        "runs": experiment.runs,
        "unfinished": list(experiment.unfinished),
        "baseline": experiment.baseline.name,
        "arms": {
            arm.name: {
                "lr": arm.lr,
                "lr_at_edge": arm.at_edge,
                "trials": [dataclasses.asdict(trial) for trial in arm.trials],
                "final_losses": {str(s.seed): s.loss for s in arm.seeds},
                "mean_loss": arm.mean_loss,
                "loss_difference": interval_data(arm.loss_difference),
                "diverged": arm.diverged,
                "scores": dict(arm.scores),
                "seconds": experiment.seconds[arm.name],
                "state_bytes_per_parameter": arm.bytes_per_parameter,
                "published": _plain(experiment.published.get(arm.name)),
                "ours": _plain(experiment.ours.get(arm.name)),
            }
            for arm in experiment.arms
        },
        "environment": dict(experiment.environment),
    }


def _plain(known: Published | Ours | None) -> dict[str, Any] | None:
    return None if known is None else dataclasses.asdict(known)
