from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.scaling.rows import Row, read_rows
from mars_optim.experiment.scaling.table import table
from tests.support.scaling_worlds import rows

HEAD = "arm,parameters,tokens,loss\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no column 'arm'", "nothing"]),
        ("arm;parameters;tokens;loss\n", ["no column 'arm'", "separated by commas"]),
        ("arm,params,tokens,loss\n", ["no column 'parameters'", "did you mean 'params'"]),
        ("arm,parameters,tokens,loss,loss\n", ["2 columns 'loss'"]),
        (HEAD + "a,1e8,1e9\n", ["line 2", "3 cells, and the heading has 4"]),
        (HEAD + "a,1e8,1e9,3\na,1e8,2e9,nan\n", ["line 3", "'nan'", "has not finished"]),
        (HEAD + "a,1e8,1e9,\n", ["loss = ''", "leave the row out"]),
        (HEAD + "a,1e8,1e9,inf\n", ["loss = 'inf'"]),
        (HEAD + "a,-1,1e9,3\n", ["parameters = '-1'", "above 0"]),
        (HEAD + "a,1e8,0,3\n", ["tokens = '0'", "above 0"]),
        (HEAD + "a,1e8,many,3\n", ["tokens = 'many'"]),
        (HEAD + "a,1e8,1e9,-3\n", ["loss = '-3'", "above 0"]),
        (HEAD + ",1e8,1e9,3\n", ["arm is empty"]),
    ],
    ids=range(13),
)
def test_what_is_wrong_with_a_file_is_named(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_rows(path)
    assert all(word in str(error.value) for word in [str(path), *words])


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x01")
    for name, word in (("absent", "No such file"), ("", "folder"), ("bytes", "UTF-8")):
        with pytest.raises(UserError, match=word):
            read_rows(tmp_path / name)


def test_spaces_empty_lines_and_further_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffloss, arm ,lr,parameters,tokens,seed\n3.5, a ,1e-3,1e8,1e9,4\n\n")
    assert read_rows(path) == [Row("a", 1e8, 1e9, 3.5, "4", f"{path}, line 2")]


def bits(row: Row) -> Row:
    return replace(row, loss=row.loss / math.log(2)) if row.arm == "arm" else row


def perplexity(row: Row) -> Row:
    return replace(row, loss=math.exp(row.loss)) if row.arm == "arm" else row


def with_embeddings(row: Row) -> Row:
    return replace(row, parameters=row.parameters + 4e7) if row.arm == "arm" else row


def rising(row: Row) -> Row:
    return replace(row, loss=6 - row.loss)


def slipped_point(row: Row) -> Row:
    slipped = (row.arm, row.parameters, row.tokens) == ("base", 1e8, 2e9)
    return replace(row, loss=10 * row.loss) if slipped else row


def capitals(row: Row) -> Row:
    return replace(row, arm="Arm") if row.arm == "arm" and row.parameters > 1e8 else row


def endless(row: Row) -> Row:
    return replace(row, tokens=1e300, place="line 9") if row.tokens > 6e10 else row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bits, ["'arm' at 1e+08", "times that of 'base'", "bits"]),
        (perplexity, ["perplexity"]),
        (with_embeddings, ["'arm' at 1.4e+08", "in the same way", "embeddings"]),
        (rising, ["do not fall"]),
        (slipped_point, ["'arm' at 1e+08", "times that of 'base'"]),
        (capitals, ["'Arm' and 'arm'", "case only"]),
        (endless, ["line 9", "tokens = 1e+300", "mistyped"]),
    ],
    ids=["bits", "perplexity", "embeddings", "rising", "slipped point", "capitals", "endless"],
)
def test_rows_that_cannot_be_compared_are_named(
    change: Callable[[Row], Row], words: list[str]
) -> None:
    table(rows({"arm": 0.2}), "base")
    with pytest.raises(UserError) as error:
        table([change(row) for row in rows({"arm": 0.2})], "base")
    assert all(word in str(error.value) for word in words)


def test_a_run_that_is_there_twice_is_named() -> None:
    once = rows({"arm": 0.2})
    with pytest.raises(UserError, match="no seed is there twice"):
        table([*once, once[-1]], "base")
    seeded = rows({"arm": 0.2}, seeds=2)
    table(seeded, "base")
    with pytest.raises(UserError, match="seed '1' is there twice"):
        table([*seeded, seeded[-1]], "base")


def test_the_baseline_must_be_there_and_not_alone() -> None:
    with pytest.raises(UserError, match="did you mean 'base'"):
        table(rows({"arm": 0.2}), "bas")
    with pytest.raises(UserError, match="only the arm"):
        table(rows({}), "base")


def test_the_order_of_the_rows_changes_nothing() -> None:
    these = rows({"arm": 0.2, "brm": 0.1}, seeds=2)
    a, b = table(these, "base"), table(these[::-1], "base")
    np.testing.assert_array_equal(a.data.loss, b.data.loss)
    assert a.cells(1) == b.cells(1)


def test_the_seeds_noise_is_told_from_repeats_of_pairs() -> None:
    assert table(rows({"arm": 0.2}), "base").data.seed_sd is None
    found = table(rows({"arm": 0.2}, seeds=8, noise=0.01), "base")
    assert found.data.seed_sd is not None
    assert found.data.seed_sd * found.unit == pytest.approx(0.01, rel=0.2)
