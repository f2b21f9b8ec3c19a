"""Cost of an option of the optimizer in a whole training step of the pilot's built-in task.

The same arm with and without the option takes turns: forward, backward, clip and step, and what a
training row reads of the telemetry. The ratio is taken within each round: its median, the 95 %
interval of that, and its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from mars_optim import MARS
from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.plan import Arm, ExecutionOptions, Plan
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.tasks import Task
from mars_optim.experiment.training import Gradients, alone, build_optimizer, parallelize
from mars_optim.experiment.training.telemetry import noise_fields

from . import output, table
from .output import UserError

HEADER = ["option", "without", "ratio", "its 95 % interval", "quartiles"]
Clock = Callable[[], float]

TURN = 24  # steps in a row: as many as between two training rows of the built-in plan
WARMUP = 10
GPT2_SMALL = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50304}  # 124 M parameters

# name: (arm with, arm without, in each so-many-th step telemetry; 0 where it is not what is added)
OPTIONS: dict[str, tuple[Arm, Arm, int]] = {
    "telemetry, MARS-AdamW": (ARMS["mars-adamw"], ARMS["mars-adamw"], 4),
    "telemetry, MARS-Lion": (ARMS["mars-lion"], ARMS["mars-lion"], 4),
    "telemetry, MARS-M": (ARMS["mars-m"], ARMS["mars-m"], 4),
    "telemetry in every step, MARS-AdamW": (ARMS["mars-adamw"], ARMS["mars-adamw"], 1),
    "telemetry in every step, MARS-M": (ARMS["mars-m"], ARMS["mars-m"], 1),
    'gamma="auto", folded': (ARMS["nadamw-auto"], ARMS["nadamw"], 0),
    'gamma="auto" in place of torch AdamW': (ARMS["nadamw-auto"], ARMS["adamw"], 0),
    "cautious, MARS-AdamW": (ARMS["mars-adamw-cautious"], ARMS["mars-adamw"], 0),
    'clip_over="global", MARS-AdamW': (ARMS["mars-adamw-clip-all"], ARMS["mars-adamw"], 0),
    "exact, MARS-AdamW": (ARMS["mars-adamw-exact"], ARMS["mars-adamw"], 0),
}


class Seconds(NamedTuple):
    """Seconds of a turn: in all, and in the optimizer's steps and the reading of its telemetry."""

    whole: float
    optimizer: float


def runner(
    plan: Plan, task: Task, arm: Arm, *, telemetry: int, turn: int, clock: Clock
) -> Callable[[], Seconds]:
    """Trains ``turn`` steps further at each call and returns their seconds."""
    model = parallelize(task.build_model(seed=0), alone(), ExecutionOptions())
    optimizer = build_optimizer(model.bare, arm, lr=arm.lr)
    gradients = Gradients(task, model, optimizer, plan.training, alone(), seed=0)
    if telemetry:
        assert isinstance(optimizer, MARS)
        optimizer.measure(every=telemetry)
    at = 0

    def take(steps: int = turn) -> Seconds:
        nonlocal at
        start, inside = clock(), 0.0
        for _ in range(steps):
            losses, _ = gradients.make(at)
            begun = clock()
            optimizer.step()
            inside += clock() - begun
            optimizer.zero_grad()
            losses.tolist()
            at += 1
        begun = clock()
        noise_fields(optimizer)
        end = clock()
        return Seconds(end - start, inside + end - begun)

    take(min(WARMUP, 2 * turn))
    return take


