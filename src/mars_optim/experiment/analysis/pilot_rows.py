"""The runs of pilots as rows of a table of losses, from which a larger size is forecast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ...errors import UserError
from ..plan import Arm, Plan
from ..plan.decision import LOSS
from ..plan.plan_file import load_plan, plan_of
from ..records import Run, read_runs
from ..scaling.rows import Row
from .compared import Comparison
from .comparison import comparison
from .no_runs import no_runs

RATES = ("lr", "lr_1d", "lr_1d_ratio")
MOMENTS = ("betas", "betas_1d", "weight_decay", "weight_decay_1d")
OF_A_SIZE = {*RATES, *MOMENTS, "options", "settings", "folder"}
"""Settings in which pilots of several sizes may differ: what is tuned or carried to a size."""


@dataclass(frozen=True, slots=True)
class PilotRows:
    """Losses of pilots over parameters and tokens.

    Args:
        rows: compared runs that ended, one at each arm, size, budget and seed.
        diverged: runs of each arm that did not.
        missing: runs that have not ended.
    """

    rows: tuple[Row, ...]
    diverged: Counter[str]
    missing: int


def rows_of(pilots: Iterable[tuple[Plan, Iterable[Comparison]]]) -> PilotRows:
    """The rows of pilots together.

    Where two budgets are equally many tokens, such as a rung and another size's own budget, the
    run whose rates were tuned nearest to it stands.

    Raises:
        UserError: if the runs do not tell parameters or tokens.
    """
    chosen: dict[tuple[str, float, float, str], dict[str, tuple[float, Run]]] = {}
    diverged: Counter[str] = Counter()
    missing = 0
    for plan, at in ((plan, at) for plan, sizes in pilots for at in sizes):
        missing += at.missing
        for (arm, seed, steps), run in at.compared.items():
            if run.final_loss is None:
                diverged[arm] += 1
                continue
            known = chosen.setdefault((arm, *_size_of(plan, run), str(seed)), {})
            off = abs(math.log(steps / at.size.steps(1.0)))
            first = known.get(run.spec.run_id, (math.inf, run))
            known[run.spec.run_id] = min(first, (off, run), key=lambda found: found[0])
    rows = []
    for (arm, parameters, tokens, number), runs in chosen.items():
        _, one = min(runs.values(), key=lambda found: found[0])
        # two at their own budget are told where the table is checked
        for run in [run for off, run in runs.values() if off == 0] or [one]:
            loss = run.final_loss or 0.0
            rows.append(Row(arm, parameters, tokens, loss, number, run.path.as_posix()))
    return PilotRows(tuple(rows), diverged, missing)


def _size_of(plan: Plan, run: Run) -> tuple[float, float]:
    """Parameters and tokens of a run that has ended, as the plan or the run tells them."""
    outcome, said = run.outcome, plan.target
    assert outcome is not None
    imported = plan.task.kind == "imported"
    way = "mars report --from ..." if imported else f"mars pilot --out {run.path.parent.parent}"
    parameters = said.pilot_parameters or float(outcome.parameters)
    tokens = said.pilot_tokens_per_step * outcome.steps or float(outcome.tokens)
    if not parameters:
        raise UserError(
            f"{run.path}: the run does not record the parameters of its model, which the "
            f"forecast needs: `{way} --set target.pilot_parameters=1e6` gives them (no run is "
            "repeated)"
        )
    if tokens == outcome.steps:
        raise UserError(
            f"{run.path}: the run counts one token a step, and the forecast needs tokens: "
            f"`{way} --set target.pilot_tokens_per_step=65536` gives them (no run is repeated)"
        )
    return parameters, tokens


def read_pilot(out: Path) -> tuple[Plan, list[Run]]:
    """The plan of a pilot's folder and its finished runs.

    Raises:
        UserError: if it is none, has no finished run or has trunks, or decides by another metric
            than the loss.
    """
    if not (out / "plan.toml").exists():
        raise UserError(
            f"{out} holds no pilot (no plan.toml): give folders that `mars pilot` wrote, or "
            "tables that end in .csv"
        )
    plan = load_plan(plan_of(out))
    if plan.decision.metric != LOSS:
        raise UserError(
            f"{out} decides by decision.metric = {plan.decision.metric!r}, for which its "
            "rates were tuned; the forecast is of the loss: give a pilot that decides by the "
            "loss"
        )
    if plan.training.trunk:
        raise UserError(
            f"{out} has training.trunk = true: runs that branch from one trunk depend on each "
            "other, and the forecast needs independent runs; give a pilot without trunks"
        )
    runs = [r for r in read_runs(out / "runs") if r.outcome and plan.covers(r.spec)]
    if not runs:
        raise UserError(no_runs(plan, out))
    return plan, runs


def read_pilots(folders: Sequence[Path]) -> tuple[list[Plan], PilotRows]:
    """The rows of several pilots together, or of none.

    Raises:
        UserError: if their losses cannot be compared.
    """
    given: dict[Path, Path] = {}
    for folder in folders:
        if first := given.get(folder.resolve()):
            raise UserError(f"{folder} is the same as {first}: give each once")
        given[folder.resolve()] = folder
    pilots = [(folder, *read_pilot(folder)) for folder in folders]
    if pilots:
        _check_alike(pilots)
    sized = [
        (plan, [comparison(plan, size, runs) for size in plan.sizes()]) for _, plan, runs in pilots
    ]
    return [plan for plan, _ in sized], rows_of(sized)


def _check_alike(pilots: Sequence[tuple[Path, Plan, list[Run]]]) -> None:
    """One text, and under one name one optimizer, but for what each size has its own."""
    folder, _, runs = pilots[0]
    for other, _, more in pilots[1:]:
        if more[0].spec.data != runs[0].spec.data:
            raise UserError(
                f"{folder} and {other} were trained on different data, so their losses do not "
                "lie on one curve: forecast from pilots on the same data"
            )
    first: dict[str, tuple[Path, Arm]] = {}
    for other, plan, _ in pilots:
        for name, arm in plan.arm.items():
            where, known = first.setdefault(name, (other, arm))
            for key in (f.name for f in fields(Arm) if f.name not in OF_A_SIZE):
                if getattr(known, key) != getattr(arm, key):
                    raise UserError(
                        f"arm {name!r} has {key} = {getattr(known, key)!r} in {where} and "
                        f"{getattr(arm, key)!r} in {other}: give one of them another name"
                    )
