"""The runs of a study, and the small committed table in which they outlast their machine."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

from mars_optim.experiment.executors.runnable import RunnableTask
from mars_optim.experiment.executors.worker import outcome_of
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import Outcome

from .output import UserError
from .rate_search import DIVERGED

Job = TypeVar("Job")
Result = TypeVar("Result")


class Row(NamedTuple):
    """One finished run; ``data`` is the beginning of the hash of the text."""

    arm: str
    width: int
    layers: int
    parameters: int
    tokens: int
    seed: int
    rate: float
    loss: float
    data: str


TYPES = (str, int, int, int, int, int, float, float, str)


def read(path: Path) -> list[Row]:
    """The rows of a table; none where there is no file.

    Raises:
        UserError: naming the line that is no row.
    """
    if not path.exists():
        return []
    head, *lines = list(csv.reader(path.read_text().splitlines())) or [[]]
    if tuple(head) != Row._fields:
        raise UserError(f"{path}: its first line must be {','.join(Row._fields)}")
    rows = []
    for number, cells in enumerate(lines, 2):
        try:
            rows.append(Row(*(kind(c) for kind, c in zip(TYPES, cells, strict=True))))
        except ValueError:
            raise UserError(f"{path}, line {number} is no run: mend it or take it out") from None
    return rows


def append(path: Path, row: Row) -> None:
    """Add a row; the file is whole at any moment."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *read(path), row])
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(text.getvalue())
    os.replace(whole, path)


def check_data(path: Path, rows: Iterable[Row], data: str) -> None:
    """Refuse to go on with a table on another text.

    Raises:
        UserError: naming both.
    """
    for row in rows:
        if row.data != data:
            raise UserError(
                f"{path} was made on the text {row.data}, and this Python's is {data}: losses "
                "cannot be compared; go on with the Python of the table, or in another --tables"
            )


@functools.lru_cache
def task_of(path: str, out: str) -> RunnableTask:
    """The task of a plan's file, loaded once in a process."""
    return RunnableTask(load_plan(Path(path)), Path(out), threads=1)


def loss_of(path: str, out: str, spec: RunSpec) -> float:
    """Make a run, or read it if it is there."""
    outcome = outcome_of(Path(out), spec) or task_of(path, out).run(spec, lambda step: None)
    return loss_of_outcome(outcome)


def loss_of_outcome(outcome: Outcome) -> float:
    """Its last validation loss; infinite if it diverged."""
    return DIVERGED if outcome.final_loss is None else outcome.final_loss


def carry_out(
    due: Callable[[], list[Job]],
    make: Callable[[Job], Result],
    keep: Callable[[Job, Result], None],
    workers: int,
) -> None:
    """Make all runs that are due, ``workers`` at a time, until there are none."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while jobs := due():
            made = {pool.submit(make, job): job for job in jobs}
            for done in as_completed(made):
                keep(made[done], done.result())
