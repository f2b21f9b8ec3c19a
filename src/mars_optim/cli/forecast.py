"""``mars forecast``: the token ratio at a size that was not run."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError
from .completions import known_arms
from .report import unpack

if TYPE_CHECKING:
    from ..experiment.analysis.pilot_rows import PilotRows
    from ..experiment.plan import Plan

T = TypeVar("T", str, float)


def forecast(
    runs: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = (),
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    baseline: Annotated[str | None, Parameter(completer=known_arms)] = None,
    parameters: float | None = None,
    tokens: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Forecast how much of the gain is left for a larger model, from runs of smaller ones.

    Print the token ratio of each arm, with 80 and 95 % intervals: the tokens that the baseline
    would need for the arm's loss, over the arm's own tokens. If the runs cannot tell, print the
    reason, and the run that would help most for its price.

    Parameters
    ----------
    runs:
        Folders of pilots on the same data, or tables that end in .csv; all of them count together.
    source:
        CSV file with the columns arm, parameters, tokens, loss and, if known, seed: one row per
        run, with the values at its end.
    baseline:
        Arm that the others are compared with (default: the pilots').
    parameters:
        Parameters of the model to forecast, counted as in the runs; such as 1.2e9 (default: the
        pilots' target.parameters).
    tokens:
        Tokens that it will be trained on; such as 2.4e10 (default: the pilots' target.tokens).
    json:
        Print the forecast as JSON.
    """
    from ..experiment.analysis.at_target import foretold
    from ..experiment.scaling.answer import as_json, lines

    given = (*runs, *([source] if source else []))
    if not given:
        raise UserError("give pilots' folders, such as `mars forecast RUN`, or --from table.csv")
    plans, rows = _rows(given)
    targets = [plan.target for plan in plans if plan.target]
    compared = baseline or _common("baseline", [plan.comparison.baseline for plan in plans])
    if parameters is None:
        parameters = _common("parameters", [target.parameters for target in targets])
    if tokens is None:
        tokens = _common("tokens", [target.tokens for target in targets])
    told = foretold(rows, compared, parameters, tokens)[2]
    if json:
        print(json_format.dumps(as_json(told), indent=1))
        return
    console = Console(highlight=False)
    missing = [f"{rows.missing} of the pilots' runs have not finished."] if rows.missing else []
    for line in [*lines(told), *missing]:
        console.print(line, soft_wrap=True, markup=False)


def _rows(given: tuple[Path, ...]) -> tuple[list[Plan], PilotRows]:
    """The pilots' plans, and the rows of pilots and tables."""
    from ..experiment.analysis.pilot_rows import read_pilots
    from ..experiment.scaling.rows import read_rows

    folders = [path for path in given if path.is_dir()]
    for folder in folders:
        unpack(folder)
    plans, rows = read_pilots(folders)
    for path in given:
        if path not in folders:
            rows = replace(rows, rows=(*rows.rows, *read_rows(path)))
    return plans, rows


def _common(option: str, values: Sequence[T]) -> T:
    """The one value that all pilots' plans have."""
    if len(found := list(dict.fromkeys(values))) == 1:
        return found[0]
    texts = (f"{value:g}" if isinstance(value, float) else value for value in found)
    named = f"the pilots' plans have {' and '.join(texts)}"
    raise UserError(f"--{option} is needed: {named if found else 'no plan of a pilot has it'}")
