"""Which of the user's files is which run: by where arm and seed stand in its path or name."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import UserError, check_text, did_you_mean
from ..plan.cost import CostPlan
from ..plan.decision import DecisionPlan
from ..plan.table import Number, Whole, option, part, table
from ..plan.target import TargetPlan
from .losses import step_of
from .metric_files import headings, read_rows
from .recorder import Columns
from .rows import Row

NUMBER = r"[0-9]+"
PARTS = {
    "arm": r"[A-Za-z0-9][A-Za-z0-9._-]*?",
    "seed": NUMBER,
    "steps": NUMBER,
    "lr": r"[0-9.]+(?:e[+-]?[0-9]+)?",
}
BETWEEN = " - "  # run and metric in the heading of a W&B chart's export
SPREAD = ("__MIN", "__MAX")


@table
class Named:
    """One run, said by hand."""

    file: str
    arm: str
    seed: Whole = option(0, "", ge=0)
    steps: Whole = option(0, "0 for the last one in the file", ge=0)
    lr: Number = option(0.0, "0 for not known", ge=0.0)


@table
class RunsPlan:
    """Which runs there are, and what is compared (``mars init runs`` writes one)."""

    baseline: str = option("adamw", "the arm in use today")
    candidate: str = option("mars-adamw", "the arm that the verdict is about")
    files: tuple[str, ...] = option((), "paths with {arm}, {seed}, {steps}, {lr} and *")
    charts: tuple[str, ...] = option((), 'CSV files with a column for every run, "NAME - METRIC"')
    names: str = option("{arm}-seed{seed}-steps{steps}", "names of runs in charts and folders")
    run: tuple[Named, ...] = option((), "or one by one")
    columns: Columns = field(default_factory=Columns)
    decision: DecisionPlan = field(default_factory=DecisionPlan)
    cost: CostPlan = field(default_factory=CostPlan)
    target: TargetPlan = part(TargetPlan, "The job that is paid for.", sparse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run that exists.

    Args:
        source: file, or file and column, for messages.
        arm: its name.
        seed: of its weights and data.
        steps: of the whole run; 0 if only its rows tell.
        lr: peak learning rate; 0 if not known.
        rows: as read, by their steps.
        name: of the run in a chart.
        gaps: NaN may stand for no value, for nothing else in the file does.
    """

    source: str
    arm: str
    seed: int
    steps: int
    lr: float
    rows: list[Row]
    name: str = ""
    gaps: bool = False


def find_runs(plan: RunsPlan, folder: Path) -> list[Found]:
    """Read all runs that a plan names.

    Args:
        plan: which.
        folder: from where its paths are reckoned.

    Raises:
        UserError: if a pattern says too little or fits nothing, or a file cannot be read.
    """
    found = [run for pattern in plan.files for run in _by_pattern(pattern, plan, folder)]
    found += _together([run for chart in plan.charts for run in _in_chart(folder / chart, plan)])
    for named in plan.run:
        path = folder / named.file
        if not path.exists():
            raise UserError(f"{path} does not exist")
        said = {key: getattr(named, key) for key in PARTS}
        found.append(Found(source=str(path), rows=read_rows(path, plan.columns.losses), **said))
    if not found:
        raise UserError(
            "no runs are named: give files, charts or [[run]] (`mars init runs` writes an example)"
        )
    return [replace(run, rows=_by_step(run.rows, plan.columns.step)) for run in found]


