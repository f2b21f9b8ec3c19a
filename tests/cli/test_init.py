"""``mars init`` writes examples of each way to bring a job of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.cli.init import JOBS, TEMPLATES
from mars_optim.experiment.plan.plan_file import built_in_plan, load_plan

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_plan_is_the_built_in_one(tmp_path: Path):
    assert main(["init", "plan", str(tmp_path)]) == 0
    assert load_plan(tmp_path / "plan.toml") == built_in_plan()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("task", {"my_task.py", "plan.toml"}),
        ("command", {"train.py", "plan.toml"}),
        ("finetune", {"finetune.py", "plan.toml"}),
        ("sft", {"train.py", "plan.toml"}),
        ("bandit", {"bandit.py", "plan.toml"}),
    ],
)
def test_a_job_comes_with_a_plan_that_finds_it(
    kind: str, names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["init", kind, str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == names
    assert f"mars pilot --plan {tmp_path / 'plan.toml'}" in capsys.readouterr().out
    plan = load_plan(tmp_path / "plan.toml")
    assert (plan.task.kind, plan.task.folder) == (
        "command" if kind in ("command", "sft") else "python",
        str(tmp_path),
    )


@pytest.mark.parametrize("kind", JOBS)
def test_the_pilot_offers_the_same_where_it_will_look_for_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["pilot", "--init", kind, "--out", str(tmp_path)]) == 0
    assert f"mars pilot --out {tmp_path}" in capsys.readouterr().out
    assert load_plan(tmp_path / "plan.toml").task.folder == str(tmp_path)


def test_a_mapping_of_existing_runs_says_what_uses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["init", "runs", str(tmp_path)]) == 0
    assert f"mars report --from {tmp_path / 'runs.toml'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "tsak"], ["tsak", "task"]),
        (["init"], ["KIND"]),
        (
            ["pilot", "--init", "tasks"],
            ["--init tasks", "plan, task, command, finetune, sft or bandit"],
        ),
        (["pilot", "--init", "task", "--set", "training.steps=20"], ["takes no option but --out"]),
        (["report", "--set", "baseline=x"], ["--set works only with --from"]),
    ],
)
def test_a_mistake_at_the_start_gives_one_line(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "plan.toml").write_text("# mine\n")
    assert main(["init", "task", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"plan.toml": "# mine\n"}


@pytest.mark.parametrize(("kind", "example"), [("task", "own_task"), ("command", "own_command")])
def test_the_examples_are_what_it_writes(kind: str, example: str):
    written = {p.name: p.read_text() for p in (TEMPLATES / kind).iterdir() if p.is_file()}
    assert {p.name: p.read_text() for p in (EXAMPLES / example).iterdir() if p.is_file()} == written
