"""A run whose optimizer is any class: rates, modes, closures, and checkpoints to the same bits."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm, ExecutionOptions, RunSpec
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.training import (
    Gradients,
    alone,
    build_optimizer,
    load_weights,
    parallelize,
    state_bytes,
    train,
    wants_closure,
)
from mars_optim.experiment.training.judged import judged
from mars_optim.experiment.training.ranks import Ranks
from tests.support import own_optimizers as own
from tests.support.executed import Words, numbers, run

OWN = "tests.support.own_optimizers:"
STEPS = 24


def arm_of(optimizer: str, lr: float = 0.05, **options: Any) -> Arm:
    name = optimizer if ":" in optimizer else OWN + optimizer
    return Arm(optimizer=name, lr=lr, **options)


def spec_of(arm: Arm, **training: Any) -> RunSpec:
    return RunSpec(
        purpose="compare",
        arm_name="any",
        arm=arm,
        lr=arm.lr,
        seed=1,
        steps=STEPS,
        task=GptPlan(),
        training=TrainingPlan(steps=STEPS, **training),
        data="words",
    )


def rates(done: Run) -> list[float]:
    return [row["lr"] for row in done.rows if "lr" in row]


def losses(done: Run) -> list[float]:
    return [row["valid_loss"] for row in done.rows if "valid_loss" in row]


@pytest.mark.slow
def test_an_own_schedule_keeps_the_rate(tmp_path: Path):
    kept, _ = run(tmp_path, Words(), spec_of(arm_of("Own", own_schedule=True)))
    falling, _ = run(tmp_path, Words(), spec_of(arm_of("Own")))
    assert set(rates(kept)) == {0.05}
    assert rates(falling)[-1] < 0.05 / 10


def test_lists_of_a_plan_reach_the_class_as_tuples():
    model = Words().build_model(0)
    made = build_optimizer(model, arm_of("Own", options={"betas": [0.5, 0.6]}), lr=0.1)
    assert made.param_groups[0]["betas"] == (0.5, 0.6)
    assert {group["lr"] for group in made.param_groups} == {0.1}


@pytest.mark.slow
def test_a_rate_that_is_a_tensor_is_written_in_place(tmp_path: Path):
    done, _ = run(tmp_path, Words(), spec_of(arm_of("TensorRate")))
    same, _ = run(tmp_path, Words(), spec_of(arm_of("Own")))
    assert losses(done) == pytest.approx(losses(same), rel=1e-5)


def test_bytes_in_lists_of_the_state_are_counted():
    model = nn.Linear(3, 2)
    made = build_optimizer(model, arm_of("Own", parameters="all"), lr=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    made.step()
    assert state_bytes(made) == 8 * 4


@pytest.mark.slow
def test_the_number_of_evaluations_changes_no_bit(tmp_path: Path):
    """Though eval() and train() round."""
    few, _ = run(tmp_path, Words(), spec_of(arm_of("Average"), evaluations=1))
    many, _ = run(tmp_path, Words(), spec_of(arm_of("Average"), evaluations=8))
    assert losses(few)[-1] == losses(many)[-1]


def test_judged_weights_are_the_averages_and_only_within():
    model = nn.Linear(3, 2)
    made = build_optimizer(model, arm_of("Average", parameters="all"), lr=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(3):
        made.step()
    before = model.weight.detach().clone()
    with judged(made, model):
        average = made.state[model.weight]["average"]
        torch.testing.assert_close(model.weight, before + 0.5 * (average - before))
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)
    made.step()  # it is in training mode again


def test_the_weights_that_are_kept_are_those_judged(tmp_path: Path):
    """Both those at the end and the best, of which the loss was recorded."""
    task, spec = Words(), spec_of(arm_of("Average"), evaluations=3)
    done, _ = run(tmp_path, task, spec, keep_weights=True, keep_best=True)
    for best in (False, True):
        model = task.build_model(1)
        model.load_state_dict(load_weights(done.path, best=best)[1])
        assert task.evaluate(model, 0) == pytest.approx(min(losses(done)), abs=1e-7)


class Counting(Words):
    """Counts its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.count += torch.is_grad_enabled()
        return super().loss(model, batch)


def test_a_closure_makes_the_clipped_gradient_again():
    task, arm = Counting(), arm_of("Asks", parameters="all")
    model = parallelize(task.build_model(1), alone(), ExecutionOptions())
    made = build_optimizer(model.bare, arm, lr=arm.lr)
    training = TrainingPlan(accumulation=2, grad_clip=0.1)
    gradients = Gradients(task, model, made, training, alone(), 1, wants_closure(arm))
    mean = gradients.make(0)[0].mean()
    gradients.update(0)
    assert task.count == 4
    assert isinstance(made, own.Asks)
    assert float(made.loss) > float(mean)  # a step uphill from where it was
    grads = [p.grad for p in model.bare.parameters() if p.grad is not None]
    assert float(nn.utils.get_total_norm(grads)) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(("name", "wanted"), [("Asks", True), ("Own", False)])
