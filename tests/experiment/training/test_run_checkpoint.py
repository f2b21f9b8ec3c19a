"""A run that was ended in the middle goes on from its checkpoint, to the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemWriter

from mars_optim.errors import UserError
from mars_optim.experiment.plan import ExecutionOptions, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.records.run import CHECKPOINTS, TIMINGS
from mars_optim.experiment.training import train
from tests.support.regression import Regression, make_spec

STEPS = 24
ENDS = [1, 7, 12, 23]


class Noisy(Regression):
    """With dropout on the inputs and a buffer that remembers: state that is easy to forget."""

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Sequential(
                nn.BatchNorm1d(3, dtype=torch.float64),
                nn.Dropout(0.2),
                nn.Linear(3, 2, dtype=torch.float64),
            )
        return self.model

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch[:, :3]) - batch[:, 3:]).square().mean()


AT_ONCE = 1e-9  # minutes between checkpoints


class Stop(Exception):  # noqa: N818
    """As sudden as kill -9, but in this process."""


def run(
    folder: Path, spec: RunSpec, *, end: int | None = None, minutes: float = 0.0, **options: Any
) -> tuple[Run, list[Tensor], int]:
    """Train; with ``end`` be stopped after so many steps. What is read back, weights, steps.

    A checkpoint is written at step ``end``, unless ``options`` say otherwise.
    """

    def on_step(step: int) -> None:
        nonlocal steps
        steps += 1
        if step == end:
            raise Stop

    steps, task = 0, Noisy()
    begun = (folder / spec.run_id / CHECKPOINTS).exists()
    torch.manual_seed(99 if begun else 7)  # a new process has another random state
    writer = RunWriter(folder, spec, {})
    try:
        how = ExecutionOptions(
            **{"checkpoint_steps": end or 10**6, "checkpoint_minutes": minutes, **options}
        )
        writer.finish(train(spec, task, writer, on_step, how))
    except Stop:
        pass
    finally:
        writer.close()
    return read_run(writer.path), [p.detach().clone() for p in task.model.parameters()], steps


def numbers(run: Run) -> Any:
    """All of a run but its seconds."""
    assert run.outcome is not None
    rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in run.rows]
    return replace(run.outcome, seconds=0.0), rows


def spec_of(arm: str, **training: Any) -> RunSpec:
    return make_spec(arm=arm, steps=STEPS, lr=ARMS[arm].lr, accumulation=2, **training)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("arm", ARMS)
def test_a_run_ended_again_and_again_ends_with_the_same_bits(arm: str, tmp_path: Path):
    spec = spec_of(arm)
    whole, weights, _ = run(tmp_path / "whole", spec)
    for end in ENDS:
        partial, *_ = run(tmp_path / "ended", spec, end=end)
        assert partial.outcome is None
    resumed, same, steps = run(tmp_path / "ended", spec)
    assert steps == STEPS - ENDS[-1], "it did not go on where it was"
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert numbers(resumed) == numbers(whole)
    assert resumed.outcome is not None
    assert resumed.outcome.seconds > 0


def test_a_finished_run_keeps_no_checkpoint(tmp_path: Path):
    done, *_ = run(tmp_path, spec_of("mars-adamw"), minutes=AT_ONCE)
    assert sorted(p.name for p in done.path.iterdir()) == ["manifest.json", "rows.jsonl"]


def test_without_checkpoints_a_run_begins_again(tmp_path: Path):
    spec = spec_of("mars-adamw")
    run(tmp_path, spec, end=12, checkpoint_steps=0)
    assert not list(tmp_path.rglob(CHECKPOINTS))
    assert run(tmp_path, spec, checkpoint_steps=0)[2] == STEPS


def test_a_checkpoint_is_written_only_when_it_is_time(tmp_path: Path):
    spec = spec_of("mars-adamw")
    run(tmp_path / "later", spec, end=12, minutes=60.0, checkpoint_steps=0)
    assert not list(tmp_path.rglob(CHECKPOINTS))
    run(tmp_path / "at once", spec, end=3, minutes=AT_ONCE, checkpoint_steps=0)
    assert [p.name for p in tmp_path.rglob("step-*")] == ["step-000000000003"]
    assert run(tmp_path / "at once", spec)[2] == STEPS - 3


def newest(run: Run) -> Path:
    return max((run.path / CHECKPOINTS).glob("step-*"))


def cut(folder: Path) -> None:
    (data,) = folder.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:-40])


def change(folder: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    """Another position in a checkpoint that is whole otherwise."""
    file = folder / "position.json"
    data = json.loads(file.read_text())
    how(data["position"])
    file.write_text(json.dumps(data))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": cut,
    "without data": lambda folder: [p.unlink() for p in folder.glob("*.distcp")],
    "garbage": lambda folder: (folder / ".metadata").write_bytes(b"\x80\x04hello"),
    "empty": lambda folder: (folder / ".metadata").write_bytes(b""),
    "no position": lambda folder: (folder / "position.json").unlink(),
    "a position of another form": lambda folder: (folder / "position.json").write_text("[1]"),
    "an empty position": lambda folder: change(folder, lambda position: position.clear()),
    "words in the position": lambda folder: change(folder, lambda p: p.update(seconds="x")),
    "no memory of gamma": lambda folder: change(folder, lambda p: p.update(memory="x")),
    "not renamed": lambda folder: folder.rename(folder.with_name(folder.name + ".tmp")),
}


POSITIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "empty": (lambda p: p.clear(), "position has no 'step'"),
    "step": (lambda p: p.update(step=-5), "step = -5"),
    "late": (lambda p: p.update(step=STEPS + 1), f"step = {STEPS + 1} is none of the run's"),
    "lr": (lambda p: p.update(lr="x"), "lr = 'x'"),
    "window": (lambda p: p.update(window=[0.0]), r"window = \[0.0\]"),
    "rows": (lambda p: p.update(rows="x"), "rows = 'x'"),
    "scores": (lambda p: p.update(scores=[1]), r"scores = \[1\]"),
    "memory": (lambda p: p.update(memory={"gamma": 3}), "memory is not what an optimizer keeps"),
    "groups": (lambda p: p["memory"]["gamma"].clear(), "memory in position.json: .*0 parameter gr"),
    "buckets": (lambda p: p["memory"].update(telemetry={"steps": 1}), "memory in .*: 'buckets'"),
}


@pytest.mark.parametrize("damage", POSITIONS)
def test_a_damaged_position_is_told_and_not_gone_on_from(damage: str, tmp_path: Path):
    how, message = POSITIONS[damage]
    spec = spec_of("mars-adamw")
    ended, *_ = run(tmp_path, spec, end=6)
    change(newest(ended), how)
    with pytest.raises(UserError, match=f"damaged .*{message}.* begin"):
        run(tmp_path, spec, unusable="refuse")


@pytest.mark.slow_but_one(among=4)
@pytest.mark.parametrize("damage", [*DAMAGES, "of another run", "of another torch"])
def test_a_checkpoint_that_cannot_be_used_is_thrown_away(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = spec_of("mars-adamw")
    whole, weights, _ = run(tmp_path / "whole", spec)
    ended, *_ = run(tmp_path / "ended", spec, end=12)
    if damage == "of another run":
        shutil.rmtree(newest(ended))
        other, *_ = run(tmp_path / "other", replace(spec, seed=2), end=12)
        newest(other).rename(ended.path / CHECKPOINTS / newest(other).name)
    elif damage == "of another torch":
        monkeypatch.setattr(torch, "__version__", "1.0")
    else:
        DAMAGES[damage](newest(ended))
    resumed, same, steps = run(tmp_path / "ended", spec)
    assert steps == STEPS
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert numbers(resumed) == numbers(whole)


def test_disk_too_small_for_a_checkpoint_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    with pytest.warns(UserWarning, match="checkpoints.* cannot be written: .*No space left"):
        done, *_ = run(tmp_path, spec_of("mars-adamw"), checkpoint_steps=9)
    assert done.outcome is not None
    assert not list(tmp_path.rglob("*.tmp"))


def test_kill_while_writing_a_checkpoint_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = spec_of("mars-adamw")
    whole, *_ = run(tmp_path / "whole", spec)
    run(tmp_path / "ended", spec, end=12)
    with monkeypatch.context() as patch:

        def killed(writer: FileSystemWriter, *arguments: Any) -> None:
            (Path(writer.path) / "__0_0.distcp").write_bytes(b"half of")
            raise Stop

        patch.setattr(FileSystemWriter, "write_data", killed)
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
        with pytest.warns(UserWarning, match="cannot be written: Stop"):
            run(tmp_path / "ended", spec, end=13)
    assert list(tmp_path.rglob("*.tmp"))
    resumed, _, steps = run(tmp_path / "ended", spec)
    assert steps == STEPS - 12
    assert numbers(resumed) == numbers(whole)
