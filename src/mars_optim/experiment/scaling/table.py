"""The table of losses: checked, and brought into the units of the fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import UserError, did_you_mean
from .fit import Data
from .law import Floats, Points
from .rows import Row

SAME_SIZE = 1e-3  # parameters that differ by less are one size
WIDEST = 1e9  # largest over smallest number of parameters, or of tokens


@dataclass(frozen=True, slots=True)
class Table:
    """Runs of the baseline and other arms, as the fit wants them.

    Args:
        arms: names, the baseline first.
        data: mean losses by arm, size and budget, in units of ``unit``.
        middle: log parameters and log tokens that the data are counted from.
        unit: of loss: its fall per e-fold of tokens.
    """

    arms: tuple[str, ...]
    data: Data
    middle: tuple[float, float]
    unit: float

    def cells(self, arm: int) -> list[tuple[float, float]]:
        """Parameters and tokens of an arm's cells."""
        at = self.data.at[self.data.at.arm == arm]
        columns = np.exp(at.n + self.middle[0]), np.exp(at.d + self.middle[1])
        sizes, tokens = ([float(f"{x:.9g}") for x in column] for column in columns)
        return list(zip(sizes, tokens, strict=True))

    def at(self, parameters: float, tokens: float, arms: Sequence[int]) -> Points:
        """A size and budget, once for each of the arms."""
        n, d = math.log(parameters) - self.middle[0], math.log(tokens) - self.middle[1]
        ones = np.ones(len(arms))
        return Points(n * ones, d * ones, np.asarray(arms, np.intp))


def table(rows: Iterable[Row], baseline: str) -> Table:
    """Check the rows, and bring them into the units of the fit.

    Args:
        rows: in any order.
        baseline: name of the arm that the others are compared with.

    Raises:
        UserError: naming what cannot be compared, and what is needed.
    """
    rows = sorted(rows, key=lambda r: (r.arm, r.parameters, r.tokens, r.seed))
    names = sorted({row.arm for row in rows})
    if baseline not in names:
        known = ", ".join(names) or "none"
        raise UserError(
            f"--baseline {baseline!r} is not an arm of the table (known: "
            f"{known}){did_you_mean(baseline, names)}"
        )
    if len(names) < 2:
        raise UserError(f"the table has only the arm {baseline!r}; it needs another arm to compare")
    arms = (baseline, *(name for name in names if name != baseline))
    _check_names(names)
    _check_ranges(rows)
    sizes = _sizes(rows)
    rows = [Row(r.arm, sizes[r.parameters], r.tokens, r.loss, r.seed, r.place) for r in rows]
    _check_duplicates(rows)
    _check_sizes(rows, arms)
    _check_units(rows, arms)
    return _of(rows, arms)


def _sizes(rows: Sequence[Row]) -> dict[float, float]:
    """Each number of parameters -> the least one that is the same size."""
    sizes: dict[float, float] = {}
    last = 0.0
    for value in sorted({row.parameters for row in rows}):
        last = last if last and value < last * (1 + SAME_SIZE) else value
        sizes[value] = last
    return sizes


def _check_names(names: Sequence[str]) -> None:
    for one, other in pairwise(sorted(names, key=str.casefold)):
        if one.casefold() == other.casefold():
            raise UserError(
                f"the arms {one!r} and {other!r} differ in upper and lower case only: if they "
                "are one arm, spell its name alike in all rows; else rename one of them"
            )


def _check_ranges(rows: Sequence[Row]) -> None:
    """A law over such a range would be about one mistyped number."""
    for name in ("parameters", "tokens"):
        low, *_, high = sorted(rows, key=lambda row: float(getattr(row, name)))
        least, most = getattr(low, name), getattr(high, name)
        if most > WIDEST * least:
            raise UserError(
                f"{high.place}: {name} = {most:g} is more than {WIDEST:g} times the {least:g} "
                f"of {low.place}: fix the mistyped one, or leave its row out"
            )


def _check_duplicates(rows: Sequence[Row]) -> None:
    seen: dict[tuple[str, float, float, str], Row] = {}
    for row in rows:
        key = (row.arm, row.parameters, row.tokens, row.seed)
        if key in seen:
            seed = f"seed {row.seed!r}" if row.seed else "no seed"
            raise UserError(
                f"{row.place}: {_cell(row)} with {seed} is there twice (first: "
                f"{seen[key].place}): repeated runs need a column seed that tells them apart, "
                "and of several settings only the chosen one belongs in the table"
            )
        seen[key] = row


