"""The tables of a ladder of sizes: each arm beside the baseline, its trend with size and length.

The ratio of tokens is read off the baseline's own fall at that size. With L its mean loss and D its
tokens, log L is taken as a line in log D between two lengths, of slope -s; its fall there is s L
for each e-fold of tokens, and an arm whose loss is less by d has

    log ratio = d / (s L)

s is that towards the next length; at the longest, that from the one before. Intervals are Student's
t of the paired seeds. A cell of one or two pairs takes the standard deviation of the arm's next
smaller size at the same number of tokens per parameter, where runs are shorter and noisier. What
the choice of a rate adds is in no interval of a cell. The trend is the plane

    log ratio = a + g log N + h log (D / N)

through the means of the cells, with Student's t interval by their scatter around it: g is growth
with size at a fixed number of tokens per parameter, h with length at a fixed size, and g - h with
size at fixed tokens.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mars_optim.experiment.analysis.stats import t_interval

from .study_runs import Row
from .table import markdown

SAME_LENGTH = 0.1
"""Share by which tokens per parameter may differ, for steps are whole."""
ENOUGH = 3
"""Pairs that tell their own noise."""

Place = tuple[int, int]
"""Parameters and tokens of a cell."""


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float

    def shown(self, form: str = "+.3f") -> str:
        """Such as ``+0.010 (-0.002 to +0.022)``; the mean alone without an interval, - for nan."""
        if math.isnan(self.mean):
            return "-"
        ends = "" if math.isnan(self.low) else f" ({self.low:{form}} to {self.high:{form}})"
        return f"{self.mean:{form}}{ends}"

    def scaled(self, factor: float) -> Estimate:
        """Times a positive number."""
        return Estimate(*(factor * x for x in self))

    def exponential(self) -> Estimate:
        """The ratio that a log ratio stands for."""
        return Estimate(*(math.exp(x) for x in self))


class Cell(NamedTuple):
    """One arm at one place: its differences to the baseline, by pairs."""

    place: Place
    arm: str
    rate: float
    losses: Mapping[int, float]
    differences: tuple[float, ...]
    fall: float
    """Fall of the baseline's loss for each e-fold of tokens there; nan where it has one length."""

    @property
    def log_ratio(self) -> float:
        """Mean over its pairs; nan without any."""
        return -statistics.fmean(self.differences or (math.nan,)) / self.fall


def cells_of(rows: Sequence[Row], baseline: str) -> list[Cell]:
    """All arms at all places, as far as there are runs."""
    losses: dict[tuple[Place, str], dict[int, float]] = {}
    rates = {}
    for row in rows:
        key = (row.parameters, row.tokens), row.arm
        losses.setdefault(key, {})[row.seed] = row.loss
        rates[key] = row.rate
    falls = _falls({place: its for (place, arm), its in losses.items() if arm == baseline})
    cells = []
    for (place, arm), its in losses.items():
        base = losses.get((place, baseline), {})
        pairs = tuple(its[s] - base[s] for s in sorted(its.keys() & base.keys()))
        fall = falls.get(place, math.nan)
        cells.append(Cell(place, arm, rates[place, arm], its, pairs, fall))
    return sorted(cells, key=lambda cell: cell.place)


def _falls(base: Mapping[Place, Mapping[int, float]]) -> dict[Place, float]:
    """The baseline's fall at each place that has another length beside it."""
    falls = {}
    for _, same in groupby(sorted(base), key=lambda place: place[0]):
        places = list(same)
        for i, place in enumerate(places[: len(places) if len(places) > 1 else 0]):
            one, other = places[min(i, len(places) - 2) :][:2]
            seeds = base[one].keys() & base[other].keys()
            if seeds:
                logs = [math.log(statistics.fmean(base[p][s] for s in seeds)) for p in (one, other)]
                slope = (logs[0] - logs[1]) / math.log(other[1] / one[1])
                falls[place] = slope * statistics.fmean(base[place].values())
    return falls


class Noise(NamedTuple):
    """Standard deviation of paired differences, and its degrees of freedom."""

    sd: float
    freedom: int


def noise_of(cells: Sequence[Cell], cell: Cell) -> Noise | None:
    """By the cell's own pairs, or by those of the next smaller size at the same length."""
    size, tokens = cell.place
    like = [
        c
        for c in cells
        if c.arm == cell.arm
        and c.place[0] <= size
        and abs(c.place[1] / c.place[0] / (tokens / size) - 1.0) < SAME_LENGTH
        and len(c.differences) >= ENOUGH
        and all(map(math.isfinite, c.differences))
    ]
    if not like:
        return None
    nearest = max(like, key=lambda c: c.place[0]).differences
    return Noise(statistics.stdev(nearest), len(nearest) - 1)


def difference(cell: Cell, noise: Noise | None) -> Estimate:
    """Mean difference to the baseline; without pairs or noise, without an interval."""
    if not cell.differences:
        return Estimate(math.nan, math.nan, math.nan)
    mean = statistics.fmean(cell.differences)
    if noise is None or not math.isfinite(mean):
        return Estimate(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, noise.freedom)) * noise.sd / math.sqrt(len(cell.differences))
    return Estimate(mean, mean - half, mean + half)


def ratio(cell: Cell, noise: Noise | None) -> Estimate:
    """Tokens that the baseline needs for the arm's loss, over the arm's."""
    mean, low, high = difference(cell, noise)
    return Estimate(-mean, -high, -low).scaled(1.0 / cell.fall).exponential()


