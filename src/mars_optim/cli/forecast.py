"""``mars forecast``: the token ratio at a size that was not run."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console


def forecast(
    *,
    source: Annotated[Path, Parameter(name="--from")],
    baseline: str,
    parameters: float,
    tokens: float,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Forecast what is left of each arm's gain at your size, from runs at smaller ones.

    Says for each arm the token ratio, tokens that the baseline would need for the arm's loss over
    the arm's own, with its 80 and 95 % intervals; or why the runs cannot tell, and which run would
    help most for its price.

    Parameters
    ----------
    source:
        CSV file with the columns arm, parameters, tokens, loss and, where known, seed: one row a
        run, at its end.
    baseline:
        Arm that the others are compared with.
    parameters:
        Of the model to forecast, counted as in the table; such as 1.2e9.
    tokens:
        It will be trained on; such as 2.4e10.
    json:
        Print the forecast as JSON.
    """
    from ..experiment.scaling.answer import as_json, lines
    from ..experiment.scaling.answer import forecast as foretell
    from ..experiment.scaling.rows import read_rows
    from ..experiment.scaling.table import table

    told = foretell(table(read_rows(source), baseline), parameters, tokens)
    if json:
        print(json_format.dumps(as_json(told), indent=1))
        return
    console = Console(highlight=False)
    for line in lines(told):
        console.print(line, soft_wrap=True, markup=False)
