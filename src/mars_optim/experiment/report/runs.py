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
from .evidence import (
    curves_picture,
    loss,
    score_cell,
    score_columns,
    score_name,
    sweep_picture,
    told_cell,
)
from .messages import Messages
from .verdict_json import interval_data

REPORT_FORMAT = 1


def build_runs_page(found: Survey, words: Messages, out: Path) -> Page:
    """The page in the words' language.

    Args:
        found: in the folder.
        words: of the language.
        out: the folder, for the commands that the page names.
    """
    first = found.experiments[0]
    code, values = lead(first)
    arms = dict.fromkeys(arm.name for e in found.experiments for arm in e.arms)
    several = len(found.experiments) > 1
    sections = [_section(e, words, i, several) for i, e in enumerate(found.experiments)]
    return Page(
        lang=words.lang,
        question=first.title or words("runs.of", task=first.task),
        decision="runs",
        title=words("runs.title", arms=len(arms), runs=sum(e.runs for e in found.experiments)),
        lead=words(code, **values),
        tiles=_tiles(first, words),
        reasons=tuple(_notes(found, words)),
        reasons_title=words("runs.keep-in-mind"),
        following="",
        sections=(*sections, _repeat(words, out)),
        footer=words("runs.footer", version=__version__),
    )


def lead(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    """What the first experiment says, as a code and its values."""
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


def _tiles(experiment: Experiment, words: Messages) -> tuple[Tile, ...]:
    best = experiment.best
    runs = words("run.runs", n=experiment.runs)
    total = sum(experiment.seconds[a.name] * len(a.seeds) for a in experiment.arms)
    time = Tile(words("runs.tile.time"), words.duration(total), runs)
    if best is None:
        return (time,)
    at = words("runs.at", arm=best.name, lr=best.lr)
    tiles = [Tile(words("runs.tile.lowest"), loss(best.mean_loss, words), at)]
    if len(experiment.arms) > 1:
        difference = best.loss_difference
        tiles.append(
            Tile(
                words("runs.tile.difference", baseline=experiment.baseline.name),
                words.signed(difference.mean) if difference else words("none"),
                _ends(difference, words),
            )
        )
    tiles.append(Tile(words("runs.tile.published"), *_published_tile(experiment, best, words)))
    return (*tiles, time)


def _published_tile(experiment: Experiment, arm: ArmResult, words: Messages) -> tuple[str, str]:
    known = experiment.published.get(arm.name)
    if known is None or known.loss is None:
        return words("none"), words("runs.not-published")
    if experiment.changed:
        return f"{known.loss:g}", words("runs.unchanged")
    return f"{known.loss:g}", words("runs.ours-less", difference=(arm.mean_loss or 0) - known.loss)


def _ends(interval: Interval | None, words: Messages) -> str:
    if interval is None:
        return ""
    if not math.isfinite(interval.low):
        return words("one-pair")
    return words.between(interval, words.signed)


def _notes(found: Survey, words: Messages) -> list[str]:
    """What limits these numbers, over all experiments."""
    notes, separator = [], words("list-separator")
    arms = [arm for e in found.experiments for arm in e.arms]
    for code, some in (
        ("runs.note.edge", [a for a in arms if a.at_edge]),
        ("runs.note.one-rate", [a for a in arms if len(a.trials) == 1]),
        ("runs.note.chosen", [a for a in arms if len(a.trials) > 1]),
    ):
        if some:
            names = separator.join(dict.fromkeys(a.name for a in some))
            notes.append(words(code, arms=names))
    changed = dict.fromkeys(text for e in found.experiments for text in e.changed)
    if changed:
        notes.append(words("runs.note.changed", changes="; ".join(changed)))
    unfinished = [*(r for e in found.experiments for r in e.unfinished), *found.unfinished]
    if unfinished:
        notes.append(words("runs.note.unfinished", runs=separator.join(unfinished)))
    if found.damaged:
        notes.append(words("runs.note.damaged", runs=separator.join(found.damaged)))
    return notes


def _section(experiment: Experiment, words: Messages, number: int, several: bool) -> Section:
    """One experiment; names of figures and colours carry its number from the second on."""
    from .figures import curves, svg_element, sweep  # matplotlib is slow to import

    tail = f"-{number + 1}" if number else ""
    curve_svg = svg_element(f"curves{tail}", curves(experiment, words, close=False)) + svg_element(
        f"ends{tail}", curves(experiment, words, close=True)
    )
    caption = "figure.runs.curves.caption"
    blocks: list[Block] = [
        Text(_what(experiment, words)),
        comparison_table(experiment, words),
        curves_picture(experiment, words, curve_svg, name=f"curves{tail}", caption=caption),
    ]
    if any(len(arm.trials) > 1 for arm in experiment.arms):
        svg = svg_element(f"rates{tail}", sweep(experiment, words, "figure.runs.sweep.x"))
        blocks.append(
            sweep_picture(
                experiment,
                words,
                svg,
                name=f"rates{tail}",
                caption="figure.runs.sweep.caption",
                data="figure.runs.sweep.data",
            )
        )
    blocks += [_seeds_table(experiment, words), *_sources(experiment, words)]
    title = experiment.title or words("runs.of", task=experiment.task)
    title = title if several else words("section.evidence")
    section = Section(f"evidence{tail}", title, tuple(blocks))
    return _tagged(section, f"#{number}") if number else section


def _what(experiment: Experiment, words: Messages) -> str:
    text = words(
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
    return text + (words("run.machine", machine=machine) if machine else "")


def comparison_table(experiment: Experiment, words: Messages) -> Table:
    """A row per arm: rate, loss, difference, scores, time, memory, and what was published."""
    scores = score_columns(experiment.arms)
    told = ("runs.published", *(["runs.recorded"] if experiment.ours else []))
    return Table(
        words("table.runs", baseline=experiment.baseline.name),
        (
            *(words(column) for column in ("arm", "lr", "mean-loss", *told, "difference")),
            *(score_name(key, words) for key in scores),
            *(words(column) for column in ("runs.time", "state")),
        ),
        tuple(_row(experiment, arm, scores, words) for arm in experiment.arms),
    )


def _row(
    experiment: Experiment, arm: ArmResult, scores: list[str], words: Messages
) -> tuple[Cell, ...]:
    none, trials = words("none"), len(arm.trials)
    rates = words("runs.rates-at-edge" if arm.at_edge else "runs.rates", n=trials)
    seeds = words("seeds", n=len(arm.seeds))
    if arm.diverged:
        seeds = words("seeds-diverged", n=len(arm.seeds), diverged=arm.diverged)
    difference = arm.loss_difference
    recorded = [told_cell(experiment.ours.get(arm.name), words)] if experiment.ours else []
    return (
        Cell(arm.name, words(f"role.{arm.role}"), arm=arm.name),
        Cell(f"{arm.lr:.3g}", rates),
        Cell(loss(arm.mean_loss, words), seeds),
        told_cell(experiment.published.get(arm.name), words),
        *recorded,
        Cell(
            words.signed(difference.mean) if difference else none,
            _ends(difference, words),
        ),
        *(score_cell(arm, key, words) for key in scores),
        Cell(words.duration(experiment.seconds[arm.name])),
        Cell(f"{arm.bytes_per_parameter:.1f} B" if arm.bytes_per_parameter else none),
    )


def _seeds_table(experiment: Experiment, words: Messages) -> Table:
    """Final loss of every seed at the rate that was chosen."""
    seeds = sorted({s.seed for arm in experiment.arms for s in arm.seeds})
    losses = {(arm.name, s.seed): s.loss for arm in experiment.arms for s in arm.seeds}
    return Table(
        words("table.seeds"),
        (words("seed"), *(arm.name for arm in experiment.arms)),
        tuple(
            (
                Cell(str(seed)),
                *(
                    Cell(
                        loss(losses[arm.name, seed], words)
                        if (arm.name, seed) in losses
                        else words("missing")
                    )
                    for arm in experiment.arms
                ),
            )
            for seed in seeds
        ),
    )


def _sources(experiment: Experiment, words: Messages) -> list[Block]:
    """Where the published numbers stand, arm by arm, and what qualifies ours."""
    told = [
        words("runs.source", arm=name, text=": ".join(filter(None, (known.source, known.note))))
        for name, known in experiment.published.items()
    ]
    blocks: list[Block] = []
    if told:
        blocks.append(Bullets(tuple(told), words("runs.sources")))
    recorded = [
        words(
            "runs.source",
            arm=name,
            text=", ".join(filter(None, (e.machine, e.date, e.command, e.note))),
        )
        for name, e in experiment.ours.items()
    ]
    if recorded:
        blocks.append(Bullets(tuple(recorded), words("runs.recorded-how")))
    return blocks


def _repeat(words: Messages, out: Path) -> Section:
    return Section("repeat", words("section.repeat"), (Text(words("runs.repeat", out=out)),))


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