def test_whether_a_class_wants_a_closure_is_found_out(name: str, wanted: bool):
    assert wants_closure(arm_of(name)) is wanted


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two = Ranks(rank=0, world=2, device=torch.device("cpu"))
    monkeypatch.setattr("mars_optim.experiment.training.loop.join_ranks", lambda: two)
    with pytest.raises(
        UserError, match=r"arm\.any\.optimizer = .* in one process, and 2 were started"
    ):
        run(tmp_path, Words(), spec_of(arm_of("Own")))


def test_other_code_than_the_runs_is_refused(tmp_path: Path):
    arm = arm_of("Own", source="own, sha256 0123")
    with pytest.raises(UserError, match=r"sha256 0123: install that one") as caught:
        run(tmp_path, Words(), spec_of(arm))
    assert "\n" not in str(caught.value)


OTHERS = [
    ("schedulefree:AdamWScheduleFree", 0.01, {"own_schedule": True}),
    ("pytorch_optimizer:ScheduleFreeAdamW", 0.01, {"own_schedule": True}),
    ("pytorch_optimizer:Prodigy", 1.0, {}),
    ("pytorch_optimizer:SOAP", 0.01, {}),
    ("pytorch_optimizer:SCION", 0.01, {}),  # its state holds objects
    ("torch.optim:Muon", 0.02, {"parameters": "matrices"}),
    (OWN + "Own", 0.05, {}),
    (OWN + "Average", 0.05, {}),
    (OWN + "Asks", 0.05, {"parameters": "all"}),
]


def other(optimizer: str, lr: float, options: dict[str, Any]) -> Arm:
    package = optimizer.partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return arm_of(optimizer, lr, **options)


@pytest.mark.slow_but_one(among=8)
@pytest.mark.parametrize(("optimizer", "lr", "options"), OTHERS)
def test_a_stopped_run_of_any_class_ends_with_the_same_bits(
    optimizer: str, lr: float, options: dict[str, Any], tmp_path: Path
):
    spec = spec_of(other(optimizer, lr, options))
    whole, _ = run(tmp_path / "whole", Words(), spec)
    for end in (1, 9, 17):
        run(tmp_path / "ended", Words(), spec, end=end, checkpoint_steps=end)
    resumed, steps = run(tmp_path / "ended", Words(), spec, checkpoint_steps=10**6)
    assert steps == STEPS - 17, "it did not go on where it was"
    assert numbers(resumed) == numbers(whole)


def test_a_damaged_state_begins_the_run_again(tmp_path: Path):
    spec = spec_of(arm_of("Own"))
    whole, _ = run(tmp_path / "whole", Words(), spec)
    run(tmp_path / "ended", Words(), spec, end=9, checkpoint_steps=9)
    (file,) = tmp_path.rglob("optimizer.pt")
    file.write_bytes(file.read_bytes()[:100])
    resumed, steps = run(tmp_path / "ended", Words(), spec, checkpoint_steps=10**6)
    assert steps == STEPS
    assert numbers(resumed) == numbers(whole)


def killed_at(folder: str, optimizer: str, end: str) -> None:
    """In a process of its own: train, and kill -9 oneself after step ``end``."""
    chosen = next((o, lr, options) for o, lr, options in OTHERS if o == optimizer)
    spec = spec_of(arm_of(chosen[0], chosen[1], **chosen[2]))

    def on_step(step: int) -> None:
        if step == int(end):
            os.kill(os.getpid(), signal.SIGKILL)

    writer = RunWriter(Path(folder), spec, {})
    execution = ExecutionOptions(checkpoint_steps=5)
    writer.finish(train(spec, Words(), writer, on_step, execution))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "lr", "options"),
    [o for o in OTHERS if "SCION" not in o[0] and "Muon" not in o[0]],
)
def test_kill_9_of_a_process_costs_no_bit(
    optimizer: str, lr: float, options: dict[str, Any], tmp_path: Path
):
    spec = spec_of(other(optimizer, lr, options))
    code = f"import sys; from {__name__} import killed_at; killed_at(*sys.argv[1:])"
    for name, end, status in (("whole", 0, 0), ("killed", 13, -signal.SIGKILL), ("killed", 0, 0)):
        arguments = [str(tmp_path / name), optimizer, str(end)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=300)
        assert done.returncode == status
        if end:
            assert list((tmp_path / "killed").rglob("step-*")), "it left no checkpoint"
    whole, killed = (read_run(tmp_path / name / spec.run_id) for name in ("whole", "killed"))
    assert numbers(killed) == numbers(whole)