class Trend(NamedTuple):
    """Change of the log ratio for ten times as much."""

    size: Estimate
    """Trend over parameters, tokens per parameter fixed."""
    length: Estimate
    """Trend over tokens, at a fixed size."""
    size_alone: Estimate
    """Trend over parameters, at fixed tokens."""
    cells: int


def trend(cells: Sequence[Cell], arm: str) -> Trend | None:
    """The plane through an arm's cells; None where they are too few or on one line."""
    mine = [c for c in cells if c.arm == arm and math.isfinite(c.log_ratio)]
    n = np.array([math.log(c.place[0]) for c in mine])
    k = np.array([math.log(c.place[1] / c.place[0]) for c in mine])
    y = np.array([c.log_ratio for c in mine])
    design = np.column_stack([np.ones(len(mine)), n, k])
    freedom = len(mine) - 3
    if freedom < 1 or np.linalg.matrix_rank(design - [0, *design[:, 1:].mean(0)], tol=0.1) < 3:
        return None
    plane, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ plane
    spread = np.linalg.inv(design.T @ design) * float(rest @ rest) / freedom
    half = float(stats.t.ppf(0.975, freedom))

    def along(direction: Sequence[float]) -> Estimate:
        way = np.array(direction) * math.log(10.0)
        mean, error = float(way @ plane), math.sqrt(float(way @ spread @ way))
        return Estimate(mean, mean - half * error, mean + half * error)

    return Trend(along((0, 1, 0)), along((0, 0, 1)), along((0, 1, -1)), len(mine))


def longer(cells: Sequence[Cell], arm: str) -> list[tuple[Place, Place, Estimate]]:
    """Change of an arm's log ratio with the next length at each size, paired by seeds."""
    mine = [cell for cell in cells if cell.arm == arm and math.isfinite(cell.log_ratio)]
    found = []
    for one, other in pairwise(mine):
        counts = {len(one.differences), len(other.differences)}
        if one.place[0] == other.place[0] and len(counts) == 1:  # seeds are made in one order
            pairs = zip(one.differences, other.differences, strict=True)
            changes = [a / one.fall - b / other.fall for a, b in pairs]
            told = t_interval(changes, 0.95)
            ends = (told.low, told.high) if len(changes) > 1 else (math.nan, math.nan)
            found.append((one.place, other.place, Estimate(told.mean, *ends)))
    return found


# -- as Markdown


def report(
    rows: Sequence[Row],
    baseline: str,
    foretold: Sequence[Mapping[str, Any]] = (),
    trend_from: int = 0,
) -> str:
    """All tables; of a study that is not whole, what there is.

    Args:
        rows: of compared runs.
        baseline: that arms are compared with.
        foretold: forecasts of the largest size, as ``mars forecast --json`` writes them.
        trend_from: tokens; cells of fewer are in no trend.
    """
    cells = cells_of(rows, baseline)
    if not cells:
        return "no runs yet\n"
    arms = list(dict.fromkeys(row.arm for row in rows if row.arm != baseline))
    parts = [
        _cells_table(cells, baseline),
        _length_table(cells, arms),
        _trend_table([c for c in cells if c.place[1] >= trend_from], arms),
    ]
    if foretold:
        parts.append(_forecast_table(cells, foretold))
    return "\n\n".join(parts) + "\n"


def _cells_table(cells: Sequence[Cell], baseline: str) -> str:
    rows = []
    for cell in cells:
        size, tokens = cell.place
        told = ["", ""]
        if cell.arm != baseline:
            noise = noise_of(cells, cell)
            told = [difference(cell, noise).shown(), ratio(cell, noise).shown(".2f")]
        loss = f"{statistics.fmean(cell.losses.values()):.4f}"
        length = f"{tokens / size:.0f}"
        count = str(len(cell.losses))
        rows.append([f"{size:,}", length, cell.arm, f"{cell.rate:.3g}", count, loss, *told])
    head = ["parameters", "tokens each", "arm", "rate", "seeds", "loss"]
    return markdown([*head, f"less {baseline}'s", "token ratio"], rows)


def _length_table(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    rows = [
        [f"{one[0]:,}", f"{one[1] / one[0]:.0f} to {other[1] / other[0]:.0f}", arm, told.shown()]
        for arm in arms
        for one, other, told in longer(cells, arm)
    ]
    head = ["parameters", "tokens each", "arm", "change of the log token ratio"]
    return markdown(head, sorted(rows, key=lambda row: int(row[0].replace(",", ""))))


def _trend_table(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    rows = []
    for arm in arms:
        found = trend(cells, arm)
        told = [part.shown() for part in found[:3]] if found else ["-"] * 3
        rows.append([arm, *told, str(found.cells) if found else "-"])
    head = ["log token ratio, change by ten times", "size, tokens in proportion"]
    return markdown([*head, "length, size fixed", "size, tokens fixed", "cells"], rows)


def _forecast_table(cells: Sequence[Cell], foretold: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for told in foretold:
        place = round(told["target"]["parameters"]), round(told["target"]["tokens"])
        measured = {cell.arm: cell for cell in cells if cell.place == place}
        for arm, answer in told["arms"].items():
            said = answer.get("token_ratio")
            text = (
                Estimate(said["mean"], said["low95"], said["high95"]).shown(".2f")
                if said
                else f"refused: {answer['refusal']}"
            )
            cell = measured.get(arm)
            seen = ratio(cell, noise_of(cells, cell)).shown(".2f") if cell else "not run"
            rows.append([f"{place[0]:,}", f"{place[1] / place[0]:.0f}", arm, text, seen])
    head = ["parameters", "tokens each", "arm", "forecast ratio (95 %)", "came out (95 %)"]
    return markdown(head, rows)
