"""Branches that start from a trunk's state end with the bits of runs that nothing interrupted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm, ExecutionOptions, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.table import KeywordTable
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.records.run import branch_point, forget_branch_point
from mars_optim.experiment.training import lr_factor, train
from mars_optim.experiment.training.schedule import rate_share
from tests.experiment.training.test_run_checkpoint import Noisy, Stop
from tests.support.regression import Scripted, make_spec

UNIT, RUNGS = 20, (10, 20, 30)


class Task(Noisy):
    """With dropout and a buffer, which an evaluation leaves alone."""

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        model.eval()
        found = super().evaluate(model, tokens)
        model.train()
        return found


def undisturbed(arm: str, steps: int, **training: Any) -> RunSpec:
    how = {"warmup": 0.2, "decay": "wsd", "trunk": True, "accumulation": 2, **training}
    spec = make_spec(arm=arm, steps=steps, lr=ARMS[arm].lr)
    return replace(spec, training=TrainingPlan(steps=UNIT, **how))


def trunk_of(spec: RunSpec) -> RunSpec:
    points = tuple(spec.training.decay_start(steps) for steps in RUNGS)
    return replace(spec, steps=points[-1], branches=points, trunk="", purpose="trunk")


def branch(spec: RunSpec) -> RunSpec:
    return replace(spec, trunk=trunk_of(spec).run_id)


def run(
    folder: Path, spec: RunSpec, *, end: int | None = None, task: Any = None, **options: Any
) -> tuple[Run, dict[str, Tensor], int]:
    """Train, until step ``end`` if it is given: what is read back, the weights, steps taken."""

    def on_step(step: int) -> None:
        nonlocal steps
        steps += 1
        if step == end:
            raise Stop

    steps, task = 0, task or Task()
    torch.manual_seed(99)  # a process has whatever random state
    writer = RunWriter(folder, spec, {})
    try:
        how = {"checkpoint_minutes": 0.0, "checkpoint_steps": end or 10**6, **options}
        writer.finish(train(spec, task, writer, on_step, ExecutionOptions(**how)))
    except Stop:
        pass
    finally:
        writer.close()
    weights = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
    return read_run(writer.path), weights, steps


def last_state(run: Run) -> dict[str, Any]:
    """All tensors of a run's last checkpoint: weights, buffers, the optimizer's state."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder = max(run.path.glob("checkpoints/step-*"))
    dcp_to_torch_save(folder, run.path / "all.pt")
    found: dict[str, Any] = torch.load(run.path / "all.pt", weights_only=True)
    return found


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
        return
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other


@pytest.mark.slow_but_one
@pytest.mark.parametrize("arm", ARMS)
def test_branches_have_the_bits_of_undisturbed_runs(arm: str, tmp_path: Path):
    trunk, *_ = run(tmp_path, trunk_of(undisturbed(arm, UNIT)))
    assert trunk.outcome is not None
    for steps in RUNGS:
        spec = undisturbed(arm, steps)
        whole, weights, _ = run(tmp_path / "whole", spec, keep=1)
        branched, same, taken = run(tmp_path, branch(spec), keep=1)
        assert taken == branch(spec).work == steps - round(0.8 * steps)
        assert_equal(weights, same)
        assert_equal(last_state(whole), last_state(branched))
        assert branched.outcome is not None
        assert whole.outcome is not None
        assert replace(branched.outcome, seconds=0.0) == replace(whole.outcome, seconds=0.0)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("own_schedule", [False, True])
def test_branches_of_a_named_class_have_the_same_bits(own_schedule: bool, tmp_path: Path):
    options = KeywordTable(momentum=0.9, weight_decay=0.01)
    arm = Arm(optimizer="torch.optim:SGD", lr=0.02, options=options, own_schedule=own_schedule)
    spec = replace(undisturbed("adamw", UNIT), arm_name="sgd", arm=arm, lr=0.02)
    run(tmp_path, trunk_of(spec))
    whole, weights, _ = run(tmp_path / "whole", spec)
    branched, same, taken = run(tmp_path, branch(spec))
    assert taken == branch(spec).work
    assert_equal(weights, same)
    assert branched.final_loss == whole.final_loss


def test_a_trunk_ended_again_and_again_leaves_the_same_bits(tmp_path: Path):
    spec = undisturbed("mars-adamw", 30)
    for end in (3, 8, 9, 23):
        partial, *_ = run(tmp_path / "ended", trunk_of(spec), end=end)
        assert partial.outcome is None
    taken = run(tmp_path / "ended", trunk_of(spec))[2]
    assert taken == trunk_of(spec).steps - 23, "it did not go on where it was"
    partial, *_ = run(tmp_path / "ended", branch(spec), end=27)
    assert partial.outcome is None
    ended, weights, taken = run(tmp_path / "ended", branch(spec))
    assert taken == 30 - 27
    run(tmp_path / "whole", trunk_of(spec))
    whole, same, _ = run(tmp_path / "whole", branch(spec))
    assert_equal(weights, same)
    assert ended.final_loss == whole.final_loss


def test_a_trunk_goes_on_without_checkpoints_by_time(tmp_path: Path):
    spec = trunk_of(undisturbed("adamw", UNIT))
    run(tmp_path, spec, end=12, checkpoint_steps=0)
    assert run(tmp_path, spec, checkpoint_steps=0)[2] == spec.steps - spec.branches[0]


def test_the_rate_of_a_trunk_does_not_fall():
    spec = undisturbed("adamw", 30)
    shares = [rate_share(trunk_of(spec), step) for step in range(24)]
    assert shares == [lr_factor(step, UNIT, warmup=0.2, decay="constant") for step in range(24)]
    assert shares[4:] == [1.0] * 20, "its warm-up is that of one budget unit"