def _by_step(rows: list[Row], column: str) -> list[Row]:
    """The rows in the order of their steps; one without a step stays behind the one before it."""
    keyed: list[tuple[float, Row]] = []
    last = 0.0
    for row in rows:
        with contextlib.suppress(UserError):  # the recorder says what is wrong with it
            step = step_of(row, column)
            last = last if step is None else step
        keyed.append((last, row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _by_pattern(pattern: str, plan: RunsPlan, folder: Path) -> Iterator[Found]:
    whole = str(folder / pattern)
    if Path(whole).is_dir():
        whole = str(Path(whole, "**", plan.names + "*"))
    parts = compiled(whole)
    paths = sorted(glob.glob(re.sub(r"\{\w+\}", "*", whole), recursive=True))
    fitting = [(path, match) for path in paths if (match := parts.fullmatch(path))]
    if not fitting:
        raise UserError(
            f"{whole} fits no file" + (f" (though not for {paths[0]})" if paths else "")
        )
    for path, match in fitting:
        check_text(path, "this file's name")
        rows = read_rows(Path(path), plan.columns.losses)
        yield Found(source=path, rows=rows, **_said(match))


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern with {arm} and so on as a regular expression.

    Raises:
        UserError: for an unknown part, or without {arm} and {seed}.
    """
    text, seen = "", set[str]()
    for piece in re.split(r"(\{\w*\}|\*\*/|\*)", pattern):
        name = piece[1:-1]
        if piece.startswith("{"):
            if name not in PARTS:
                hint = did_you_mean(name, PARTS) or f"; known: {', '.join(PARTS)}"
                raise UserError(f"{pattern!r}: unknown part {piece}{hint}")
            text += f"(?P={name})" if name in seen else f"(?P<{name}>{PARTS[name]})"
            seen.add(name)
        else:
            text += {"**/": "(?:.*/)?", "*": "[^/]*"}.get(piece) or re.escape(piece)
    for name in ("arm", "seed"):
        if name not in seen:
            raise UserError(
                f"{pattern!r} does not tell the runs apart: it needs {{{name}}}, as in "
                "'runs/{arm}-seed{seed}-steps{steps}.csv'; or list the runs one by one "
                "in a file that `mars init runs` writes"
            )
    return re.compile(text)


def _said(match: re.Match[str]) -> dict[str, Any]:
    """Arm, seed and the like that a path or a name states."""
    said = match.groupdict()
    numbers = {"steps": int(said.get("steps") or 0), "lr": float(said.get("lr") or 0.0)}
    return {"arm": said["arm"], "seed": int(said["seed"]), **numbers}


def _in_chart(path: Path, plan: RunsPlan) -> Iterator[Found]:
    """Runs of a W&B export: steps in the first column, then one for every run and metric."""
    names, heading = compiled(plan.names), headings(path)
    columns: dict[str, list[tuple[str, str]]] = {}
    for column in heading[1:]:
        name, between, metric = column.rpartition(BETWEEN)
        if between and not metric.endswith(SPREAD):
            columns.setdefault(name, []).append((column, metric))
    fitting = {name: match for name in columns if (match := names.fullmatch(name))}
    if not fitting:
        raise UserError(
            f"{path}: no column has a heading 'NAME - METRIC' with a name like "
            f"{plan.names!r}; it has {', '.join(map(repr, heading[1:4]))} ...: set names"
        )
    rows = read_rows(path, [heading[0], *(c for name in fitting for c, _ in columns[name])])
    gaps = all(len(row) == len(heading) for row in rows)  # no cell is empty: NaN may stand for it
    for name, match in fitting.items():
        mine = [
            Row(
                ({plan.columns.step: row[heading[0]]} if heading[0] in row else {})
                | {metric: row[column] for column, metric in columns[name] if column in row},
                row.place,
            )
            for row in rows
        ]
        metrics = {metric for _, metric in columns[name]}
        kept = [row for row in mine if metrics & row.keys()]
        source = f"{path} ({name})"
        yield Found(source=source, rows=kept, name=name, gaps=gaps, **_said(match))


def _together(found: list[Found]) -> list[Found]:
    """Each run of the charts once: every metric has a chart of its own."""
    runs: dict[tuple[str, str, int, int, float], Found] = {}
    for run in found:
        key = (run.name, run.arm, run.seed, run.steps, run.lr)
        if (first := runs.setdefault(key, run)) is not run:
            runs[key] = replace(first, rows=first.rows + run.rows, gaps=first.gaps or run.gaps)
    return list(runs.values())
