"""Which checkpoints and weights of a run stay, and which are gone on from."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter

from mars_optim.errors import UserError
from mars_optim.experiment.plan import ExecutionOptions
from mars_optim.experiment.records import Run, RunWriter
from mars_optim.experiment.records.run import CHECKPOINTS
from mars_optim.experiment.training import (
    load_weights,
    train,
)
from tests.support.executed import Stop, Words, numbers, run
from tests.support.regression import Regression, Scripted, make_spec

STEPS = 24


def steps_kept(run: Run) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run.path / CHECKPOINTS).iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if "manifest" not in name}


class Judged(Regression):
    """With validation losses as written down, whatever is trained."""

    def __init__(self, *valid: float) -> None:
        super().__init__()
        self.valid = iter(valid)

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        return next(self.valid)


def test_the_newest_checkpoints_stay_and_the_best_one(tmp_path: Path):
    spec = make_spec(steps=STEPS, evaluations=4)
    options = dict(checkpoint_steps=2, keep=2, keep_best=True)
    left, _ = run(tmp_path, Judged(3, 1, 2), spec, end=19, **options)
    assert steps_kept(left) == [12, 16, 18]
    done, _ = run(tmp_path, Judged(1.5), spec, **options)
    assert steps_kept(done) == [12, 22, 24]
    one, _ = run(tmp_path / "one", Judged(1, 2, 3, 4), spec, end=19, checkpoint_steps=2)
    assert steps_kept(one) == [18]
    last, _ = run(tmp_path / "last", Regression(), spec, keep=1)
    assert steps_kept(last) == [24]


def test_best_checkpoint_has_the_weights_of_its_evaluation(tmp_path: Path):
    task, spec, seen = Judged(3, 1, 2, 4), make_spec(steps=STEPS, evaluations=4), {}
    writer = RunWriter(tmp_path, spec, {})

    def on_step(step: int) -> None:
        seen[step] = {k: v.clone() for k, v in task.model.state_dict().items()}

    options = ExecutionOptions(checkpoint_steps=100, keep_best=True, keep_weights=True)
    writer.finish(train(spec, task, writer, on_step, execution=options))
    for step, (read, weights) in {
        12: load_weights(writer.path, best=True),
        24: load_weights(writer.path),
    }.items():
        assert read == spec
        assert weights.keys() == seen[step].keys()
        assert all(torch.equal(weights[key], value) for key, value in seen[step].items())


def test_weights_that_are_not_there_are_told_of_in_one_line(tmp_path: Path):
    done, _ = run(tmp_path, Regression(), make_spec(steps=10))
    with pytest.raises(UserError, match=r"weights.pt does not exist: .* made without keep_weights"):
        load_weights(done.path)
    with pytest.raises(UserError, match="made without keep_best"):
        load_weights(done.path, best=True)
    (done.path / "weights.pt").write_bytes(b"\x80\x04hello")
    with pytest.raises(UserError, match=r"weights.pt cannot be read"):
        load_weights(done.path)
    with pytest.raises(UserError, match="does not exist"):
        load_weights(tmp_path / "nowhere")


def test_checkpoint_holds_the_state_when_its_write_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec, go_on, write = make_spec(steps=STEPS), threading.Event(), FileSystemWriter.write_data

    def slowly(writer: FileSystemWriter, *arguments: Any) -> Any:
        assert go_on.wait(60)
        return write(writer, *arguments)

    def on_step(step: int) -> None:
        if step == 12:
            go_on.set()
            raise Stop

    whole, _ = run(tmp_path / "whole", Regression(), spec)
    writer = RunWriter(tmp_path / "slow", spec, {})
    monkeypatch.setattr(FileSystemWriter, "write_data", slowly)
    with pytest.raises(Stop):
        train(spec, Regression(), writer, on_step, execution=ExecutionOptions(checkpoint_steps=7))
    writer.close()
    resumed, steps = run(tmp_path / "slow", Regression(), spec, checkpoint_steps=7)
    assert steps == STEPS - 7
    assert numbers(resumed) == numbers(whole)
    assert resumed.final_loss == whole.final_loss


@pytest.mark.parametrize("damage", ["another run", "another model", "all damaged"])
def test_unusable_checkpoints_are_refused_before_the_first_step(damage: str, tmp_path: Path):
    spec, options = make_spec(steps=STEPS), dict(checkpoint_steps=5, keep=2)
    left, _ = run(tmp_path, Words(), spec, end=12, **options)
    task = Words(width=16 if damage == "another model" else 8)
    if damage == "another run":
        other = make_spec(steps=STEPS, seed=7)
        (tmp_path / other.run_id).mkdir()
        (left.path / CHECKPOINTS).rename(tmp_path / other.run_id / CHECKPOINTS)
        spec = other
    if damage == "all damaged":
        for file in left.path.rglob("*.distcp"):
            file.write_bytes(file.read_bytes()[:100])
    before = contents(tmp_path)
    what = {
        "another run": rf"is of another run, {left.spec.run_id}",
        "another model": r"another model: wte.weight is \(11, 8\) there and \(11, 16\) here",
        "all damaged": r"is damaged \(",
    }
    message = f"step-.* {what[damage]}.*; nothing was changed: use another folder, or delete .*"
    with pytest.raises(UserError, match=message) as told:
        run(tmp_path, task, spec, unusable="refuse", **options)
    assert "\n" not in str(told.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("unusable", ["refuse", "begin again"])
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(unusable: str, tmp_path: Path):
    spec = make_spec(steps=STEPS)
    whole, _ = run(tmp_path / "whole", Regression(), spec)
    left, _ = run(tmp_path / "left", Regression(), spec, end=12, checkpoint_steps=5, keep=2)
    assert steps_kept(left) == [5, 10]
    for file in (left.path / CHECKPOINTS / "step-000000000010").glob("*.distcp"):
        file.unlink()
    options = dict(checkpoint_steps=5, keep=2, unusable=unusable)
    resumed, steps = run(tmp_path / "left", Regression(), spec, **options)
    assert steps == STEPS - 5
    assert numbers(resumed) == numbers(whole)


def test_a_run_that_diverges_keeps_no_weights(tmp_path: Path):
    done, _ = run(tmp_path, Scripted([1.0, float("nan")]), make_spec(steps=10), keep_weights=True)
    assert not (done.path / "weights.pt").exists()