def test_the_share_of_the_decay_is_the_plans():
    spec = undisturbed("adamw", UNIT, decay_share=0.5)
    shares = [rate_share(spec, step) for step in range(UNIT)]
    assert shares[10:] == [pytest.approx(1 - i / 10) for i in range(10)]
    assert branch(spec).start == 10


def test_warm_up_is_the_same_on_every_rung():
    short, long = (rate_share(undisturbed("adamw", steps), 3) for steps in (10, 30))
    assert short == long == 4 / 5
    assert rate_share(undisturbed("adamw", 30, trunk=False), 3) < 4 / 5


def test_a_branch_has_the_rows_of_its_trunk_and_its_own_seconds(tmp_path: Path):
    spec = undisturbed("adamw", UNIT, evaluations=4)
    trunk, *_ = run(tmp_path, trunk_of(spec))
    branched, *_ = run(tmp_path, branch(spec))
    assert [r["step"] for r in branched.rows if "loss" in r] == list(range(1, UNIT + 1))
    before = [row for row in trunk.rows if row["step"] <= branch(spec).start]
    assert branched.rows[: len(before)] == before
    assert branched.outcome is not None
    whole_path = branched.rows[-1]["seconds"]
    assert branched.outcome.seconds == pytest.approx(whole_path - before[-1]["seconds"], abs=1e-3)
    assert branched.work == 4
    assert branched.own_tokens == branched.outcome.tokens // 5


def test_only_what_branches_start_from_stays(tmp_path: Path):
    spec = undisturbed("adamw", UNIT)
    trunk, *_ = run(tmp_path, trunk_of(spec), checkpoint_minutes=1e-9)
    left = sorted(path.name for path in (trunk.path / "checkpoints").iterdir())
    assert left == [f"step-{step:012d}" for step in (8, 16, 24)]
    for steps in RUNGS:
        run(tmp_path, branch(undisturbed("adamw", steps)))
        forget_branch_point(tmp_path, branch(undisturbed("adamw", steps)))
    assert sorted(path.name for path in trunk.path.iterdir()) == ["manifest.json", "rows.jsonl"]


def test_a_branch_waits_for_its_trunk(tmp_path: Path):
    spec = undisturbed("adamw", UNIT)
    run(tmp_path, trunk_of(spec), end=17)
    with pytest.raises(UserError, match="has not finished"):
        run(tmp_path, branch(spec))


@pytest.mark.parametrize("hurt", ["gone", "cut short", "of another run"])
def test_a_branch_without_its_state_says_the_way_out(hurt: str, tmp_path: Path):
    spec = branch(undisturbed("adamw", UNIT))
    trunk, *_ = run(tmp_path, trunk_of(spec))
    folder = branch_point(tmp_path, spec)
    if hurt == "gone":
        shutil.rmtree(folder)
    elif hurt == "cut short":
        for file in folder.glob("*.distcp"):
            file.write_bytes(file.read_bytes()[:20])
    else:
        other = trunk_of(undisturbed("adamw", UNIT, grad_clip=0.5))
        run(tmp_path, other)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / other.run_id / "checkpoints" / folder.name, folder)
    with pytest.raises(UserError, match="no branch can start from it: delete") as error:
        run(tmp_path, spec)
    assert str(trunk.path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trunk_that_cannot_leave_its_state_has_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from torch.distributed.checkpoint import FileSystemWriter

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, trunk_of(undisturbed("adamw", UNIT)))
    assert read_run(next(tmp_path.iterdir())).outcome is None


@pytest.mark.parametrize(("at", "ends"), [(5, 2), (16, 2), (17, 1), (24, 1)])
def test_branches_end_as_a_trunk_that_diverged_before_them(at: int, ends: int, tmp_path: Path):
    losses = [1.0] * (2 * at - 2) + [float("inf")] * 2
    spec = undisturbed("adamw", UNIT)
    trunk, *_ = run(tmp_path, trunk_of(spec), task=Scripted(losses))
    assert trunk.outcome is not None
    assert (trunk.outcome.status, trunk.outcome.steps) == ("diverged", at)
    lost = 0
    for steps in (20, 30):
        own = branch(undisturbed("adamw", steps))
        ended, _, taken = run(tmp_path, own, task=Scripted([1.0] * 2 * own.work))
        assert ended.outcome is not None
        if ended.outcome.status == "diverged":
            lost += 1
            assert (taken, ended.work, ended.outcome.seconds) == (0, 0, 0.0)
            assert ended.rows == trunk.rows
    assert lost == ends


def test_a_trunk_is_named_by_its_states_a_branch_by_its_trunk():
    spec = undisturbed("adamw", UNIT)
    trunk = trunk_of(spec)
    assert trunk.run_id.startswith("adamw-trunk-lr")
    shorter = replace(trunk, branches=trunk.branches[1:])
    names = {s.run_id for s in (spec, trunk, shorter, branch(spec))}
    assert len(names | {replace(spec, trunk=shorter.run_id).run_id}) == 5
    assert RunSpec.from_dict(trunk.to_dict()) == trunk
    assert RunSpec.from_dict(branch(spec).to_dict()).run_id == branch(spec).run_id


def test_settings_of_old_plans_keep_their_names():
    """As they were before trunks: the schedule's new keys join a name off their default only."""
    old = make_spec(arm="adamw", steps=20, decay="wsd")
    assert old.run_id == "adamw-lr0.05-seed1-steps20-c3c026b1"
    assert old.training == TrainingPlan(decay="wsd", decay_share=0.2, trunk=False)
