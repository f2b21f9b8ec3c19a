"""``mars noise``: numbers, a picture and sentences, on the built-in task and on the user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mars_optim.cli import main
from mars_optim.experiment.tasks import GPT

QUICK = ["--steps", "12", "--points", "2", "--batches", "8", "--replicates", "3"]
MODEL = dict(context=8, layers=1, width=8, heads=1)

TASK = """
import torch

class Line:
    fingerprint, batch_tokens = "line", 16

    def build_model(self, seed):
        torch.manual_seed(seed)
        return torch.nn.Linear(4, 1)

    def batch(self, seed, step, micro):
        g = torch.Generator().manual_seed(seed * 7919 + step * 13 + micro)
        x = torch.randn(16, 4, generator=g)
        return {"x": x, "y": x.sum(1, keepdim=True) + torch.randn(16, 1, generator=g)}

    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).square().mean()

    def evaluate(self, model, tokens):
        return self.loss(model, self.batch(0, 10**6, 0)).item()
"""


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 600)
    options = [f"task.{key}={value}" for key, value in MODEL.items()]
    options += [f"task.corpus={text}", "task.batch=2", "training.accumulation=2"]
    return [part for option in options for part in ("--set", option)]


def test_it_ends_with_a_table_sentences_a_picture_and_numbers(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "noise"
    assert main(["noise", "--out", str(out), *QUICK, *small]) == 0
    printed = capsys.readouterr()
    assert "best gamma" in printed.out
    assert "Approx or exact" in printed.out
    assert "gradients to take" in printed.err
    found = json.loads((out / "noise.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["adamw", "mars-adamw"]
    assert found["batch_tokens"] == 2 * 2 * 8
    for arm in found["arms"]:
        assert [p["step"] for p in arm["points"]] == [3, 9]
        for point in arm["points"]:
            assert [row["kind"] for row in point["noise"]] == [
                "matrix",
                "embedding",
                "vector",
                "total",
            ]
            assert point["momentum"][-1]["steps"] == point["step"]
    assert (out / "noise.svg").read_text().count("<svg") == 4


@pytest.mark.slow
def test_noise_with_equal_seeds_prints_equal_json_and_only_json(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = []
    for _ in range(2):
        assert main(["noise", "--json", "--out", str(tmp_path / "n"), *QUICK, *small]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_a_task_of_the_user_s_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("noisy_line.py").write_text(TASK)
    assert main(["noise", "--json", "--task", "noisy_line.py:Line", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "noisy_line.py:Line"
    assert found["batch_tokens"] == 16


def test_a_checkpoint_that_is_no_file_of_torch_is_named_plainly(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "page.md"
    page.write_text("# no weights")
    assert main(["noise", "--checkpoint", str(page), *QUICK, *small]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "is not a file of torch.save: give the checkpoint itself" in printed
    assert "weights_only" not in printed


def test_a_gradient_that_is_not_finite_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    bad = "x = x * float('nan' if step > 10**9 + 5 else 1)\n        return {"
    Path("noisy_line.py").write_text(TASK.replace("return {", bad))
    assert main(["noise", "--task", "noisy_line.py:Line", *QUICK]) == 2
    assert "adamw, before step 4: the gradient of a batch" in capsys.readouterr().err


def test_the_noise_is_measured_in_the_plan_s_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    seen = "print('in', model(batch['x']).dtype)\n        return"
    Path("noisy_line.py").write_text(TASK.replace("return (model", f"{seen} (model"))
    assert main(["noise", "--task", "noisy_line.py:Line", *QUICK]) == 0
    assert "in torch.bfloat16" not in capsys.readouterr().out
    command = ["noise", "--task", "noisy_line.py:Line", *QUICK]
    assert main([*command, "--set", 'training.precision="bf16"']) == 0
    printed = capsys.readouterr().out
    # the task is tried in float32 before
    assert printed.count("in torch.bfloat16") > 9 * printed.count("in torch.float32")


@pytest.mark.slow
def test_it_starts_from_a_checkpoint(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = GPT(vocabulary=256, **MODEL)
    for p in model.parameters():
        p.data.mul_(3.0)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    command = ["noise", "--json", "--out", str(tmp_path / "n"), *QUICK, *small]
    signals = []
    for extra in ([], ["--checkpoint", str(tmp_path / "model.pt")]):
        assert main([*command, *extra]) == 0
        found = json.loads(capsys.readouterr().out)
        signals.append(found["arms"][0]["points"][0]["noise"][-1]["signal"]["value"])
    assert signals[1] > 2 * signals[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicates", "2"], "--replicates 2 must be at least 3"),
        (["--points", "9", "--steps", "20"], "--points 9 must be at most a quarter of --steps 20"),
        (["--set", "comparison.candidate=adamw", "--set", "comparison.baseline=nadamw"], "adamw"),
        (["--checkpoint", "missing.pt"], "missing.pt does not exist"),
        (["--task", "nowhere.py:Task"], "nowhere.py does not exist"),
        (
            [
                "--set",
                'task.kind="command"',
                "--set",
                "task.command=echo {run_dir} {optimizer} {lr} {seed} {steps}",
            ],
            "needs a model and batches in Python",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    task = [] if "task" in " ".join(arguments) else small
    assert main(["noise", *arguments, *task]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("mars: error: ")
    assert message in error
    assert not Path("mars-noise").exists()


@pytest.mark.slow
def test_ctrl_c_ends_it_with_one_line_and_no_files(small: list[str], tmp_path: Path):
    command = [sys.executable, "-m", "mars_optim", "noise", "--out", "n", "--steps", "100000"]
    process = subprocess.Popen(
        [*command, *small], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    assert "gradients to take" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert rest.splitlines() == ["Stopped. Nothing was written."]
    assert not (tmp_path / "n").exists()


def test_a_read_only_folder_is_found_before_the_measurement(
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr("mars_optim.cli.noise._measure", None)  # not called
    assert main(["noise", *small, *QUICK, "--out", str(tmp_path / "a" / "b")]) == 2
    assert f"cannot be written: {tmp_path} is read-only" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["noise", *small, *QUICK, "--out", str(tmp_path / "file" / "b")]) == 2
    assert "file is a file; give another folder" in capsys.readouterr().err
