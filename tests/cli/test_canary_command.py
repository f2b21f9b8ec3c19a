"""``mars canary``: from a checkpoint file to what to do next, and one line for every mistake."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch

from mars_optim.cli import main
from mars_optim.experiment.canary.continued import Continuations
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.tasks import GPT

PLAN = """
[task]
corpus = "text.txt"
context = 16
layers = 1
width = 16
heads = 2
batch = 4
[training]
eval_tokens = 256
"""


OPT = ("--optimizer-key", "opt")
SHORT = ("--steps", "20", "--history", "100", "--seeds", "1", "--seeds", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan, its text, and a checkpoint of its model under AdamW."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Not a creature was stirring, not even a mouse. " * 600)
    (tmp_path / "plan.toml").write_text(PLAN)
    model = GPT(vocabulary=256, context=16, layers=1, width=16, heads=2)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for _ in range(3):
        model(torch.randint(256, (4, 16))).square().mean().backward()
        adamw.step()
    for name, change in (
        ("c", lambda saved: None),
        ("groups", lambda saved: saved.update(param_groups=3)),
        ("no-lr", lambda saved: saved["param_groups"][0].pop("lr")),
        ("word", lambda saved: saved["param_groups"][0].update(lr="x")),
        ("nan", lambda saved: saved["state"][0].update(exp_avg=torch.tensor([math.nan]))),
        ("ended", lambda saved: saved["param_groups"][0].update(lr=0.0)),
    ):
        saved = copy.deepcopy(adamw.state_dict())
        change(saved)
        torch.save({"model": model.state_dict(), "opt": saved}, tmp_path / f"{name}.pt")
    return tmp_path


def test_ctrl_c_says_that_the_same_command_continues(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["canary", "c.pt", "--plan", "plan.toml", *OPT, *SHORT, "--out", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Continuations, "run", interrupted)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 130
    told = "Stopped. The same command keeps the finished runs and continues.\n"
    assert capsys.readouterr().err == told
    assert main(command) == 0


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_ends_it_in_one_line_that_names_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Continuations, "run", full)
    assert main(["canary", "c.pt", "--plan", "plan.toml", *OPT, *SHORT, "--out", "out"]) == 2
    assert capsys.readouterr().err == (
        "mars: error: out: No space left on device; free some space, then run the same command "
        "again to continue\n"
    )


def test_it_says_what_to_do_next_and_writes_the_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["canary", "c.pt", "--plan", "plan.toml", "--optimizer-key", "opt", "--out", "out"]
    command += ["--steps", "20", "--history", "100", "--seeds", "1", "--seeds", "2"]
    assert main(command) == 0
    output = capsys.readouterr().out
    data = json.loads((folder / "out" / "canary.json").read_text())
    assert data["sentence"] in output
    assert "data order 2: AdamW" in output
    assert data["settings"]["gamma"] == 0.025
    assert [s["seed"] for s in data["seeds"]] == [1, 2]
    assert len(list((folder / "out" / "runs").iterdir())) == 6
    capsys.readouterr()
    assert main(command) == 0  # found again
    assert capsys.readouterr().out == output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.pt"], ["nowhere.pt", "does not exist"]),
        (["plan.toml"], ["plan.toml", "cannot be read as a checkpoint"]),
        (["c.pt"], ["--optimizer-key 'optimizer'", "model, opt"]),
        (["c.pt", "--model-key", "net"], ["--model-key 'net'", "model, opt"]),
        (["c.pt", "--optimizer-key", "model"], ["is not the state dict of an optimizer"]),
        (["c.pt", "--optimizer-key", "opt"], ["model is not the task's"]),
        (["c.pt", "--history", "5"], ["history = 5", "at least 100"]),
        (["c.pt", "--seeds", "1"], ["seeds = [1]", "two or more"]),
        (["c.pt", "--lr-scales", "0"], ["lr_scales", "above 0"]),
        (["c.pt", "--lr-scales", "1", "--lr-scales", "2"], ["lr_scales", "three or more"]),
        (["c.pt", *OPT, "--model-key", "opt.state"], ["'opt.state' is not the state dict of a"]),
        (["groups.pt", *OPT], ["groups.pt", "param_groups", "must be a list of dicts"]),
        (["no-lr.pt", *OPT], ["no-lr.pt", "param_groups[0]", "no 'lr'"]),
        (["word.pt", *OPT], ["word.pt", "lr='x' must be a number"]),
        (["nan.pt", *OPT], ["nan.pt", "exp_avg of parameter 0", "take an earlier checkpoint"]),
        (["ended.pt", *OPT], ["ended.pt", "learning rate of its optimizer is 0", "set lr in its"]),
    ],
    ids=lambda v: " ".join(v)[:40],
)
def test_a_mistake_gives_one_line_that_names_it(
    arguments: list[str], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the built-in plan's model is larger than the one in the checkpoint; no default plan is small
    assert main(["canary", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mars: error: ")
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["nadamw-auto", "nadamw", "mars-adamw-cautious"])
def test_the_canary_tests_the_candidate_that_the_pilot_ran(name: str, folder: Path) -> None:
    arms = f'arms = ["adamw", "{name}"]\n'
    (folder / "plan.toml").write_text(arms + PLAN + f'[comparison]\ncandidate = "{name}"\n')
    command = ["canary", "c.pt", "--plan", "plan.toml", "--optimizer-key", "opt", "--out", "out"]
    command += ["--steps", "20", "--history", "100", "--seeds", "1", "--seeds", "2"]
    assert main(command) == 0
    wanted = ARMS[name]
    runs = {r.spec.arm_name: r for r in read_runs(folder / "out" / "runs") if r.spec.seed == 1}
    mars, adamw = runs["mars-continued"], runs["adamw-continued"]
    told = json.loads((folder / "out" / "canary.json").read_text())["settings"]
    for key in ("gamma", "clip", "correction", "gamma_schedule", "clip_over", "cautious"):
        assert getattr(mars.spec.arm, key) == told[key] == getattr(wanted, key)
    assert mars.outcome
    assert adamw.outcome
    keeps_gradient = mars.outcome.state_bytes > adamw.outcome.state_bytes + 1000
    assert keeps_gradient == (wanted.correction == "approx")


def test_a_candidate_that_is_no_mars_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'arms = ["adamw", "torch-nadam"]\n' + PLAN + '[comparison]\ncandidate = "torch-nadam"\n'
    (folder / "plan.toml").write_text(text)
    assert main(["canary", "c.pt", "--plan", "plan.toml", "--optimizer-key", "opt"]) == 2
    assert "'torch-nadam' is torch-nadam, and a canary goes from" in capsys.readouterr().err


def test_a_candidate_with_other_moments_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'arms = ["adamw", "mars-lion"]\n' + PLAN + '[comparison]\ncandidate = "mars-lion"\n'
    (folder / "plan.toml").write_text(text)
    assert main(["canary", "c.pt", "--plan", "plan.toml"]) == 2
    assert "rule 'lion', whose moments differ from AdamW's" in capsys.readouterr().err


def test_a_task_that_is_another_program_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "{python} train.py {steps} {run_dir} {optimizer} {lr} {seed}"
    text = f'arms = ["a", "b"]\n[task]\nkind = "command"\ncommand = "{command}"\n'
    text += '[comparison]\nbaseline = "a"\ncandidate = "b"\n[arm.a]\nlr = 0.1\n[arm.b]\nlr = 0.1\n'
    (folder / "plan.toml").write_text(text)
    assert main(["canary", "c.pt", "--plan", "plan.toml"]) == 2
    assert "task.kind = 'command': a canary trains the model itself" in capsys.readouterr().err
