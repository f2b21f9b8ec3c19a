"""Does the effect grow with size and length? ``python -m benchmarks.size_ladder PLAN``.

Every arm at the plan's own size and those of its [scale.*], with tokens in proportion to
parameters and at 4 and 16 times that. At the smallest sizes (``--tuned``) each arm's rate is
tuned on a seed of its own: a grid of factors of two, extended at an edge, and a parabola. From
there the rates are carried on by the transfer sheet: by ``task.base_width``, and by tokens^-0.32.

Small sizes come first; the largest comes last, a pair at all its lengths before the next pair.
Before the largest the command writes a forecast of it from the others, and ends: commit the
forecast, and the same command goes on. Stop it at any moment: finished runs are in two small
tables, which are to be committed, so that another machine may go on. ``--report`` makes no runs.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.pilot.run_estimate import single_spec
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.scaling.answer import as_json, forecast
from mars_optim.experiment.scaling.forecast import posterior
from mars_optim.experiment.scaling.rows import read_rows
from mars_optim.experiment.scaling.table import table
from mars_optim.optim.transfer import TOKENS

from .output import UserError, run
from .rate_search import fitted_rate, missing, octave_of, rate_of
from .size_trends import report
from .study_runs import Row, append, carry_out, check_data, loss_of, read, task_of

START = 5
"""Octave (0.032) where the first search of every arm begins."""
TUNING_SEED = 101


class Shape(NamedTuple):
    """A size of the ladder."""

    width: int
    layers: int
    parameters: int


class Design(NamedTuple):
    """Design of the study.

    Args:
        arms: all are tuned and run alike.
        sizes: from the smallest to the largest.
        step: tokens of an optimizer step.
        lengths: tokens per parameter, from the shortest on.
        reach: at how many sizes each length is run, from the smallest on.
        seeds: how many pairs at each size.
        tuned: at how many sizes rates are tuned, from the smallest on.
    """

    arms: tuple[str, ...]
    sizes: tuple[Shape, ...]
    step: int
    lengths: tuple[float, ...] = (3.0, 12.0, 48.0)
    reach: tuple[int, ...] = (4, 4, 1)
    seeds: tuple[int, ...] = (3, 3, 3, 2)
    tuned: int = 2

    def steps(self, size: int, length: float) -> int:
        """Optimizer steps of a run."""
        return max(1, round(length * self.sizes[size].parameters / self.step))

    def blocks(self) -> list[tuple[int, float]]:
        """Size and length of each block of runs, in the order in which they are made."""
        far = dict(zip(self.lengths, self.reach, strict=True))
        every = range(len(self.sizes))
        return [(size, length) for size in every for length in self.lengths if size < far[length]]


class Job(NamedTuple):
    """One run that is due; a trial chooses a rate, and is in no comparison."""

    size: int
    length: float
    arm: str
    seed: int
    rate: float
    trial: bool


class Tables(NamedTuple):
    """The finished runs: trials of rates, and compared cells."""

    trials: tuple[Row, ...] = ()
    cells: tuple[Row, ...] = ()


def due(design: Design, tables: Tables, *, foretold: bool) -> list[Job]:
    """The runs to be made next, of the first block that is not whole.

    Of the largest size they are of all its lengths, pair by pair.

    None are due when the study is whole, or the largest size is next and has no forecast.
    """
    last, blocks = len(design.sizes) - 1, design.blocks()
    for block in (block for block in blocks if block[0] < last):
        if jobs := _trials(design, tables, *block) or _cells(design, tables, *block):
            return jobs
    if not foretold:
        return []
    largest = [block for block in blocks if block[0] == last]
    trials = [job for block in largest for job in _trials(design, tables, *block)]
    cells = [] if trials else [j for block in largest for j in _cells(design, tables, *block)]
    return trials or sorted(cells, key=lambda job: job.seed)


def _trials(design: Design, tables: Tables, size: int, length: float) -> list[Job]:
    """The trials of rates that all arms' searches ask for next."""
    if size >= design.tuned:
        return []
    return [
        Job(size, length, arm, TUNING_SEED, rate_of(octave), True)
        for arm in design.arms
        for octave in missing(
            _tried(design, tables, size, length, arm), _start(design, tables, size, length, arm)
        )
    ]


