"""The command line: quick help, and one clear line for every mistake."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main

MISTAKES = [
    (["pilto"], ["pilto", "pilot"]),
    (["pilot", "--otu", "x"], ["--otu", "--out"]),
    (["pilot", "--workers", "two"], ["--workers", "two"]),
    (["pilot", "--workers", "-1"], ["--workers", "-1", "from 1"]),
    (["pilot", "extra"], ["extra"]),
    (["pilot", "--set", "training.step=4"], ["training.step", "training.steps"]),
    (["pilot", "--set", "training.steps=4"], ["training.steps = 4", "at least 10"]),
    (["pilot", "--set", "training.steps=many"], ["training.steps = 'many'", "a whole number"]),
    (["pilot", "--set", "training"], ["'training'", "KEY=VALUE"]),
    (["pilot", "--set", "arms=['adamw', 'mars-adam']"], ["'mars-adam'", "'mars-adamw'"]),
    (["pilot", "--set", "arm.mars-adamw.gama=0"], ["gama", "gamma"]),
    (["pilot", "--set", "comparison.seeds=[1]"], ["comparison.seeds", "two or more"]),
    (["pilot", "--set", "tuning.seed=1"], ["tuning.seed = 1", "comparison.seeds"]),
    (["pilot", "--set", "arm.adamw.lr=1e300"], ["arm.adamw.lr = 1e+300", "at most 1e+06"]),
    (["pilot", "--plan", "nowhere.toml"], ["nowhere.toml", "--init"]),
    (["pilot", "--plan", "."], ["folder"]),
    (["report", "nowhere"], ["nowhere", "plan.toml"]),
    (["report", "a", "b"], ["b"]),
]
FOLDERS = (["plan", "--out"], ["report"], ["watch"], ["export", "--tensorboard"])


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v)[:40])
def test_a_mistake_gives_one_line_that_names_it(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(arguments)
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert output.err.startswith("mars: error: ")
    assert len(output.err.splitlines()) == 1
    for word in words:
        assert word in output.err
    assert list(tmp_path.iterdir()) == []  # found before anything was made


@pytest.mark.parametrize("command", FOLDERS, ids=lambda v: v[0])
def test_a_file_in_the_place_of_a_folder_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    assert main([*command, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mars: error: {path} is a file: give the folder of")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["noise", "plan", "watch folder"])
def test_an_argument_too_many_is_named_with_the_way_out(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = command.split()[0]
    assert main([*command.split(), "more"]) == 2
    assert capsys.readouterr().err == (
        f"mars: error: mars {verb} takes no 'more': see mars {verb} --help\n"
    )


def test_init_writes_a_plan_that_can_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mars_optim.experiment.plan.plan_file import built_in_plan, load_plan

    out = tmp_path / "new" / "pilot"
    assert main(["pilot", "--init", "--out", str(out)]) == 0
    assert f"mars pilot --out {out}" in capsys.readouterr().out
    assert load_plan(out / "plan.toml") == built_in_plan()
    assert "# optimizer steps of one budget unit" in (out / "plan.toml").read_text()


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "mine.toml"
    plan.write_text("# mine\n")
    assert main(["pilot", "--init", "--plan", str(plan)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert plan.read_text() == "# mine\n"


def test_help_and_bad_arguments_do_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from mars_optim.cli import main\n"
        "status = [main(['pilot', '--set', 'training.steps=4'])]\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pilot" in done.stdout


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import mars_optim

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == mars_optim.__version__


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_output_that_cannot_be_written_is_one_line(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("mars_optim.cli.init.write_example", refuse)
    assert main(["init", "plan", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mars: error: some/file: {os.strerror(number)}")
    assert len(error.splitlines()) == 1
    monkeypatch.setattr("mars_optim.experiment.export.standalone.write_text", refuse)
    assert main(["export", "--standalone", "mars-m", str(tmp_path / "x.py")]) == 2
    assert f"x.py cannot be written: {os.strerror(number)}" in capsys.readouterr().err
