"""The public records beside this file, and token ratios read off them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mars_optim.experiment.scaling.rows import Row

FOLDER = Path(__file__).parent / "data" / "public_runs"
Ladder = dict[float, float]  # tokens -> loss
AVERAGED = ("tail", "refinterp", "phase", "rre", "ema", "readout", "combo", "probes")


def records(name: str) -> list[dict[str, str]]:
    """The rows of a table of the folder, by the names of its columns."""
    path = FOLDER / name
    data = path.read_bytes()
    text = gzip.decompress(data) if name.endswith(".gz") else data
    return list(csv.DictReader(text.decode().splitlines()))


def marin(path: Path | None = None) -> list[Row]:
    """The best loss of each optimizer, size and budget of marin's sweep."""
    rows = records("marin_best.csv")
    if path is not None:
        with path.open() as file:
            rows = list(csv.DictReader(file))
    return [
        Row(r["optimizer"], float(r["params"]), float(r["tokens"]), float(r["loss"]))
        for r in rows
        if r["loss"]
    ]


def final_losses() -> dict[str, list[float]]:
    """The last losses of track 3's runs by cell, but of cells whose last weights are averages."""
    last: dict[str, dict[str, tuple[int, float]]] = {}
    for row in records("track3.csv.gz"):
        if row["variant"] == "raw" and not any(w in row["cell"].lower() for w in AVERAGED):
            step, cell = int(row["step"]), last.setdefault(row["cell"], {})
            if step >= cell.get(row["run"], (0, 0.0))[0]:
                cell[row["run"]] = (step, float(row["val_loss"]))
    return {
        name: [loss for step, loss in runs.values() if step == max(s for s, _ in runs.values())]
        for name, runs in last.items()
    }


def ladders(rows: Iterable[Row], arm: str) -> dict[float, Ladder]:
    """Tokens and losses of an arm by number of parameters."""
    found: dict[float, Ladder] = {}
    for row in rows:
        if row.arm == arm:
            found.setdefault(row.parameters, {})[row.tokens] = row.loss
    return found


def read_off(ladder: Ladder, loss: float, tokens: float) -> float:
    """Log token ratio: log tokens at which the ladder's law has the loss, less those taken.

    E + b tokens^-beta by least squares, with beta from 0.1 to 1: with it the ratio can be read a
    little beyond the last rung, where a chord would overstate it.

    Args:
        ladder: two rungs or more; through two goes a law with beta = 0.3.
        loss: to reach.
        tokens: that the arm took.

    Returns:
        inf if the law never reaches the loss.
    """
    d = np.log(np.array(sorted(ladder))) - np.log(tokens)
    y = np.array([ladder[key] for key in sorted(ladder)])
    best = (np.inf, 0.0, 1.0, 1.0)
    for beta in np.linspace(0.1, 1.0, 91) if len(d) > 2 else (0.3,):
        columns = np.column_stack([np.ones_like(d), np.exp(-beta * d)])
        (floor, fall), *_ = np.linalg.lstsq(columns, y, rcond=None)
        error = float(((columns @ [floor, fall] - y) ** 2).sum())
        best = min(best, (error, float(floor), float(fall), float(beta)))
    _, floor, fall, beta = best
    return float(-np.log((loss - floor) / fall) / beta) if loss > floor else float("inf")


def observed(rows: list[Row], baseline: str) -> dict[tuple[str, float, float], float]:
    """Log token ratio of each arm, size and budget, read off the baseline's ladder there."""
    base = ladders(rows, baseline)
    return {
        (row.arm, row.parameters, row.tokens): read_off(base[row.parameters], row.loss, row.tokens)
        for row in rows
        if row.arm != baseline and len(base.get(row.parameters, ())) > 1
    }