def _tried(design: Design, tables: Tables, size: int, length: float, arm: str) -> dict[int, float]:
    """Losses of an arm's trials, by octave."""
    width, layers, _ = design.sizes[size]
    tokens = design.step * design.steps(size, length)
    where = arm, width, layers, tokens
    return {
        octave_of(row.rate): row.loss
        for row in tables.trials
        if (row.arm, row.width, row.layers, row.tokens) == where
    }


def _start(design: Design, tables: Tables, size: int, length: float, arm: str) -> int:
    """Where a search begins: where the sheet carries what is tuned already, else at START."""
    smaller = [(s, k) for s, k in design.blocks() if k == length and s < size]
    shorter = [(s, k) for s, k in design.blocks() if k < length and s == size]
    known = (smaller or shorter)[-1:]
    return octave_of(_carried(design, tables, known[0], (size, length), arm)) if known else START


def _carried(
    design: Design, tables: Tables, base: tuple[int, float], to: tuple[int, float], arm: str
) -> float:
    """The rate tuned at a size and length, carried by tokens; the model carries it by width."""
    more = design.steps(*to) / design.steps(*base)
    rate: float = fitted_rate(_tried(design, tables, *base, arm)) * more**TOKENS
    return rate


def rate_at(design: Design, tables: Tables, size: int, length: float, arm: str) -> float:
    """The rate of a cell: from the largest size tuned at its length, to four digits."""
    tuned = [s for s, k in design.blocks() if k == length and s <= size and s < design.tuned]
    return float(f"{_carried(design, tables, (tuned[-1], length), (size, length), arm):.4g}")


def _cells(design: Design, tables: Tables, size: int, length: float) -> list[Job]:
    """All arms of the first pair, then of the second."""
    width, layers, _ = design.sizes[size]
    tokens = design.step * design.steps(size, length)
    done = {(row.arm, row.width, row.layers, row.tokens, row.seed) for row in tables.cells}
    return [
        Job(size, length, arm, seed, rate_at(design, tables, size, length, arm), False)
        for seed in range(1, design.seeds[size] + 1)
        for arm in design.arms
        if (arm, width, layers, tokens, seed) not in done
    ]


# -- making runs


def design_of(plan: Plan, path: str, out: str) -> Design:
    """The sizes of a plan, with the parameters of their models."""
    task = task_of(path, out)
    shapes = []
    for size in plan.sizes():
        assert isinstance(size.task, GptPlan)
        with torch.device("meta"):
            model = load_task(replace(plan, task=size.task, scale={})).build_model(0)
        count = sum(p.numel() for p in model.parameters())
        shapes.append(Shape(size.task.width, size.task.layers, count))
    arms, step = tuple(plan.arms), task.task.batch_tokens * plan.training.accumulation
    return Design(arms, tuple(sorted(shapes, key=lambda s: s.parameters)), step)


def spec_of(plan: Plan, data: str, design: Design, job: Job) -> RunSpec:
    """The run of a job."""
    width, layers, _ = design.sizes[job.size]
    task = next(
        s.task
        for s in plan.sizes()
        if isinstance(s.task, GptPlan) and (s.task.width, s.task.layers) == (width, layers)
    )
    training = replace(plan.training, steps=design.steps(job.size, job.length))
    sized = replace(plan, task=task, training=training, scale={})
    return single_spec(sized, data, arm=job.arm, lr=job.rate, seed=job.seed)


def make(path: str, out: str, design: Design, job: Job) -> float:
    """The loss of a run."""
    task = task_of(path, out)
    return loss_of(path, out, spec_of(task.plan, task.fingerprint, design, job))


