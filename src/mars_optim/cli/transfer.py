"""``mars transfer``: from a pilot's best settings to those of the large job."""

from __future__ import annotations

import json as json_format
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError, check_folder
from .canary import task_of
from .completions import arms

if TYPE_CHECKING:
    from ..experiment.plan import Arm, Plan
    from ..experiment.transfer.coordinates import Layer


def transfer(
    run_dir: Path = Path("mars-pilot"),
    /,
    *,
    width: float | None = None,
    depth: float | None = None,
    tokens: float | None = None,
    batch: float | None = None,
    noise_scale: float | None = None,
    large_vocabulary: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    tokens_exponent: float | None = None,
    base_width: float | None = None,
    base_depth: float | None = None,
    arm: Annotated[
        tuple[str, ...], Parameter(negative="", show_default=False, completer=arms)
    ] = (),
    check: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    widths: Annotated[tuple[int, ...], Parameter(negative="", show_default=False)] = (),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Turn the best settings of a small comparison into those of a larger model.

    Print learning rate, decay, eps and betas of each arm and group, and the model's multipliers of
    initial weights, logits and residual branches. With --check, train a few steps at several
    widths, and say whether every layer keeps its size, or which layer does not.

    Parameters
    ----------
    run_dir:
        Folder of a pilot.
    width:
        Width of the larger model's residual stream (default: the pilot's).
    depth:
        Number of blocks of the larger model (default: the pilot's).
    tokens:
        Tokens that the larger model is trained on (default: the pilot's).
    batch:
        Tokens in a batch of the larger model (default: the pilot's).
    noise_scale:
        Noise scale of the gradient, in tokens, from mars noise: a batch beyond it raises no
        learning rate.
    large_vocabulary:
        Let the embeddings' learning rates fall with the root of the width: for a vocabulary that is
        large beside the larger model's width.
    tokens_exponent:
        Power of the tokens that every learning rate goes with, from -1 to 1 (default: -0.32).
    base_width:
        Width of the pilot's model, if the plan does not have it.
    base_depth:
        Number of blocks of the pilot's model, if the plan does not have it.
    arm:
        Transfer only this arm. May be repeated.
    check:
        Run the coordinate check (does each layer keep its size as the width grows?) on the plan's
        model. A task in Python is called with width=.
    widths:
        Widths for --check, such as --widths 64 --widths 128 (default: the pilot's, twice and four
        times that).
    json:
        Print all numbers as JSON.
    """
    from ..experiment.analysis import analyse
    from ..experiment.plan.plan_file import plan_of
    from ..experiment.transfer import show
    from ..experiment.transfer.sheet import base_of, sheet
    from ..optim.transfer import TOKENS

    target = {"width": width, "depth": depth, "tokens": tokens, "batch": batch}
    given = {"width": base_width, "depth": base_depth}
    _check_numbers(target, "--")
    _check_numbers(given, "--base-")
    _check_numbers({"noise-scale": noise_scale}, "--")
    if tokens_exponent is not None and not -1.0 <= tokens_exponent <= 1.0:
        raise UserError(f"--tokens-exponent {tokens_exponent:g} must be from -1 to 1")
    if widths and not check:
        raise UserError("--widths works only with --check: add --check, or leave --widths out")
    check_folder(run_dir, "a pilot")
    if not plan_of(run_dir).exists():
        raise UserError(
            f"{run_dir} holds no pilot (no plan.toml): `mars pilot --out {run_dir}` makes one"
        )
    analysis = analyse(run_dir, forecast=False)
    plan = analysis.plan
    if plan.task.kind not in ("gpt", "python"):
        raise UserError(
            f"task.kind = {plan.task.kind!r} trains in another program, so its parameter "
            "groups are not known here: in your script, "
            "mars_optim.transferred(param_groups(model, lr=...), width=...) gives the same "
            "settings"
        )
    tuned = {r.name: (r.settings, r.lr) for r in analysis.arms if r.lr is not None}
    if unknown := [name for name in arm if name not in tuned]:
        raise UserError(
            f"--arm {unknown[0]} has no best rate in this pilot; known: {', '.join(tuned)}"
        )
    chosen = {name: tuned[name] for name in (arm or tuned)}
    task = task_of(plan)
    base = base_of(plan, task, given)
    found = sheet(
        task, chosen, base, target, noise_scale, large_vocabulary=large_vocabulary,
        tokens_exponent=TOKENS if tokens_exponent is None else tokens_exponent,
    )  # fmt: skip
    checks = _checks(plan, chosen, int(base["width"]), widths) if check else {}
    edges = [r for r in analysis.arms if r.name in chosen and r.at_edge]
    if json:
        numbers = show.as_json(found, checks, at_edge=[r.name for r in edges])
        print(json_format.dumps(numbers, indent=1))
        return
    console = Console(highlight=False)
    told = show.lines(found) + [show.edge_line(r.name, searched=not r.tuned) for r in edges]
    for name, layers in checks.items():
        told += ["", *show.check_lines(name, layers)]
    for line in told:
        console.print(line, soft_wrap=True, markup=False)


def _check_numbers(given: dict[str, float | None], prefix: str) -> None:
    for name, value in given.items():
        if value is not None and not 0.0 < value < math.inf:
            raise UserError(f"{prefix}{name} {value:g} must be a finite number above 0")


def _checks(
    plan: Plan, chosen: dict[str, tuple[Arm, float]], base: int, widths: Sequence[int]
) -> dict[str, list[Layer]]:
    """The coordinate check of every arm that has rules."""
    from ..experiment.plan.any_arm import is_any
    from ..experiment.transfer.coordinates import check_widths, coordinate_check
    from ..experiment.transfer.widths import at_widths
    from .progress import Progress

    over = sorted({*(widths or (base, 2 * base, 4 * base))})
    check_widths(over)
    tasks = at_widths(plan, over, base)
    known = {name: found for name, found in chosen.items() if not is_any(found[0].optimizer)}
    checks = {}
    with Progress() as shown:
        for i, (name, (arm, lr)) in enumerate(known.items()):
            shown(f"coordinate check of {name}, {len(over)} widths", i, len(known))
            checks[name] = coordinate_check(tasks, arm, lr=lr)
    return checks
