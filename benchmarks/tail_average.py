"""Can an average of the last weights stand in for a decay? ``python -m benchmarks.tail_average``.

One run at a constant rate is a whole ladder then: its weights, averaged over the last part of each
budget. Forms: ``linear``, the built-in plan's decay, a run for each budget; ``tail 20 %`` and
``tail 50 %``, averages over that part of each budget; ``constant``, the last weights themselves.
Each form of each arm has a rate of its own, the lowest point of a parabola through the mean of the
tuning seeds. Savings are read as the pilot reads them, seed by seed, off both arms' ladders where
both have one. Schedule-free AdamW keeps an average of its own: its form is ``constant``.

Stop it at any moment: finished runs stay in ``--out``, and the same command goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mars_optim.experiment.analysis.ladder import both_ways, tokens_to_reach
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.executors.runnable import RunnableTask
from mars_optim.experiment.pilot.run_estimate import single_spec
from mars_optim.experiment.plan import ExecutionOptions, Plan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import RunWriter
from mars_optim.experiment.tasks.base import scores_of
from mars_optim.experiment.training import train
from mars_optim.files import write_json

from . import rate_search
from .output import run as run_main
from .rate_search import DIVERGED, fitted_rate, octave_of, rate_of
from .study_runs import carry_out
from .table import markdown

RUNGS = (0.5, 0.75, 1.0, 1.5)
TAILS = {"tail 20 %": 0.2, "tail 50 %": 0.5}
FORMS = ("linear", *TAILS, "constant")
BASELINE, FREE = "adamw", "schedule-free"
ARMS = (BASELINE, "nadamw-auto", "mars-adamw", FREE)
START = 0.008  # of every search: near the studies' best rates of these arms
TUNING, COMPARED = (101, 102), (1, 2, 3, 4, 5)


class Run(NamedTuple):
    """One run: of one budget with linear decay, or at a constant rate through all of them."""

    arm: str
    linear: bool
    budget: float
    rate: float
    seed: int


Losses = dict[str, dict[str, float]]
"""By run; by form and budget, such as "tail 20 %/0.75"."""


def plan_of(steps: int, eval_tokens: int) -> Plan:
    """The built-in task; AdamWScheduleFree has a warm-up of its own, as its authors use it."""
    free = {
        "optimizer": "schedulefree:AdamWScheduleFree",
        "lr": 0.01,
        "own_schedule": True,
        "options": {"warmup_steps": steps // 10, "weight_decay": 0.1, "betas": [0.9, 0.95]},
    }
    training = {"steps": steps, "eval_tokens": eval_tokens}
    return make_plan({"arms": list(ARMS), "training": training, "arm": {FREE: free}})


# -- a run


class Watched:
    """A task that shows the model which is trained; all else is the task's own."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_model(self, seed: int) -> nn.Module:
        """The task's model, kept as ``model``."""
        model: nn.Module = self._task.build_model(seed)
        self.model = model
        return model


class TailAverages:
    """Means of the weights over the last part of each budget, by sums since the first step.

    mean over (a, b] = (S_b - S_a) / (b - a), where S_t is the sum of the weights after steps 1..t
    """

    def __init__(self, steps: int) -> None:
        self.ends = {round(rung * steps): rung for rung in RUNGS}
        self.starts = {
            (t, f): t - round(share * t) for t in self.ends for f, share in TAILS.items()
        }
        self.sums: list[Tensor] = []
        self.before: dict[int, list[Tensor]] = {}

    def add(self, step: int, model: nn.Module) -> None:
        """Take the weights after ``step``, from 1 on."""
        weights = [p.detach().double() for p in model.parameters()]
        sums = self.sums or [torch.zeros_like(w) for w in weights]
        self.sums = [s + w for s, w in zip(sums, weights, strict=True)]
        if step in self.starts.values():
            self.before[step] = self.sums

    def mean(self, step: int, form: str) -> list[Tensor]:
        """The mean over the form's part of the budget that ends at ``step``."""
        start = self.starts[step, form]
        pairs = zip(self.sums, self.before[start], strict=True)
        return [(after - before) / (step - start) for after, before in pairs]