def compare(
    plan: Plan,
    task: Task,
    name: str,
    *,
    rounds: int,
    turn: int,
    clock: Clock,
    optimizer_only: bool = False,
) -> dict[str, Any]:
    """One row: the ratio of with to without, within each round, and the time without.

    With ``optimizer_only`` the time with the option is the time without it plus what the
    optimizer's steps take longer, so what forward and backward vary by is not in the ratio.
    """
    arm, plain, telemetry = OPTIONS[name]
    with_it = runner(plan, task, arm, telemetry=telemetry, turn=turn, clock=clock)
    without = runner(plan, task, plain, telemetry=0, turn=turn, clock=clock)
    times = []
    for number in range(rounds):  # who begins takes turns, too
        if number % 2:
            its, plain_its = with_it(), without()
        else:
            plain_its, its = without(), with_it()
        more = its.optimizer - plain_its.optimizer
        times.append((plain_its.whole + more if optimizer_only else its.whole, plain_its.whole))
    low, middle, high = statistics.quantiles([a / b for a, b in times], n=4)
    seconds = statistics.median(b for _, b in times) / turn
    return {
        "name": name,
        "seconds_without": seconds,
        "ratio": {"median": middle, "q1": low, "q3": high},
        "rounds": times,
    }


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the median, by the ranks of the values: no shape of theirs is assumed.

    The number of values below the median is binomial. Below six values there is no such interval.
    """
    from scipy.stats import binom  # slow to import

    rank, ordered = int(binom.ppf(0.025, len(values), 0.5)), sorted(values)
    return None if rank < 1 else (ordered[rank - 1], ordered[-rank])


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    ratio = row["ratio"]
    bounds = median_interval([a / b for a, b in row["rounds"]])
    return [
        row["name"],
        table.milliseconds(row["seconds_without"]),
        f"{ratio['median']:.3f}",
        "-" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
        f"{ratio['q1']:.3f} to {ratio['q3']:.3f}",
    ]


def head(result: dict[str, Any]) -> str:
    """The training, in a sentence."""
    only = ", what the optimizer's steps take longer" if result.get("optimizer_only") else ""
    return (
        f"The pilot's built-in GPT, {result['parameters']:,} parameters, batches of "
        f"{result['batch_tokens']} bytes, {len(result['rows'][0]['rounds'])} rounds of "
        f"{result.get('turn', TURN)} steps{only}"
    )


def main(argv: list[str]) -> None:
    """Measure, print the table, write JSON."""
    options = output.parser("training_step", __doc__, tensors=False)
    options.add_argument("--rounds", type=int, default=61, help="(default: %(default)s)")
    options.add_argument("--only", action="append", default=[], metavar="PIECE", help="of a name")
    options.add_argument(
        "--turn", type=int, default=TURN, help="steps in a row (default: %(default)s)"
    )
    options.add_argument("--batch", type=int, default=8, help="windows (default: %(default)s)")
    options.add_argument(
        "--gpt2", action="store_true", help="GPT-2 small's shapes instead, 124 M parameters"
    )
    options.add_argument("--layers", type=int, default=2, help="of the GPT (default: %(default)s)")
    options.add_argument("--width", type=int, default=64, help="of the GPT (default: %(default)s)")
    options.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the time that the process has a CPU: for a machine that others use, too",
    )
    options.add_argument(
        "--optimizer-only",
        action="store_true",
        help="count only what the optimizer's steps take longer: far steadier for a large model, "
        "whose forward and backward find nothing in the caches anyway",
    )
    args: argparse.Namespace = options.parse_args(argv)
    if args.rounds < 2:
        raise UserError(f"--rounds {args.rounds} must be at least 2: quartiles need two values")
    for name in ("layers", "turn", "batch"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} must be at least 1")
    plan = Plan()
    task = GptPlan()
    heads = max(1, args.width // 64) if args.width != task.width else task.heads
    shapes = {"layers": args.layers, "width": args.width, "heads": heads}
    shapes = GPT2_SMALL if args.gpt2 else shapes
    plan = replace(plan, task=replace(task, batch=args.batch, **shapes))
    names = output.chosen(list(OPTIONS), args.only)
    clock = time.process_time if args.cpu_time else time.perf_counter
    result = output.start(args, "training_step")
    torch.manual_seed(0)
    task = load_task(plan)
    result["turn"], result["optimizer_only"] = args.turn, args.optimizer_only
    result["batch_tokens"] = task.batch_tokens
    result["parameters"] = sum(p.numel() for p in task.build_model(0).parameters())
    result["rows"] = []
    for name in names:
        row = compare(
            plan, task, name, rounds=args.rounds, turn=args.turn, clock=clock,
            optimizer_only=args.optimizer_only,
        )  # fmt: skip
        result["rows"].append(row)
        print(f"  {name}: {row['ratio']['median']:.3f}", flush=True)
    print(f"\n{head(result)}\n")
    print(table.aligned(HEADER, [cells(row) for row in result["rows"]]))
    output.write(result, args.json)


if __name__ == "__main__":
    output.run(main)
