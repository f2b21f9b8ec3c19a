"""The rows of a table of losses, read from a file."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, did_you_mean

COLUMNS = ("arm", "parameters", "tokens", "loss")


@dataclass(frozen=True, slots=True)
class Row:
    """One run, at its end.

    Args:
        arm: its name.
        parameters: of the model, counted alike in all rows.
        tokens: trained on.
        loss: at the end, in one unit in all rows.
        seed: "" if not known.
        place: for messages, such as "line 3".
    """

    arm: str
    parameters: float
    tokens: float
    loss: float
    seed: str = ""
    place: str = ""


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file.

    Raises:
        UserError: naming the line and what is needed there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; --from needs a CSV file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8; --from needs a CSV file") from None
    try:
        lines = list(csv.reader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from None
    head = [name.strip() for name in lines[0]] if lines else []
    _check_head(path, head)
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise UserError(
                f"{path}, line {number} has {len(cells)} cells, and the heading has {len(head)}"
            )
        row = dict(zip(head, (cell.strip() for cell in cells), strict=True))
        rows.append(_row(f"{path}, line {number}", row))
    return rows


def _check_head(path: Path, head: Sequence[str]) -> None:
    for column in COLUMNS:
        if column not in head:
            found = ", ".join(head)[:120] or "nothing"
            raise UserError(
                f"{path} has no column {column!r}{did_you_mean(column, head)}; it needs "
                f"{', '.join(COLUMNS)} and, where known, seed, separated by commas; its first "
                f"line has: {found}"
            )
    for name, count in Counter(head).items():
        if count > 1 and name in (*COLUMNS, "seed"):
            raise UserError(f"{path} has {count} columns {name!r}; one is needed")


def _row(place: str, row: dict[str, str]) -> Row:
    if not row["arm"]:
        raise UserError(f"{place}: arm is empty; it needs a name, the same in all rows of an arm")
    numbers = []
    for column in COLUMNS[1:]:
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if column == "loss" and (not math.isfinite(value)):
            raise UserError(
                f"{place}: loss = {row[column]!r} of {row['arm']!r} is not a finite number, "
                "so the run has not finished or it diverged: finish it, or leave the row out"
            )
        if not (math.isfinite(value) and value > 0):
            raise UserError(
                f"{place}: {column} = {row[column]!r} of {row['arm']!r} must be a number above 0"
            )
        numbers.append(value)
    size, tokens, loss = numbers
    return Row(row["arm"], size, tokens, loss, row.get("seed", ""), place)