def loss_with(task: Watched, weights: Iterable[Tensor], tokens: int) -> float:
    """Validation loss with these weights; the model's own are back afterwards, to the bit."""
    kept = [p.detach().clone() for p in task.model.parameters()]
    with torch.no_grad():
        for p, w in zip(task.model.parameters(), weights, strict=True):
            p.copy_(w)
        loss = scores_of(task, task.model, tokens)["valid_loss"]
        for p, w in zip(task.model.parameters(), kept, strict=True):
            p.copy_(w)
    return loss


@functools.lru_cache
def _task_of(steps: int, eval_tokens: int, out: Path) -> RunnableTask:
    return RunnableTask(plan_of(steps, eval_tokens), out, threads=1)


def make(steps: int, eval_tokens: int, out: Path, run: Run) -> dict[str, float]:
    """Losses of one run, by form and budget; of one that diverged, those until then."""
    runnable = _task_of(steps, eval_tokens, out)
    plan = runnable.plan
    training = replace(plan.training, steps=round(run.budget * steps), evaluations=1)
    if not run.linear:  # warmed up for as long as a run of one budget
        warmup, evaluations = training.warmup / run.budget, round(4 * run.budget)
        training = replace(training, decay="constant", warmup=warmup, evaluations=evaluations)
    spec = single_spec(
        replace(plan, training=training),
        runnable.fingerprint,
        arm=run.arm,
        lr=run.rate,
        seed=run.seed,
    )
    task, averages = Watched(runnable.task), TailAverages(steps)
    found: dict[str, float] = {}

    def on_step(step: int) -> None:
        if run.linear or run.arm == FREE:
            return
        averages.add(step, task.model)
        for form in TAILS if step in averages.ends else ():
            loss = loss_with(task, averages.mean(step, form), eval_tokens)
            found[f"{form}/{averages.ends[step]}"] = loss

    writer = RunWriter(out / "runs", spec, {}, silent=True)
    outcome = train(spec, task, writer, on_step, ExecutionOptions())
    if run.linear:
        return {f"linear/{run.budget}": outcome.final_loss or DIVERGED}
    rows = {row["step"]: row["valid_loss"] for row in writer.rows if row.get("valid_loss")}
    return found | {f"constant/{b}": rows[t] for t, b in averages.ends.items() if t in rows}


# -- which runs


def loss_of(losses: Losses, run: Run, form: str, budget: float = 1.0) -> float:
    """The loss of a finished run; infinite where it has none there."""
    return losses[key(run)].get(f"{form}/{budget}", DIVERGED)


def key(run: Run) -> str:
    """A run's name in the file."""
    return json.dumps(run)


def forms_of(arm: str) -> tuple[str, ...]:
    """The forms that an arm has."""
    return ("constant",) if arm == FREE else FORMS


def _run(arm: str, form: str, rate: float, seed: int, budget: float = 1.0) -> Run:
    linear = form == "linear"
    return Run(arm, linear, budget if linear else max(RUNGS), rate, seed)


def tuned(losses: Losses, arm: str, form: str) -> tuple[list[Run], float | None]:
    """The trials that are still due, and the rate once there are none."""
    start, octaves = octave_of(START), range(-rate_search.BEYOND, rate_search.BEYOND + 1)
    known: dict[int, float] = {}
    for octave in octaves:
        trials = [_run(arm, form, rate_of(octave), seed) for seed in TUNING]
        if all(key(t) in losses for t in trials):
            known[octave] = statistics.mean(loss_of(losses, t, form) for t in trials)
    if due := rate_search.missing(known, start):
        return [_run(arm, form, rate_of(o), seed) for o in due for seed in TUNING], None
    return [], fitted_rate(known)


def due(losses: Losses) -> list[Run]:
    """All runs that can be made now: trials, and comparisons of forms that are tuned."""
    wanted: list[Run] = []
    for arm in ARMS:
        for form in forms_of(arm):
            trials, rate = tuned(losses, arm, form)
            wanted += trials
            if rate is not None:
                budgets = RUNGS if form == "linear" and arm == BASELINE else (1.0,)
                wanted += [_run(arm, form, rate, s, b) for s in COMPARED for b in budgets]
    return [run for run in dict.fromkeys(wanted) if key(run) not in losses]


