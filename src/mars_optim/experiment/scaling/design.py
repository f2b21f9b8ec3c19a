"""Limits of a table for a target, and the further run that tells most for its price."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .forecast import Posterior
from .law import Floats, Points
from .table import Table

FARTHEST = {1: 1.25, 2: 2.0}  # times beyond the sizes measured, by their number
SHORT = 4.0
"""Times shorter than the target that are worth a caution: over such a factor signs have turned."""
FAR = 8.0  # with more of them, and for tokens per parameter
FEWEST = 3  # cells of an arm
BUDGETS_APART = 1.5
WORTH_NAMING = 0.25  # of the variance that the best candidate takes


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a forecast is refused: a sentence, and what a further run must be to mend it.

    Args:
        sentence: why, and what is needed.
        size: a run at another size is needed.
        budget: another budget of a size is needed.
    """

    sentence: str
    size: bool = False
    budget: bool = False


@dataclass(frozen=True, slots=True)
class NextRun:
    """A run of both arms that would narrow the forecast.

    Args:
        arms: baseline and arm.
        parameters: of the model.
        tokens: of each run.
        flop: of both, 6 parameters x tokens each.
        narrows: expected share of the variance of the log ratio that it takes away.
    """

    arms: tuple[str, str]
    parameters: float
    tokens: float
    flop: float
    narrows: float


def lack(table: Table, arm: int, parameters: float, tokens: float) -> Lack | None:
    """Runs that the design lacks for this target; None if it lacks none.

    Args:
        table: of losses.
        arm: its number.
        parameters: of the target.
        tokens: of the target.
    """
    names = table.arms[arm], table.arms[0]
    return lack_of(names, table.cells(arm), table.cells(0), parameters, tokens)


def lack_of(
    names: tuple[str, str],
    mine: Sequence[tuple[float, float]],
    base: Sequence[tuple[float, float]],
    parameters: float,
    tokens: float,
) -> Lack | None:
    """As :func:`lack`, from the cells alone, be they run or planned.

    Args:
        names: of the arm and the baseline.
        mine: parameters and tokens of the arm's cells.
        base: of the baseline's.
        parameters: of the target.
        tokens: of the target.
    """
    name, baseline = names
    if not any(max(b) > BUDGETS_APART * min(b) for b in _budgets(base)):
        return Lack(
            f"{baseline} has one budget at each size, so the effects of tokens and of "
            "parameters on its loss cannot be separated; run one size at two budgets, a "
            "factor of 2 or more apart",
            budget=True,
        )
    if len(mine) < FEWEST:
        return Lack(f"{name} has {len(mine)} cells, and at least {FEWEST} are needed")
    sizes = sorted({n for n, _ in mine} & {n for n, _ in base})
    most = FARTHEST.get(len(sizes), FAR)
    if not sizes[0] / most <= parameters <= sizes[-1] * most * (1 + 1e-6):
        far, edge = max((parameters / sizes[-1], sizes[-1]), (sizes[0] / parameters, sizes[0]))
        many = "one size" if len(sizes) == 1 else f"{len(sizes)} sizes"
        more = "" if len(sizes) > 2 else f" (three or more tell within {FAR:g} times)"
        return Lack(
            f"{name} and {baseline} share {many}, enough for targets within {most:g} times of "
            f"them{more}; {parameters:.4g} parameters are {far:.3g} times from {edge:.4g}",
            size=True,
        )
    lengths = sorted({d / n for n, d in mine})
    most = FAR if lengths[-1] > BUDGETS_APART * lengths[0] else 2.0
    if not lengths[0] / most <= tokens / parameters <= lengths[-1] * most * (1 + 1e-6):
        return Lack(
            f"{tokens / parameters:.3g} tokens per parameter are more than {most:g} times from "
            f"what {name} was run at ({lengths[0]:.3g} to {lengths[-1]:.3g})",
            budget=True,
        )
    return None


def _budgets(cells: Iterable[tuple[float, float]]) -> list[list[float]]:
    found: dict[float, list[float]] = {}
    for size, tokens in cells:
        found.setdefault(size, []).append(tokens)
    return list(found.values())


def next_run(
    table: Table,
    found: Posterior,
    arm: int,
    target: tuple[float, float],
    logs: Floats,
    lacking: Lack | None,
) -> NextRun | None:
    """The pair of runs that narrows the forecast most for its price.

    Over draws of the law, with x the loss difference of a pair that might be run and y the log
    ratio at the target:

        narrows = cov(x, y)^2 / (var(x) + noise of x) / var(y)

    Of the candidates that narrow at least a quarter as much as the best, the one with the most for
    each FLOP. They are cheaper than the target.

    Args:
        table: of losses.
        found: the law.
        arm: its number.
        target: parameters and tokens.
        logs: draws of the log ratio there.
        lacking: what the run must bring.
    """
    cells = [c for c in _candidates(table, target) if _mends(table, c, lacking)]
    if not cells:
        return None
    options = []
    noise = found.noise(table)
    y = logs - logs.mean()
    losses = found.losses(Points.joined([table.at(*cell, [0, arm]) for cell in cells]))
    pairs = losses[:, 1::2] - losses[:, ::2]
    for (size, tokens), x in zip(cells, (pairs - pairs.mean(axis=0)).T, strict=True):
        taken = float((x @ y) ** 2 / ((x @ x + 2 * noise**2 * len(x)) * (y @ y)))
        options.append((taken, size, tokens))
    worth = [o for o in options if o[0] >= WORTH_NAMING * max(options)[0]]
    taken, size, tokens = max(worth, key=lambda o: o[0] / (o[1] * o[2]))
    arms = (table.arms[0], table.arms[arm])
    return NextRun(arms, size, tokens, 12 * size * tokens, taken)


def _candidates(table: Table, target: tuple[float, float]) -> list[tuple[float, float]]:
    """Sizes measured, between them and the target, and a half of the least; budgets likewise."""
    known = table.cells(0)
    sizes = sorted({n for n, _ in known})
    lengths = sorted({round(d / n, 3) for n, d in known})
    sizes += [math.sqrt(sizes[-1] * target[0]), target[0] / 2, 2 * sizes[-1], sizes[0] / 2]
    lengths += [2 * lengths[-1], 4 * lengths[-1], target[1] / target[0]]
    return [
        (size, length * size)
        for size, length in itertools.product(sizes, lengths)
        if size * size * length < target[0] * target[1]
    ]


def _mends(table: Table, cell: tuple[float, float], lacking: Lack | None) -> bool:
    size, tokens = cell
    known = table.cells(0)
    if lacking and lacking.size:
        return all(abs(math.log(size / n)) > 0.4 for n, _ in known)
    if lacking and lacking.budget:
        same = [d for n, d in known if abs(n / size - 1) < 0.01]
        return bool(same) and all(abs(math.log(tokens / d)) > 0.4 for d in same)
    return True
