"""Does a second average pay? The family of filter_family.py against the package's own arms.

``python -m benchmarks.filter_study gpt`` trains and prints; ``--report`` prints alone.

Each arm's rate is tuned on a seed of its own, at the same five rates around its rule's middle, by a
parabola through the logarithms; then all arms are trained on fresh seeds, paired. Rows that are in
docs/studies/filter-family are not made again, so the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.plan import ARMS, Arm, ExecutionOptions, Plan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.training import (
    Gradients,
    alone,
    arm_groups,
    build_optimizer,
    lr_factor,
    parallelize,
    seed_all,
)

from .filter_family import TwoAverages, mona

ROWS = Path(__file__).parents[1] / "docs" / "studies" / "filter-family"
TUNING, SEEDS = 9, (1, 2, 3, 4)
MIDDLE = {"adamw": 0.01, "muon": 0.02}
FACTORS = (1.8**-2, 1 / 1.8, 1.0, 1.8, 1.8**2)
PARTS = 4  # of a run, after which the weights in force are noted

TASKS: dict[str, dict[str, Any]] = {
    "gpt": dict(training=dict(steps=400)),
    "shakespeare": dict(
        task=dict(corpus="data/tinyshakespeare.txt", layers=2, width=96, heads=3),
        training=dict(steps=400),
    ),
    "gpt-long": dict(training=dict(steps=1200)),
    "words-python": dict(task=dict(corpus="data/python-2048"), training=dict(steps=400)),
    "words-shakespeare": dict(
        task=dict(corpus="data/shakespeare-512", layers=2, width=96, heads=3),
        training=dict(steps=400),
    ),
    "cifar": dict(
        task=dict(kind="images", corpus="data/cifar10", width=8, batch=64, subset=5000),
        training=dict(steps=400, eval_tokens=2000),
    ),
}

AUTO, MUON = ARMS["nadamw-auto"], replace(ARMS["muon"], gamma_schedule="auto")
# name -> settings, and of our optimizer (chosen, delta at the start); None is the package's
CONTENDERS: dict[str, tuple[Arm, tuple[tuple[str, ...], float] | None]] = {
    "nadamw-auto": (AUTO, None),
    "two": (AUTO, (("gamma", "delta"), 0.0)),
    "two-half": (AUTO, (("gamma",), 0.5)),
    "muon-auto": (MUON, None),
    "muon-two": (MUON, (("gamma", "delta"), 0.0)),
    "muon-mona": (MUON, (("gamma",), mona(0.95, 0.99).delta)),
    "adamw": (ARMS["adamw"], None),
    "greedy-alignment": (ARMS["greedy-alignment"], None),
    "two-none": (AUTO, (("gamma",), 0.0)),
    "two-less": (AUTO, (("gamma",), -0.25)),  # these two were added after the first rows
    "muon-less": (MUON, (("gamma",), -0.25)),
    # one average with a shorter memory, which costs none: does it do what two-less does?
    "auto-85": (replace(AUTO, betas=(0.85, 0.95)), None),
    "auto-80": (replace(AUTO, betas=(0.8, 0.95)), None),
}
PAIRS = (
    ("two", "nadamw-auto"),
    ("two-half", "nadamw-auto"),
    ("muon-two", "muon-auto"),
    ("muon-mona", "muon-auto"),
    ("greedy-alignment", "nadamw-auto"),
    ("nadamw-auto", "adamw"),
    ("greedy-alignment", "adamw"),
    ("two-none", "nadamw-auto"),
    ("two-less", "nadamw-auto"),
    ("muon-less", "muon-auto"),
    ("auto-85", "nadamw-auto"),
    ("auto-80", "nadamw-auto"),
    ("two-less", "auto-85"),
    ("two-less", "auto-80"),
)


def optimizer_of(name: str, model: nn.Module, lr: float) -> Optimizer:
    """A contender on a model; the slow average is five times as long as the fast one."""
    arm, ours = CONTENDERS[name]
    if ours is None:
        return build_optimizer(model, arm, lr=lr)
    chosen, delta = ours
    groups = [{**group, "delta": delta} for group in arm_groups(model, arm, lr=lr)]
    return TwoAverages(groups, slow=1 - (1 - arm.betas[0]) / 5, chosen=chosen)


def train(plan: Plan, task: Any, name: str, *, lr: float, seed: int) -> dict[str, Any]:
    """One run: its final validation loss, and the weights in force after each part of it."""
    seed_all(seed)
    training, begun = plan.training, time.process_time()
    model = parallelize(task.build_model(seed=seed), alone(), ExecutionOptions())
    optimizer = optimizer_of(name, model.bare, lr)
    gradients = Gradients(task, model, optimizer, training, alone(), seed=seed)
    peaks, weights = [float(group["lr"]) for group in optimizer.param_groups], []
    for step in range(training.steps):
        factor = lr_factor(step, training.steps, warmup=training.warmup, decay=training.decay)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        gradients.make(step)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % (training.steps // PARTS) == 0:
            weights.append(in_force(optimizer))
    loss = float(task.evaluate(model.bare, training.eval_tokens))
    seconds = time.process_time() - begun
    return dict(loss=round(loss, 5), cpu_seconds=round(seconds, 1), weights=weights)


def in_force(optimizer: Optimizer) -> list[float]:
    """(gamma, delta) of the first group, the matrices."""
    group = optimizer.param_groups[0]
    gamma = float(group.get("gamma_now", group.get("gamma", 0.0)))
    return [round(gamma, 4), round(float(group.get("delta", 0.0)), 4)]


def best_rate(losses: dict[float, float]) -> tuple[float, bool]:
    """The lowest point of a parabola through the best trial and its neighbours; if bracketed."""
    rates = sorted(rate for rate, loss in losses.items() if math.isfinite(loss))
    at = min(range(len(rates)), key=lambda i: losses[rates[i]])
    if at in (0, len(rates) - 1):
        return rates[at], False
    near = rates[at - 1 : at + 2]
    curve = np.polyfit(np.log(near), [losses[rate] for rate in near], 2)
    return float(np.exp(-curve[1] / (2 * curve[0]))), True


class Rows:
    """The runs of a task, one JSON line each."""

    def __init__(self, task: str) -> None:
        self.path = ROWS / f"{task}.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def losses(self, arm: str, key: str, seeds: Iterable[int]) -> dict[float, float]:
        """Loss by ``key`` of this arm's runs on these seeds."""
        return {r[key]: r["loss"] for r in self.rows if r["arm"] == arm and r["seed"] in seeds}

    def add(self, run: Callable[[], dict[str, Any]], **about: Any) -> None:
        """Make a run and write it down, unless it is there."""
        if any(about.items() <= row.items() for row in self.rows):
            return
        self.rows.append({**about, **run()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print(json.dumps(self.rows[-1]), flush=True)


def compare(name: str, arms: Iterable[str], seeds: Iterable[int] = SEEDS) -> None:
    """Tune and train what is lacking, arm after arm."""
    plan, rows = make_plan(TASKS[name]), Rows(name)
    task = load_task(plan)
    for arm in arms:
        for factor in FACTORS:
            lr = float(f"{MIDDLE[CONTENDERS[arm][0].rule] * factor:.4g}")
            rows.add(
                partial(train, plan, task, arm, lr=lr, seed=TUNING),
                arm=arm,
                seed=TUNING,
                lr=lr,
            )
        rate = float(f"{best_rate(rows.losses(arm, 'lr', [TUNING]))[0]:.4g}")
        for seed in seeds:
            rows.add(
                partial(train, plan, task, arm, lr=rate, seed=seed),
                arm=arm,
                seed=seed,
                lr=rate,
            )


def report(name: str) -> str:
    """Markdown: every arm, then every pair with its interval."""
    rows = Rows(name)
    lines = ["| arm | rate | mean loss | gamma, delta after each quarter |", "|---|---|---|---|"]
    for arm in CONTENDERS:
        found = rows.losses(arm, "seed", SEEDS)
        if not found:
            continue
        rate, inside = best_rate(rows.losses(arm, "lr", [TUNING]))
        courses = [r["weights"] for r in rows.rows if r["arm"] == arm and r["seed"] in SEEDS]
        course = " / ".join(f"{g:.2f}, {d:+.2f}" for g, d in np.mean(courses, axis=0))
        edge = "" if inside else " (edge)"
        mean = sum(found.values()) / len(found)
        lines.append(f"| {arm} | {rate:.3g}{edge} | {mean:.4f} | {course} |")
    lines += ["", "| difference, paired | 95 % interval | seeds |", "|---|---|---|"]
    for new, old in PAIRS:
        ours, theirs = (rows.losses(arm, "seed", SEEDS) for arm in (new, old))
        gaps = [ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()]
        if len(gaps) > 1:
            gap = t_interval(gaps, 0.95)
            text = f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
            lines.append(f"| {new} less {old} | {text} | {len(gaps)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is lacking, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--arms", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many to compare on")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.report:
        compare(options.task, options.arms, SEEDS[: options.seeds])
    print(report(options.task))


if __name__ == "__main__":
    main()
