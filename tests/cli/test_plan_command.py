"""``mars plan``: numbers before anything is spent, from real short runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.cli import main

SMALL = [
    *("--set", "training.steps=40"),
    *("--set", "training.eval_tokens=1024"),
    *("--set", "task.context=16"),
    *("--set", "task.width=16"),
    *("--set", "task.heads=1"),
    *("--set", "task.layers=1"),
    *("--set", "task.batch=4"),
    *("--set", "cost.price_per_hour=2"),
    *("--set", "cost.currency=€"),
]


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    path = tmp_path / "text.txt"
    path.write_text("It was the best of times, it was the worst of times. " * 4000)
    return ["--set", f"task.corpus={json.dumps(str(path))}"]


@pytest.mark.slow
def test_the_plan_is_priced_as_json_and_nothing_is_written(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pilot"
    status = main(["plan", "--json", "--out", str(out), "--effect", "0.1", *SMALL, *corpus])
    assert status == 0
    assert not out.exists()
    found = json.loads(capsys.readouterr().out)
    assert found["price"]["runs"] == [15, 74]
    assert 0 < found["price"]["hours"][0] <= found["price"]["hours"][1]
    assert found["price"]["money"] == pytest.approx([2 * h for h in found["price"]["hours"]])
    assert set(found["probe"]) == {"adamw", "nadamw", "mars-adamw"}
    assert found["tokens_per_step"] == 64
    assert (found["noise"]["source"], found["noise"]["pairs"]) == ("short runs", 4)
    assert [(s["effect"], s["threshold"]) for s in found["seeds"]] == [(0.1, 0.0), (0.1, 0.05)]
    assert len(found["published"]) == 5
    assert found["currency"] == "€"
    assert found["left"] is None


@pytest.mark.slow
def test_classes_that_arms_name_are_checked_and_told(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = [
        *("--set", 'arms=["adamw", "sgd"]', "--set", "comparison.candidate=sgd"),
        *("--set", "arm.sgd.optimizer=torch.optim:SGD", "--set", "arm.sgd.lr=0.1"),
    ]
    assert main(["plan", "--out", str(tmp_path / "p"), *SMALL, *arm, *corpus]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Optimizers that arms name: arm.sgd: torch.optim:SGD (torch 2." in text
    assert "Published results of MARS" not in text


@pytest.mark.slow
def test_the_plan_reads_as_text_with_its_assumptions(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", "scale.wide.width=32"]
    assert main(["plan", "--out", str(tmp_path / "p"), *SMALL, *more, *corpus]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "runs,",
        "€; one run at a time.",
        "at size wide",
        "bytes per parameter",
        "This is a guess",
        "Published results",
        "say little about it",
    ):
        assert words in text


@pytest.mark.parametrize("effect", ["0", "1", "-0.1"])
def test_an_effect_that_is_no_share_is_refused(
    effect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--out", str(tmp_path), "--effect", effect]) == 2
    assert f"--effect {effect} must be a share" in capsys.readouterr().err


def test_a_task_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", "task", str(tmp_path)]) == 0
    file = tmp_path / "my_task.py"
    file.write_text(file.read_text() + "\n\nMyTask.__init__ = lambda self: open('gone.txt')\n")
    capsys.readouterr()
    assert main(["plan", "--plan", str(tmp_path / "plan.toml")]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert "MyTask() failed: FileNotFoundError" in line
    assert "gone.txt" in line


@pytest.mark.slow
def test_a_finished_pilot_is_said_to_be_with_its_verdict(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pilot"
    few = [*("--set", "comparison.seeds=[1,2,3]"), *("--set", 'arms=["adamw", "mars-adamw"]')]
    assert main(["pilot", "--out", str(out), "--workers", "1", *SMALL, *corpus, *few]) == 0
    decision = json.loads((out / "verdict.json").read_text())["verdict"]
    capsys.readouterr()
    assert main(["plan", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    names = {"go": "Go", "no-go": "No-go", "not-enough-runs": "Not enough runs to tell"}
    assert f"This pilot is finished: {names[decision]}. No run is left." in said
    assert "Left of it" not in said
