"""A canary's file and a guard's log are read back, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.records.production import read_canary, read_guard
from tests.support.rollout_files import WORSE, write_canary, write_guard_log


def test_a_canary_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = write_canary(tmp_path / "canary.json", WORSE, spiked=True)
    found = read_canary(tmp_path)
    assert found == read_canary(file)
    assert (found.recommendation, found.candidate, found.date) == (
        "back",
        "mars-adamw",
        "2026-11-24",
    )
    assert found.spiked == 1
    assert [order.difference for order in found.orders] == pytest.approx(WORSE)
    assert found.low is not None
    assert found.low < 0.011 == pytest.approx(found.mean)


def test_a_canary_from_before_its_arm_was_recorded_is_read(tmp_path: Path) -> None:
    file = write_canary(tmp_path / "canary.json")
    data = json.loads(file.read_text())
    for key in ("candidate", "task", "date"):
        del data[key]
    file.write_text(json.dumps(data))
    found = read_canary(file)
    assert (found.candidate, dict(found.task), found.date) == ("", {}, "")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "cannot be read"),
        ("[]", "not a canary's result"),
        ('{"format": 9}', "format 9 instead of 1"),
        ('{"format": 1, "difference": null}', "no key 'recommendation'"),
        ('{"format": 1, "difference": null, "recommendation": "x"}', "recommendation 'x'"),
    ],
)
def test_a_damaged_canary_is_refused_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "canary.json").write_text(text)
    with pytest.raises(UserError, match=word) as error:
        read_canary(tmp_path)
    assert str(tmp_path / "canary.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_log_tells_alarms_rollbacks_and_its_last_line(tmp_path: Path) -> None:
    found = read_guard(write_guard_log(tmp_path / "guard.jsonl", back=True))
    assert found.switches == 1
    assert [(row.signal, row.step) for row in found.trips] == [("loss", 268)]
    assert [(row.step, row.to_step, row.value) for row in found.rollbacks] == [(270, 225, "3.012")]
    assert (found.last.event, found.start.step) == ("rollback", 200)


def test_only_the_last_switch_of_a_log_counts(tmp_path: Path) -> None:
    write_guard_log(tmp_path / "guard.jsonl", back=True)
    found = read_guard(write_guard_log(tmp_path / "guard.jsonl"))
    assert (found.switches, found.rollbacks, found.last.step) == (2, (), 400)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = write_guard_log(tmp_path / "guard.jsonl")
    with path.open("a") as file:
        file.write('{"event": "roll')
    assert read_guard(path).last.step == 400


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("no JSON\n", "line 1"),
        ('{"event": "start"}\n', "no key 'step'"),
        ('{"event": "loss", "step": 1}\n', "event 'loss'"),
        ('{"event": "warn", "step": 1}\n', "no line has the event 'start'"),
        ("", "no line has the event 'start'"),
    ],
)
def test_a_foreign_log_is_refused_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "g.jsonl").write_text(text)
    with pytest.raises(UserError, match=word) as error:
        read_guard(tmp_path / "g.jsonl")
    assert "\n" not in str(error.value)
