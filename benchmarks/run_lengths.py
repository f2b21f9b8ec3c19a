"""Do the arms' places change as runs get longer? ``python -m benchmarks.run_lengths PLAN``.

Every arm of a plan at every length, at its best rate and at the baseline's. All arms share one grid
of rates, a factor of two apart, so that they can be compared at equal rates. Of each arm and length
the search ends when the best rate of the first seed lies between two others; the other seeds then
get that rate, and after it its neighbours, the baseline's best rate, and rates around that one
(``--octaves``).
An arm's loss at its best rate is the lowest point of the parabola in log rate through those three,
seed by seed, so all arms are read at equal resolution and differences are paired.

Stop it at any moment: finished runs stay, and the same command goes on. They are also in a small
table beside the plan (``--table``), which is to be committed: another machine goes on from there.
``--report`` makes none.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from mars_optim.experiment.executors.worker import outcome_of
from mars_optim.experiment.pilot.run_estimate import single_spec
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.plan.task import GptPlan

from .length_report import table
from .length_search import Losses, Settings, Trial, wanted
from .output import UserError
from .output import run as run_main
from .rate_search import BEYOND, octave_of, rate_of
from .study_runs import Row, append, carry_out, check_data, loss_of, loss_of_outcome, read, task_of


def spec_of(plan: Plan, data: str, trial: Trial) -> RunSpec:
    """The run of a trial."""
    longer = replace(
        plan, training=replace(plan.training, steps=trial.length * plan.training.steps)
    )
    return single_spec(longer, data, arm=trial.arm, lr=rate_of(trial.octave), seed=trial.seed)


def make(path: str, out: str, trial: Trial) -> float:
    """The loss of a trial's run."""
    task = task_of(path, out)
    return loss_of(path, out, spec_of(task.plan, task.fingerprint, trial))


def found(path: str, out: str, plan: Plan, settings: Settings) -> Losses:
    """The losses of all runs whose folders are there."""
    fingerprint = task_of(path, out).fingerprint
    losses = {}
    for length in settings.lengths:
        for arm in plan.arms:
            for octave in range(-BEYOND - 1, BEYOND + 2):
                for seed in settings.seeds:
                    trial = Trial(length, arm, octave, seed)
                    outcome = outcome_of(Path(out), spec_of(plan, fingerprint, trial))
                    if outcome is not None:
                        losses[trial] = loss_of_outcome(outcome)
    return losses


class Model(NamedTuple):
    """Facts that rows state for all runs alike: parameters, tokens of length 1, hash of the
    text."""

    parameters: int
    unit: int
    data: str

    @classmethod
    def of(cls, path: str, out: str) -> Model:
        """The facts of a plan's own task."""
        task = task_of(path, out)
        own = isinstance(task.plan.task, GptPlan)  # a checkpoint cannot be read without memory
        with torch.device("meta" if own else "cpu"):
            model = task.task.build_model(0)
        training = task.plan.training
        unit = training.steps * training.accumulation * task.task.batch_tokens
        return cls(sum(p.numel() for p in model.parameters()), unit, task.fingerprint[:12])


def losses_of(rows: Iterable[Row], plan: Plan, unit: int) -> Losses:
    """The losses of a table's rows; ``unit`` is the tokens of length 1."""
    return {
        Trial(round(row.tokens / unit), row.arm, octave_of(row.rate), row.seed): row.loss
        for row in rows
        if row.arm in plan.arms
    }


def row_of(plan: Plan, trial: Trial, loss: float, known: Model) -> Row:
    """A finished run, for the table."""
    width = getattr(plan.task, "width", 0)
    layers = plan.task.layers if isinstance(plan.task, GptPlan) else 0
    tokens = trial.length * known.unit
    shape = width, layers, known.parameters, tokens
    return Row(trial.arm, *shape, trial.seed, rate_of(trial.octave), loss, known.data)


def run(path: str, out: str, table_path: Path, settings: Settings, workers: int) -> Losses:
    """Make all runs that are due, ``workers`` at a time."""
    plan, model = task_of(path, out).plan, Model.of(path, out)
    check_data(table_path, read(table_path), model.data)
    losses = losses_of(read(table_path), plan, model.unit)

    def keep(trial: Trial, loss: float) -> None:
        losses[trial] = loss
        append(table_path, row_of(plan, trial, loss, model))
        rate = rate_of(trial.octave)
        print(f"x{trial.length} {trial.arm} lr {rate:g} seed {trial.seed}: {loss:.4f}", flush=True)

    for trial, loss in found(path, out, plan, settings).items():
        if trial not in losses:
            keep(trial, loss)
    due = functools.partial(wanted, plan, settings, losses)
    carry_out(due, functools.partial(make, path, out), keep, workers)
    return losses


def chosen(plan: Plan, arms: list[str] | None) -> tuple[str, ...]:
    """These arms of the plan; all where none is named.

    Raises:
        UserError: an arm that is not in it, or no baseline among them.
    """
    if arms is None:
        return plan.arms
    if unknown := [arm for arm in arms if arm not in plan.arms]:
        raise UserError(f"--arms {unknown[0]}: the plan's arms are {', '.join(plan.arms)}")
    baseline = plan.comparison.baseline
    if baseline not in arms:
        raise UserError(f"--arms must name the baseline, {baseline}: all arms are paired with it")
    return tuple(arms)


def main(argv: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run_lengths", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("plan")
    parser.add_argument("--out", required=True)
    parser.add_argument("--table", type=Path, help="(default: PLAN with .csv in place of .toml)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", help="of the plan's, with the baseline (default: all)")
    parser.add_argument(
        "--octaves", type=int, nargs="+", default=[0],
        help="of rates that all arms are compared at, from the baseline's best (default: 0)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", action="store_true", help="make no runs")
    given = parser.parse_args(argv)
    path, out = given.plan, given.out
    table_path = given.table or Path(path).with_suffix(".csv")
    plan = load_plan(Path(path))
    arms = chosen(plan, given.arms)
    settings = Settings(tuple(given.lengths), tuple(given.seeds), arms, tuple(given.octaves))
    if given.report:
        model, rows = Model.of(path, out), read(table_path)
        check_data(table_path, rows, model.data)
        losses = found(path, out, plan, settings) | losses_of(rows, plan, model.unit)
    else:
        losses = run(path, out, table_path, settings, given.workers)
    print(table(plan, settings, losses))


if __name__ == "__main__":
    run_main(main)
