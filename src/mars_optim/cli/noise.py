"""``mars noise``: is this job noise-limited, and what does MARS make of the noise."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError, check_writable
from ..experiment.plan import Plan
from ..experiment.plan.plan_file import built_in_plan, load_plan
from ..experiment.plan.task import what_is_trained
from ..files import write_text
from .canary import task_of
from .progress import Progress


def noise(
    *,
    out: Path = Path("mars-noise"),
    task: str | None = None,
    plan: Path | None = None,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    steps: int = 300,
    points: int = 3,
    batches: int = 64,
    replicates: int = 8,
    seed: int = 1,
    checkpoint: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Measure how noisy your gradients are, and whether that leaves MARS something to gain.

    Train with the plan's baseline and its candidate, and answer in sentences with numbers and
    intervals: does noise limit the job, would a larger batch or MARS help, and which form of MARS,
    approximate or exact? Also write noise.svg and noise.json. docs/theory.md explains the terms.

    Parameters
    ----------
    out:
        Folder for noise.svg and noise.json.
    task:
        A task of yours in Python, such as my_task.py:MyTask (mars init task writes an example).
    plan:
        Plan in TOML, for its task, arms and training. Without it, the built-in plan.
    set:
        Change one key of the plan, such as --set task.batch=32. May be repeated.
    steps:
        Steps of training for each arm.
    points:
        Number of points of the training at which the noise is measured.
    batches:
        Batches drawn at each point for the noise scale.
    replicates:
        Histories of batches drawn at each point for the momentum; more histories narrow the
        intervals.
    seed:
        Seed of initialisation, batches and draws.
    checkpoint:
        Weights to start from: a state dict written by torch.save, bare or under "model".
    json:
        Print all numbers as JSON instead of sentences.
    """
    for name, value, low in (
        ("--steps", steps, 10),
        ("--points", points, 1),
        ("--batches", batches, 8),
        ("--replicates", replicates, 3),
        ("--seed", seed, 0),
    ):
        if value < low:
            raise UserError(f"{name} {value} must be at least {low}")
    if points > steps // 4:
        raise UserError(f"--points {points} must be at most a quarter of --steps {steps}")
    if task:
        set += ('task.kind="python"', f"task.source={json_format.dumps(task)}")
    chosen = load_plan(plan, set) if plan else built_in_plan(set)
    if chosen.task.kind not in ("gpt", "python"):
        raise UserError(
            f"task.kind = {chosen.task.kind!r} trains in another program: `mars noise` needs "
            "a model and batches in Python (task.kind 'gpt' or 'python'; `mars init task` "
            "writes an example)"
        )
    check_writable(out)
    found = _measure(
        chosen,
        dict(
            steps=steps,
            points=points,
            batches=batches,
            replicates=replicates,
            seed=seed,
            checkpoint=checkpoint,
        ),
    )
    _write(found, out)
    if json:
        print(json_format.dumps(found, indent=2))
    else:
        _show(found, out, Console(highlight=False))


def _measure(plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    import torch

    from ..experiment.executors.runnable import environment
    from ..experiment.noise_study import NoiseStudy, study_noise

    study = NoiseStudy(**options, confidence=plan.decision.confidence)
    total, taken = study.gradients(plan), 0

    def told(count: int) -> None:
        nonlocal taken
        taken += count
        shown(f"measuring the noise, {taken:,} of {total:,} gradients", taken, total, "gradients")

    try:
        loaded = task_of(plan)
        with Progress() as shown:
            shown.say(f"measuring the noise: {total:,} gradients to take")
            found = study_noise(plan, loaded, study, told)
    except KeyboardInterrupt:
        # not by rich: interrupted while it printed, it would hold this back
        print("Stopped. Nothing was written.", file=sys.stderr)
        raise SystemExit(130) from None
    return {
        "task": what_is_trained(plan.task),
        **found,
        "environment": environment(torch.get_num_threads()),
    }


def _write(found: dict[str, Any], out: Path) -> None:
    from ..experiment.report.noise_study import noise_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "noise.json", json_format.dumps(found, indent=2) + "\n")
        write_text(out / "noise.svg", noise_figure(found))
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from None


def _show(found: dict[str, Any], out: Path, console: Console) -> None:
    from ..experiment.report.noise_study import noise_sentences, noise_table

    console.print(noise_table(found) + "\n", soft_wrap=True, markup=False)
    for sentence in noise_sentences(found):
        console.print(f"- {sentence}", soft_wrap=True, markup=False)
    console.print(
        f"\nPicture: {out / 'noise.svg'}   Numbers: {out / 'noise.json'}",
        soft_wrap=True,
        markup=False,
    )