def run_all(plan: Plan, out: Path, workers: int) -> Losses:
    """Make all runs that are not in the file yet; it is whole at any moment."""
    path = out / "losses.json"
    losses: Losses = json.loads(path.read_text()) if path.exists() else {}

    def keep(run: Run, found: dict[str, float]) -> None:
        losses[key(run)] = found
        write_json(path, losses)
        print(run, flush=True)

    sizes = plan.training.steps, plan.training.eval_tokens
    carry_out(lambda: due(losses), functools.partial(make, *sizes, out), keep, workers)
    return losses


# -- reading them


def saving(losses: Losses, form: str, arm: str, rates: dict[str, float], seed: int) -> float:
    """Log of the tokens that the baseline needs for the arm's loss, over the arm's."""

    def ladder(name: str) -> list[tuple[int, float]]:
        budgets = RUNGS if name == BASELINE or form != "linear" else ()
        return [
            (round(1000 * b), loss_of(losses, _run(name, form, rates[name], seed, b), form, b))
            for b in budgets
        ]

    own, base = (loss_of(losses, _run(a, form, rates[a], seed), form) for a in (arm, BASELINE))
    found = both_ways(tokens_to_reach(ladder(BASELINE), own), base, ladder(arm), 1000)
    assert found is not None
    return math.log(found.tokens / 1000)


def told(values: Sequence[float], digits: int) -> str:
    """Mean and 95 % interval over seeds."""
    if not all(map(math.isfinite, values)):
        return "diverged"
    i = t_interval(values, 0.95)
    return f"{i.mean:+.{digits}f} ({i.low:+.{digits}f} to {i.high:+.{digits}f})"


def rows_of(losses: Losses) -> list[list[str]]:
    """Cells of the table: one row for each form and arm."""
    rows = []
    linear = _at_best(losses, BASELINE, "linear")
    for form in FORMS:
        rates = {a: tuned(losses, a, form)[1] or 0.0 for a in ARMS if form in forms_of(a)}
        base = _at_best(losses, BASELINE, form)
        for arm, rate in rates.items():
            mine = _at_best(losses, arm, form)
            apart = [x - y for x, y in zip(mine, base, strict=True)]
            behind = [x - y for x, y in zip(mine, linear, strict=True)]
            cells = [form, arm, f"{rate:.3g}", f"{statistics.mean(mine):.4f}", told(behind, 4)]
            if arm in (BASELINE, FREE):
                rows.append([*cells, "", "", ""])
                continue
            logs = [saving(losses, form, arm, rates, seed) for seed in COMPARED]
            shares = t_interval(logs, 0.95)
            saved = [100 * (1 - math.exp(-x)) for x in (shares.mean, shares.low, shares.high)]
            text = "{:.1f} ({:.1f} to {:.1f})".format(*saved)
            rows.append([*cells, told(apart, 4), f"{statistics.stdev(apart):.4f}", text])
    return rows


def _at_best(losses: Losses, arm: str, form: str) -> list[float]:
    rate = tuned(losses, arm, form)[1]
    assert rate is not None
    return [loss_of(losses, _run(arm, form, rate, seed), form) for seed in COMPARED]


HEADER = (
    "form",
    "arm",
    "rate",
    "loss",
    "less adamw's with linear decay",
    "less adamw's of this form",
    "its deviation",
    "tokens saved, %",
)


def main(argv: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tail_average", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("studies/tail-average"))
    parser.add_argument("--steps", type=int, default=1200, help="of one budget (default: 1200)")
    parser.add_argument("--eval-tokens", type=int, default=65536, help="(default: 65536)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    plan = plan_of(given.steps, given.eval_tokens)
    losses = run_all(plan, given.out, given.workers)
    print(markdown(HEADER, rows_of(losses)))


if __name__ == "__main__":
    run_main(main)