def _check_sizes(rows: Sequence[Row], arms: Sequence[str]) -> None:
    """An arm's sizes are the baseline's, or it may count parameters in another way."""
    theirs = {(r.parameters, r.tokens) for r in rows if r.arm == arms[0]}
    sizes = {n for n, _ in theirs}
    for arm in arms[1:]:
        mine = [r for r in rows if r.arm == arm]
        near = (
            (r, n)
            for r in mine
            for n, d in sorted(theirs)
            if r.parameters not in sizes and r.tokens == d and 1 / 1.5 < r.parameters / n < 1.5
        )
        odd = next(near, None)
        if odd is None and not any(r.parameters in sizes for r in mine):
            odd = (mine[0], min(sizes, key=lambda n: abs(math.log(n / mine[0].parameters))))
        if odd:
            row, size = odd
            raise UserError(
                f"{row.place}: {_cell(row)}, where {arms[0]!r} has {size:.6g} parameters: "
                "count the parameters of all arms in the same way (embeddings in all or in "
                "none); an arm needs sizes that the baseline has"
            )


def _check_units(rows: Sequence[Row], arms: Sequence[str]) -> None:
    """Losses of all arms are in one unit, as far as their values can tell."""
    base = {(r.parameters, r.tokens): r.loss for r in rows if r.arm == arms[0]}
    quarters = np.quantile(list(base.values()), (0.25, 0.75))
    span = 2 * float(np.ptp(quarters))  # one mistyped loss does not widen it
    for arm in arms[1:]:
        pairs = [
            (r, r.loss / base[key], r.loss - base[key])
            for r in rows
            if r.arm == arm and (key := (r.parameters, r.tokens)) in base
        ]
        for row, ratio, gap in pairs:
            bits = min(abs(ratio * math.log(2) - 1), abs(ratio / math.log(2) - 1)) < 0.04
            if (bits and abs(gap) > span / 4) or (not 0.75 < ratio < 1.33 and abs(gap) > span):
                raise UserError(
                    f"{row.place}: {_cell(row)}: its loss {row.loss:g} is {ratio:.3g} times "
                    f"that of {arms[0]!r} there and may be in another unit (bits are 1.443 "
                    "times nats, perplexity is exp of nats): convert all losses to one unit, "
                    "or leave the arm out"
                )


def _cell(row: Row) -> str:
    return f"{row.arm!r} at {row.parameters:.6g} parameters and {row.tokens:.6g} tokens"


def _of(rows: Sequence[Row], arms: Sequence[str]) -> Table:
    cells: dict[tuple[int, float, float], dict[str, float]] = {}
    for row in rows:
        key = (arms.index(row.arm), row.parameters, row.tokens)
        cells.setdefault(key, {})[row.seed] = row.loss
    arm, size, tokens = (np.array(column) for column in zip(*cells, strict=True))
    loss = np.array([np.mean(list(runs.values())) for runs in cells.values()])
    middle = float(np.log(size).mean()), float(np.log(tokens).mean())
    at = Points(np.log(size) - middle[0], np.log(tokens) - middle[1], arm.astype(np.intp))
    unit = _fall(at, loss, len(arms))
    place = np.unique(np.column_stack([size, tokens]), axis=0, return_inverse=True)[1].ravel()
    runs = np.array([len(cell) for cell in cells.values()], float)
    sd = _seed_sd(cells)
    return Table(tuple(arms), Data(at, loss / unit, place, runs, sd and sd / unit), middle, unit)


def _fall(at: Points, loss: Floats, arms: int) -> float:
    """Fall of the loss per e-fold of tokens, by a plane with a level for each arm.

    Without more than one budget at a size, by a line over tokens.
    """
    levels = np.eye(arms)[at.arm]
    if np.ptp(at.d - at.n) > 0.05 and np.ptp(at.n) > 0.05:
        levels = np.column_stack([levels, at.n])
    fall = -float(np.linalg.lstsq(np.column_stack([levels, at.d]), loss, rcond=None)[0][-1])
    if not fall > 0:
        raise UserError(
            "the losses do not fall with more tokens: the column loss must hold a loss "
            "(lower is better) at the end of runs with different tokens, each with its rate "
            "decayed to the end"
        )
    return fall


def _seed_sd(cells: dict[tuple[int, float, float], dict[str, float]]) -> float | None:
    """Standard deviation of a seed's own effect, apart from its effect on all arms alike; None
    without repeats.

    Where the arms of a size and budget have the same seeds, these are taken as pairs.
    """
    squares = degrees = 0.0
    places: dict[tuple[float, float], list[dict[str, float]]] = {}
    for (_, size, tokens), runs in cells.items():
        places.setdefault((size, tokens), []).append(runs)
    for arms in places.values():
        paired = len({tuple(runs) for runs in arms}) == 1 and len(arms) > 1
        rests = [_centred(list(runs.values())) for runs in arms]
        if paired:
            rest = np.array(rests)
            squares += float(((rest - rest.mean(axis=0)) ** 2).sum())
            degrees += (len(arms) - 1) * (rest.shape[1] - 1)
        else:
            squares += sum(float((rest**2).sum()) for rest in rests)
            degrees += sum(len(rest) - 1 for rest in rests)
    return math.sqrt(squares / degrees) if degrees else None


def _centred(values: Sequence[float]) -> Floats:
    centred: Floats = np.array(values) - np.mean(values)
    return centred
