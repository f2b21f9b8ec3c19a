"""Commands and runs of others may write any metric; the one that decides must be there."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.external.recorder import Columns
from mars_optim.experiment.plan.decision import DecisionPlan, with_metric
from mars_optim.experiment.plan.task import check_task
from mars_optim.experiment.records.metric import cost, judged
from tests.support.command_runs import run, task_with

SCORE = DecisionPlan(metric="score", direction="up")


def test_a_metric_beside_the_loss_is_recorded(tmp_path: Path):
    found = run(tmp_path, with_metric(task_with("--fault score"), SCORE))
    assert found.outcome.scores == {"score": pytest.approx(2.9)}
    assert found.final_loss > 0
    assert cost(found, SCORE) == pytest.approx(-2.9)
    assert [row["score"] for row in found.rows if "score" in row] == [pytest.approx(2.9)]


def test_the_loss_may_be_missing_where_another_metric_decides(tmp_path: Path):
    task = replace(with_metric(task_with("--fault score"), SCORE), valid_key="not_there")
    found = run(tmp_path, task)
    assert (found.outcome.status, found.final_loss) == ("finished", None)
    assert judged(found, SCORE).final_loss == pytest.approx(-2.9)


MISSING = [
    ("", "scoer", ["no row has 'scoer'", "known: loss, seconds, step, tokens, valid_loss"]),
    ("--fault score", "scoer", ["no row has 'scoer'", "did you mean 'score'?"]),
    ("--fault score-nan", "score", ["its last 'score', at step 20, is nan"]),
]


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("extra", "name", "parts"), MISSING, ids=["none", "misspelt", "nan"])
def test_a_metric_that_is_not_there_is_named(
    tmp_path: Path, extra: str, name: str, parts: list[str]
):
    task = with_metric(task_with(extra), DecisionPlan(metric=name, direction="up"))
    with pytest.raises(UserError) as error:
        run(tmp_path, task)
    assert all(part in str(error.value) for part in [*parts, "decision.metric"])
    assert "\n" not in str(error.value)


def test_the_column_of_the_loss_is_no_other_metric():
    with pytest.raises(UserError, match=r"is task.valid_key, the name of the validation loss"):
        with_metric(task_with(valid_key="score"), SCORE)


OWN = ["step", "tokens", "seconds", "valid_loss"]


@pytest.mark.parametrize("name", OWN)
def test_a_row_keeps_the_names_of_its_own_columns(name: str):
    """A run of such a plan would end in a traceback, or lose its validation loss."""
    said = rf"\['acc', '{name}'\]: '{name}' is the name of a column .* under another name"
    with pytest.raises(UserError, match=r"task\.score_keys = " + said):
        check_task(task_with(score_keys=("acc", name), valid_key="eval/loss"))
    with pytest.raises(UserError, match=r"columns\.scores = " + said):
        Columns(scores=("acc", name))
    with pytest.raises(UserError, match=f"decision.metric = '{name}'"):
        DecisionPlan(metric=name, direction="down")


def test_names_of_other_columns_may_be_metrics():
    scores = ("acc", "grad_norm", "eval/loss")
    check_task(task_with(score_keys=scores, valid_key="eval/loss"))
    assert Columns(scores=scores).scores == scores


def test_a_score_called_loss_does_not_hide_the_validation_loss(tmp_path: Path):
    found = run(tmp_path, with_metric(task_with("--fault score"), SCORE))
    scores = {"loss": 9.0, "score": 1.0}
    found = replace(found, outcome=replace(found.outcome, scores=scores))
    assert judged(found, SCORE).outcome.scores["loss"] == found.final_loss


def write_files(folder: Path, name: str = "acc") -> None:
    folder.mkdir()
    for arm, lag in (("adamw", 0.0), ("mine", -0.3)):
        for seed in (1, 2, 3, 4):
            late = lag + 0.02 * math.sin(7 * seed + len(arm))
            rows = [
                {"step": n, name: 0.6 + 0.2 * (math.log(n / 100) - late)} for n in range(5, 101, 5)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{arm}-seed{seed}-steps100.jsonl").write_text(text)


CHOSEN = ["candidate=mine", "decision.metric=acc", "decision.direction=up"]


def imported(folder: Path, out: Path, *sets: str) -> int:
    words = [word for text in (*CHOSEN, *sets) for word in ("--set", text)]
    pattern = str(folder / "{arm}-seed{seed}-steps{steps}.jsonl")
    return main(["report", str(out), "--from", pattern, *words])


def test_runs_of_others_are_compared_by_their_way_to_a_target(tmp_path: Path):
    write_files(tmp_path / "runs")
    assert imported(tmp_path / "runs", tmp_path / "out", "decision.target=0.5") == 0
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert verdict["verdict"] == "go"
    assert verdict["tokens_saved"]["mean"] == pytest.approx(1 - math.exp(-0.3), abs=0.03)
    rule = verdict["rule"]
    assert (rule["metric"], rule["direction"], rule["target"]) == ("acc", "up", 0.5)


def test_runs_of_others_without_the_metric_say_what_they_have(tmp_path: Path, capsys):
    write_files(tmp_path / "runs", name="accuracy")
    assert imported(tmp_path / "runs", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no row has 'acc'; known: accuracy, step" in said
    assert said.count("\n") == 1
