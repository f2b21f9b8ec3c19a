"""``mars canary``: stage 2, from the team's own AdamW checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError
from ..experiment.plan import Plan
from ..experiment.plan.plan import EXTERNAL
from ..experiment.plan.plan_file import load_plan


def canary(
    checkpoint: Path,
    /,
    *,
    out: Path = Path("mars-canary"),
    plan: Path | None = None,
    model_key: str = "model",
    optimizer_key: str = "optimizer",
    steps: int = 400,
    history: int = 200,
    seeds: Annotated[tuple[int, ...], Parameter(negative="")] = (1, 2, 3, 4, 5),
    lr_scales: Annotated[tuple[float, ...], Parameter(negative="")] = (1.0,),
    margin: float = 0.0,
) -> None:
    """Try the switch on a copy: train your AdamW checkpoint on with AdamW, and with MARS.

    Both see the same data. Print whether the switch makes a spike of the loss (by the test of
    mars_optim.Guard), the loss difference, and whether to go on to production under a guard. The
    same command resumes.

    Parameters
    ----------
    checkpoint:
        File written by torch.save, with the state of the model and of its AdamW.
    out:
        Folder for the runs and canary.json.
    plan:
        Plan of the pilot, for its task, accumulation and gradient clip.
    model_key:
        Key of the model's state dict in the file, such as state.model.
    optimizer_key:
        Key of the optimizer's state dict in the file.
    steps:
        Steps of each continuation; the learning rate decays to zero over the last quarter. The ramp
        to another learning rate has 2 / (1 - beta2) steps, and at most half of those before.
    history:
        Steps of AdamW before the switch, from which the guard learns its noise; at least 100.
    seeds:
        Data orders, the same for both arms; such as --seeds 1 --seeds 2.
    lr_scales:
        Multiples of the checkpoint's learning rate to try for both arms, on a data order of their
        own; one, or three or more, such as --lr-scales 1 --lr-scales 2 --lr-scales 4.
    margin:
        Bound in nats: to go on, the whole interval of the loss difference must lie below it.
    """
    chosen = load_plan(plan) if plan else Plan()
    console = Console(highlight=False)

    from ..experiment.canary import CanarySettings, read_checkpoint
    from ..experiment.canary import canary as run
    from ..experiment.canary.settings import OF_MARS
    from ..experiment.executors.runnable import environment

    if chosen.task.kind in EXTERNAL:
        raise UserError(
            f"task.kind = {chosen.task.kind!r}: a canary trains the model itself, and cannot go on "
            "from a checkpoint of another program; take a task of 'gpt', 'images' or 'python', or "
            "start your program twice by hand (docs/production.md)"
        )
    candidate = chosen.arm[chosen.comparison.candidate]
    if candidate.optimizer != "mars":
        raise UserError(
            f"the candidate {chosen.comparison.candidate!r} is {candidate.optimizer}, and a canary "
            "goes from AdamW into MARS: choose a candidate with optimizer 'mars'"
        )
    if (rule := candidate.rule) != "adamw":
        raise UserError(
            f"the candidate {chosen.comparison.candidate!r} has rule {rule!r}, whose moments "
            "differ from AdamW's: it cannot continue an AdamW checkpoint; choose a candidate "
            "with rule 'adamw'"
        )
    settings = CanarySettings(
        steps=steps,
        history=history,
        seeds=seeds,
        lr_scales=lr_scales,
        margin=margin,
        **{name: getattr(candidate, name) for name in OF_MARS},
        accumulation=chosen.training.accumulation,
        grad_clip=chosen.training.grad_clip,
        eval_tokens=chosen.training.eval_tokens,
        confidence=chosen.decision.confidence,
    )
    found = read_checkpoint(checkpoint, model_key=model_key, optimizer_key=optimizer_key)
    loaded = task_of(chosen)
    with _until_stopped(out):
        result = run(
            loaded,
            found,
            out,
            settings,
            plan=chosen.task,
            candidate=chosen.comparison.candidate,
            environment=environment(1),
            say=lambda text: console.print(text, soft_wrap=True, markup=False),
        )
    tint = {"production": "green", "back": "red", "not-enough-runs": "yellow"}
    console.print(
        f"\n{result.sentence}",
        style=f"bold {tint[result.recommendation]}",
        soft_wrap=True,
        markup=False,
    )
    for line in (*result.reasons, *result.advice):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(f"Numbers: {out / 'canary.json'}", soft_wrap=True, markup=False)


@contextmanager
def _until_stopped(out: Path) -> Iterator[None]:
    """One line where Ctrl-C or a full disk ends it."""
    from ..experiment.executors.worker import NO_ROOM, describe

    try:
        yield
    except KeyboardInterrupt:
        # not by rich: interrupted while it printed, it would hold this back
        print("Stopped. The same command keeps the finished runs and continues.", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(describe(error, out)) from None


def task_of(plan: Plan) -> Any:
    """The plan's task, loaded; what is wrong with it in one line.

    Raises:
        UserError: if it cannot be loaded.
    """
    from ..experiment.executors.runnable import load_task

    try:
        return load_task(plan)
    except ValueError as error:
        raise UserError(str(error)) from None
