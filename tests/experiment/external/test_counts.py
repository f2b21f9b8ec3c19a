"""Tokens and seconds count from the beginning of a run; numbers of single steps are found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.external.counts import Count
from tests.support.command_runs import run, task_with


def counted(rows: Iterable[tuple[int, float]]) -> Count:
    count = Count()
    for step, value in rows:
        count.add(step, value)
    return count


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60), st.integers(0, 30))
def test_a_count_that_grows_is_never_refused(added: list[float], start: int):
    """Whatever a step adds, as with batches that grow or a first step that compiles."""
    sums = [sum(added[: i + 1]) for i in range(len(added))]
    count = counted(enumerate(sums, start))
    assert not count.of_single_steps
    assert not count.falls


@given(
    per_step=st.floats(1e-4, 1e4),
    every=st.integers(1, 50),
    rows=st.integers(1, 100),
    digits=st.integers(-3, 3),
)
def test_a_rounded_count_is_never_refused(per_step: float, every: int, rows: int, digits: int):
    steps = [every * (i + 1) for i in range(rows)]
    count = counted((step, round(per_step * step, digits)) for step in steps)
    assert not count.of_single_steps
    assert not count.falls


def test_seconds_that_begin_with_a_long_step_are_never_refused():
    assert not counted((step, round(60.0 + 0.001 * step)) for step in range(1, 100)).falls


def test_rows_of_one_step_and_runs_that_go_back_are_no_fault():
    twice = [(step, 64.0 * step) for step in range(1, 30) for _ in range(2)]
    again = [(step, 64.0 * step) for step in (*range(1, 30), *range(10, 60))]
    restarted = [(step, 64.0 * (step - 10)) for step in range(11, 100)]
    for rows in (twice, again, restarted, [(500, 64.0)], [(1, 0.0), (100, 0.0)], []):
        count = counted(rows)
        assert not count.of_single_steps
        assert not count.falls


@pytest.mark.parametrize("rows", [10, 20, 500])
def test_numbers_of_single_steps_are_found(rows: int):
    rng = random.Random(1)
    assert counted((step, 64.0) for step in range(1, rows + 1)).of_single_steps
    packed = counted((step, 900.0 + rng.random() * 200) for step in range(1, rows + 1))
    assert packed.of_single_steps
    assert packed.falls
    padded = counted((step, 40.0 if step % 7 == 6 else 64.0) for step in range(1, rows + 1))
    assert padded.of_single_steps


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Text of the report of two arms, whose rows all tell 64 tokens."""
    for arm, better in (("adamw", 0.0), ("mine", 0.1)):
        for seed in (1, 2):
            rows = [
                {"step": step, "tokens": 64, "valid_loss": 3 - better - 0.01 * seed * (1 + better)}
                for step in range(1, 21)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{arm}-seed{seed}-steps20.jsonl").write_text(text)
    pattern = str(tmp_path / "{arm}-seed{seed}-steps{steps}.jsonl")

    def report(*settings: str) -> str:
        words = ["report", str(tmp_path / "out"), "--from", pattern]
        for setting in ("candidate=mine", *settings):
            words += ["--set", setting]
        assert main(words) == 0
        said = capsys.readouterr()
        return said.out + said.err

    return report


def test_runs_of_others_tell_of_tokens_of_single_steps(told: Callable[..., str]):
    said = told()
    assert "'tokens' is 64 at step 1 and 64 at step 20" in said
    assert "columns.tokens" in said


def test_runs_of_others_tell_of_a_tokens_column_that_is_not_there(told: Callable[..., str]):
    said = told("columns.tokens=tokns")
    assert "no tokens: no row has 'tokns'" in said
    assert "columns.tokens_per_step" in said
    assert "'tokns'" not in told("columns.tokens=tokns", "columns.tokens_per_step=64")


def test_a_command_without_its_named_tokens_is_refused(tmp_path: Path):
    words = r"no tokens: no row has 'tokns'; known: .*did you mean.*tokens.*task\.tokens_per_step"
    with pytest.raises(UserError, match=words):
        run(tmp_path / "wrong", task_with(tokens_key="tokns"))
    for tokens_key in ("", "tokens"):
        made = run(tmp_path / f"of-{tokens_key}", task_with(tokens_key=tokens_key))
        assert made.outcome is not None
        assert made.outcome.tokens == (140 if tokens_key else 20)