def row_of(design: Design, job: Job, loss: float, data: str) -> Row:
    """A finished run, for a table."""
    tokens = design.step * design.steps(job.size, job.length)
    shape = design.sizes[job.size]
    return Row(job.arm, *shape, tokens, job.seed, job.rate, loss, data)


class Paths(NamedTuple):
    """Files of the study."""

    trials: Path
    cells: Path
    forecast: Path

    @classmethod
    def below(cls, folder: Path) -> Paths:
        """Their places in a folder."""
        return cls(folder / "rates.csv", folder / "cells.csv", folder / "forecast.json")

    def read(self) -> Tables:
        """The finished runs."""
        return Tables(tuple(read(self.trials)), tuple(read(self.cells)))


def run_study(
    plan: Plan, path: str, out: str, paths: Paths, workers: int, arms: Collection[str]
) -> None:
    """Make what is due of some arms; before the largest size, write its forecast and end."""
    if unknown := set(arms) - set(plan.arms):
        raise UserError(f"--arms {min(unknown)} is not among {', '.join(plan.arms)}")
    every, data = design_of(plan, path, out), task_of(path, out).fingerprint[:12]
    design = every._replace(arms=tuple(arm for arm in every.arms if arm in arms))
    for table_path in (paths.trials, paths.cells):
        check_data(table_path, read(table_path), data)

    def keep(job: Job, loss: float) -> None:
        append(paths.trials if job.trial else paths.cells, row_of(design, job, loss, data))
        width, what = design.sizes[job.size].width, "trial" if job.trial else f"seed {job.seed}"
        text = f"width {width}, x{job.length:g} {job.arm} lr {job.rate:.4g} {what}: {loss:.4f}"
        print(text, flush=True)

    carry_out(
        lambda: due(design, paths.read(), foretold=paths.forecast.exists()),
        functools.partial(make, path, out, design),
        keep,
        workers,
    )
    if (
        not paths.forecast.exists()
        and design == every
        and len(design.sizes) - 1 in dict(design.blocks())
    ):
        write_forecast(design, plan.comparison.baseline, paths)
        print(f"{paths.forecast} foretells the largest size: commit it, then go on")


def write_forecast(design: Design, baseline: str, paths: Paths) -> None:
    """The token ratios at the largest size and its lengths, by the law of the other sizes."""
    known = table(read_rows(paths.cells), baseline)
    found, last = posterior(known), len(design.sizes) - 1
    told = [
        as_json(forecast(known, design.sizes[last].parameters, tokens, found))
        for size, length in design.blocks()
        if size == last
        for tokens in [float(design.step * design.steps(size, length))]
    ]
    paths.forecast.write_text(json.dumps(told, indent=1) + "\n")


def main(given: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.size_ladder", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("plan")
    parser.add_argument("--out", default="studies/sizes", help="of the runs (default: %(default)s)")
    parser.add_argument("--tables", type=Path, default=Path("docs/studies/sizes"))
    parser.add_argument("--workers", type=int, default=1, help="(default: 1)")
    parser.add_argument("--arms", nargs="+", help="make runs of these only (default: all)")
    parser.add_argument("--report", action="store_true", help="make no runs")
    parser.add_argument("--baseline", help="of the tables that are shown (default: the plan's)")
    parser.add_argument(
        "--trend-from", type=int, default=0, metavar="TOKENS", help="leave shorter runs out of it"
    )
    args = parser.parse_args(given)
    plan, paths = load_plan(Path(args.plan)), Paths.below(args.tables)
    if not args.report:
        run_study(plan, args.plan, args.out, paths, args.workers, args.arms or plan.arms)
    foretold = json.loads(paths.forecast.read_text()) if paths.forecast.exists() else []
    baseline = args.baseline or plan.comparison.baseline
    of_it = [told for told in foretold if told["baseline"] == baseline]
    print(report(paths.read().cells, baseline, of_it, args.trend_from))


if __name__ == "__main__":
    run(main)
