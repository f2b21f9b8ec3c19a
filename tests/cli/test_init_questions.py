"""``mars init`` on a real terminal: questions with defaults, and nothing half-written."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.cli.init import texts_of, write_new
from mars_optim.cli.questions import Answers
from mars_optim.errors import UserError
from mars_optim.experiment.external.command_run import Command
from mars_optim.experiment.plan.command import split
from mars_optim.experiment.plan.plan_file import built_in_plan, load_plan
from mars_optim.experiment.plan.task import CommandPlan
from tests.support.terminal import Terminal

INIT = [sys.executable, "-m", "mars_optim", "init"]
PROMPT = "] > "
SCRIPT = "import torch\noptimizer = torch.optim.AdamW(model.parameters(), lr=0.1)\n"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def answered(folder: Path, *lines: str, more: tuple[str, ...] = ()) -> str:
    """Everything shown, after each line was typed at its prompt."""
    with Terminal([*INIT, *more], folder) as terminal:
        for line in lines:
            terminal.expect(PROMPT)
            terminal.type(line + "\n")
        assert terminal.ended() == 0, terminal.text
        return terminal.text


def test_enter_takes_every_default(tmp_path: Path):
    text = answered(tmp_path, "", "", "", "")
    assert "[demo] > " in text
    assert "mars plan --plan plan.toml" in text
    assert files(tmp_path) == {"plan.toml"}
    assert load_plan(tmp_path / "plan.toml") == built_in_plan()


def test_a_script_in_the_folder_is_the_default(tmp_path: Path):
    (tmp_path / "my_train.py").write_text(SCRIPT)
    text = answered(tmp_path, "", "", "ours", "mine", "2.5", "40")
    assert "[script] > " in text
    assert "[my_train.py] > " in text
    assert "my_train.py must also take --optimizer, --lr, --seed, --steps, --out." in text
    assert files(tmp_path) == {"plan.toml", "my_train.py"}
    assert (tmp_path / "my_train.py").read_text() == SCRIPT
    plan = load_plan(tmp_path / "plan.toml")
    assert plan.arms == ("ours", "mine")
    assert (plan.comparison.baseline, plan.comparison.candidate) == ("ours", "mine")
    assert (plan.cost.price_per_hour, plan.cost.budget) == (2.5, 40)
    assert "{python} my_train.py --optimizer {optimizer}" in (tmp_path / "plan.toml").read_text()
    assert "# handed to the command as {steps}" in (tmp_path / "plan.toml").read_text()


def test_what_cannot_be_used_is_asked_again(tmp_path: Path):
    text = answered(tmp_path, "9", "demo", "adamx", "muon", "muon", "", "-1", "two", "0")
    assert "'9' cannot be used: a number from 1 to 7, or a name of the list." in text
    assert "'adamx' cannot be used: known are adamw, " in text
    assert "'muon' cannot be used: it must be another one." in text
    assert "'two' cannot be used: a number of 0 or more." in text
    assert load_plan(tmp_path / "plan.toml").arms == ("muon", "mars-m")


@pytest.mark.parametrize(("key", "answers"), [("\x03", 0), ("\x03", 2), ("\x04", 1)])
def test_a_stop_leaves_nothing_behind(key: str, answers: int, tmp_path: Path):
    with Terminal(INIT, tmp_path) as terminal:
        for _ in range(answers):
            terminal.expect(PROMPT)
            terminal.type("\n")
        terminal.expect(PROMPT)
        terminal.type(key)
        assert terminal.ended() == 130
        assert "Stopped. Nothing was written." in terminal.text
        assert "Traceback" not in terminal.text
    assert files(tmp_path) == set()


def test_a_ctrl_c_that_no_read_sees_is_answered(tmp_path: Path):
    """As one just before the read begins: the signal comes, and no read ends for it.

    Another thread takes the signal here, which does the same at any moment.
    """
    program = """import signal, sys, threading
from mars_optim.cli import main
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
sys.exit(main(["init"]))"""
    with Terminal([sys.executable, "-c", program], tmp_path) as terminal:
        terminal.expect(PROMPT)
        terminal.type("\n")
        terminal.expect(PROMPT)
        time.sleep(0.2)  # it waits for the line by now
        terminal.type("\x03")
        assert terminal.ended() == 130
        assert "Stopped. Nothing was written." in terminal.text


def test_a_kind_or_no_input_asks_nothing(tmp_path: Path):
    with Terminal([*INIT, "task", "a"], tmp_path) as terminal:
        assert terminal.ended() == 0
        assert PROMPT not in terminal.text
    with Terminal([*INIT, "--no-input"], tmp_path) as terminal:
        assert terminal.ended() == 2
        assert "--no-input needs KIND, one of plan, task" in terminal.text
    assert files(tmp_path) == {"a"}


def test_without_a_terminal_the_kind_is_needed(tmp_path: Path):
    done = subprocess.run(INIT, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 2
    assert b"KIND is needed where there is no terminal" in done.stderr
    assert files(tmp_path) == set()


def test_a_script_gets_a_plan_without_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    assert main(["init", "command"]) == 2
    assert "mars init command --script train.py" in capsys.readouterr().err
    assert main(["init", "command", "--script", "train.py"]) == 0
    assert "train.py must write its losses to metrics.jsonl" in capsys.readouterr().out
    assert Path("train.py").read_text() == SCRIPT
    assert load_plan(Path("plan.toml")).task.kind == "command"
    assert main(["init", "task", "--script", "train.py"]) == 2


def test_a_script_in_the_current_folder_is_found_from_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("my train.py").write_text(SCRIPT)
    for folder in ("new", "../link/deep"):
        assert main(["init", "command", folder, "--script", "my train.py"]) == 0
        said = capsys.readouterr().out
        assert "my train.py must also take --optimizer" in said
        assert "not there" not in said
        task = load_plan(Path(folder) / "plan.toml").task
        assert isinstance(task, CommandPlan)
        Command(task, tmp_path, threads=1).check()
        script = split(task.command, "task.command")[1]
        assert (Path(folder) / script).samefile("my train.py")


def test_a_script_that_is_nowhere_is_told_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["init", "command", str(tmp_path / "new"), "--script", "gone.py"]) == 0
    assert f"{tmp_path / 'new' / 'gone.py'} is not there yet" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["task", "finetune", "sft", "bandit"])
def test_money_goes_into_every_template(kind: str, tmp_path: Path):
    texts = texts_of(Answers(kind=kind, price=3.0, budget=50.0))
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert load_plan(tmp_path / "plan.toml").cost.budget == 50.0


def test_of_two_files_none_stays_if_one_fails(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_new({tmp_path / "a": "text", tmp_path / "file" / "b": "text"}, "")
    assert files(tmp_path) == {"file"}
