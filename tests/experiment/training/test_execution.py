"""How a run is carried out: which checkpoints stay, what is refused, what is told of its speed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.checkpoint import FileSystemWriter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mars_optim.errors import UserError
from mars_optim.experiment.plan import ExecutionOptions, RunSpec
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.records.run import CHECKPOINTS, TIMINGS
from mars_optim.experiment.tasks import GPT, Task
from mars_optim.experiment.training import (
    Gradients,
    Ranks,
    alone,
    join_ranks,
    load_weights,
    parallelize,
    train,
)
from mars_optim.experiment.training.parallelize import blocks_of
from mars_optim.experiment.training.speed import flops_per_token, peak_of
from tests.support.regression import Regression, Scripted, make_spec, rows_of

STEPS = 24


class Stop(Exception):  # noqa: N818
    """As sudden as kill -9, but in this process."""


def run(
    folder: Path, task: Task, spec: RunSpec, *, end: int | None = None, **options: Any
) -> tuple[Run, int]:
    """What is read back, and the steps taken; stopped after ``end``."""

    def on_step(step: int) -> None:
        nonlocal steps
        steps += 1
        if step == end:
            raise Stop

    steps, writer = 0, RunWriter(folder, spec, {})
    try:
        writer.finish(train(spec, task, writer, on_step, execution=ExecutionOptions(**options)))
    except Stop:
        pass
    finally:
        writer.close()
    return read_run(writer.path), steps


def steps_kept(run: Run) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run.path / CHECKPOINTS).iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if "manifest" not in name}


class Words:
    """A small GPT."""

    fingerprint, batch_tokens = "words", 32

    def __init__(self, width: int = 8) -> None:
        self.width, self.model = width, nn.Module()

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        self.model = GPT(vocabulary=11, context=8, layers=2, width=self.width, heads=2)
        return self.model

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 100 * step + 10_000 * micro)
        return torch.randint(11, (4, 9), generator=generator)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        return float(self.loss(model, self.batch(0, 999, 0)))


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


def numbers(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in run.rows]


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


@pytest.mark.parametrize("how", ["recomputed", "compiled"])
def test_recomputed_or_compiled_it_is_the_same_run(how: str, tmp_path: Path):
    task, spec = Words(), make_spec(steps=10, accumulation=2)
    plain, _ = run(tmp_path / "plain", task, spec, keep_weights=True)
    options: dict[str, Any] = {"activation_checkpointing": True}
    if how == "compiled":
        options = {"compile": True, "compile_backend": "eager"}
        torch._dynamo.reset()
        counters.clear()
    other, _ = run(tmp_path / "other", task, spec, keep_weights=True, **options)
    assert numbers(other) == numbers(plain)
    assert how == "recomputed" or counters["frames"]["ok"] > 0
    assert load_weights(other.path)[1].keys() == load_weights(plain.path)[1].keys()


def test_activations_are_kept_only_at_the_blocks_borders():
    kept = {}
    for on in (False, True):
        model = parallelize(
            Words().build_model(0), alone(), ExecutionOptions(activation_checkpointing=on)
        ).bare
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            model(torch.zeros(4, 8, dtype=torch.long))
        kept[on] = sum(sizes)
    assert kept[True] < kept[False] / 2


def test_a_model_without_blocks_says_that_it_has_none(tmp_path: Path):
    with pytest.raises(UserError, match=r"Linear has no nn\.ModuleList or nn\.Sequential of eq"):
        run(tmp_path, Regression(), make_spec(steps=10), activation_checkpointing=True)


def test_blocks_are_the_outermost_lists_of_equal_modules():
    model = Words().build_model(0)
    assert isinstance(model, GPT)
    assert blocks_of(model) == list(model.blocks)
    stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))))
    assert blocks_of(nn.ModuleDict({"stages": stages})) == list(stages[1])
    assert blocks_of(nn.ModuleDict({"relus": nn.Sequential(nn.ReLU(), nn.ReLU())})) == []


def test_micro_batches_that_do_not_divide_evenly_are_refused():
    task, spec = Regression(), make_spec(accumulation=6)
    model = parallelize(task.build_model(0), alone(), ExecutionOptions())
    optimizer = torch.optim.SGD(model.bare.parameters())
    with pytest.raises(UserError, match=r"accumulation = 6 must be a multiple of the 4 .* to 8"):
        Gradients(task, model, optimizer, spec.training, Ranks(1, 4, torch.device("cpu")), 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE = 2, but RANK is not set: start the processes by torch"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "but MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two' in the environment must be a whole number"),
    ],
)
def test_environment_naming_half_a_process_group_is_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join_ranks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sharding": "zero3"}, "execution.sharding = 'zero3' must be 'ddp' or 'fsdp2'"),
        ({"keep": -1}, "execution.keep = -1 must be at least 0"),
        (
            {"unusable": "ignore"},
            "execution.unusable = 'ignore' must be 'begin again' or 'refuse'",
        ),
    ],
)
def test_execution_is_checked_however_it_is_made(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        ExecutionOptions(**options)


def test_a_silent_writer_leaves_no_trace(tmp_path: Path):
    writer = RunWriter(tmp_path, make_spec(), {}, silent=True)
    writer.row(step=1, loss=float("nan"))
    assert writer.rows == [{"step": 1, "loss": None}]
    writer.close()
    assert not list(tmp_path.iterdir())


def test_rows_tell_tokens_per_second_and_the_optimizers_share(tmp_path: Path):
    done, _ = run(tmp_path, Regression(), make_spec(steps=100, accumulation=2))
    seconds, speeds = rows_of(done, "seconds"), rows_of(done, "tokens_per_second")
    times = [2 * 64 / speed for speed in speeds.values()]  # two steps a row
    assert sum(times) == pytest.approx(list(seconds.values())[-1], rel=1e-2)
    assert all(0 < share < 1 for share in rows_of(done, "optimizer_share").values())
    assert not rows_of(done, "mfu")


@pytest.mark.parametrize(("arm", "passes"), [("mars-adamw", 1), ("mars-adamw-exact", 2)])
def test_utilisation_counts_flops_of_all_gradients_over_the_peak(
    arm: str, passes: int, tmp_path: Path
):
    task, spec = Words(), make_spec(steps=10, arm=arm)
    done, _ = run(tmp_path, task, spec, peak_tflops=0.25)
    flops = passes * flops_per_token(task, task.build_model(0)) / 0.25e12
    speeds = rows_of(done, "tokens_per_second")
    for step, utilisation in rows_of(done, "mfu").items():
        assert utilisation == pytest.approx(flops * speeds[step], rel=1e-3)


def test_a_gpts_flops_are_those_that_torch_counts():
    model = GPT(vocabulary=320, context=32, layers=3, width=64, heads=4)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(2, 32, dtype=torch.long)).sum().backward()
    counted = counter.get_total_flops() / 64
    assert flops_per_token(Words(), model) == pytest.approx(counted, rel=0.01)


def test_task_may_give_its_own_flops_and_other_models_have_none():
    task = Regression()
    assert flops_per_token(task, task.build_model(0)) == 0
    task.flops_per_token = 123  # type: ignore[attr-defined]
    assert flops_per_token(task, task.build_model(0)) == 123


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA GeForce GTX 1080", 0),
        ("Tesla V100-SXM2-16GB", 0),
    ],
)
def test_a_gpus_peak_is_found_by_its_name(name: str, tflops: float):
    assert peak_of(name) == tflops * 1e12


class Scored(Regression):
    def __init__(self, **scores: float) -> None:
        super().__init__()
        self.given = scores

    def scores(self, model: nn.Module, tokens: int) -> dict[str, float]:
        return self.given


def test_all_that_a_task_scores_stands_in_the_row(tmp_path: Path):
    done, _ = run(tmp_path, Scored(valid_loss=0.5, accuracy=0.25), make_spec(steps=10))
    assert rows_of(done, "accuracy") == dict.fromkeys(rows_of(done, "valid_loss"), 0.25)
    assert done.final_loss == 0.5


def test_scores_without_a_validation_loss_are_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Scored.scores.*\['accuracy'\]; 'valid_loss' must be"):
        run(tmp_path, Scored(accuracy=0.25), make_spec(steps=10))


class Watched(Words):
    """Notes where autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, bool]] = set()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.seen.add(("training" if torch.is_grad_enabled() else "evaluation", autocast()))
        return super().loss(model, batch)


def autocast() -> bool:
    return any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_bf16_is_that_of_forward_passes_and_weights_stay_whole(precision: str, tmp_path: Path):
    task, on = Watched(), precision == "bf16"
    done, _ = run(tmp_path, task, make_spec(steps=10, precision=precision), keep_weights=True)
    assert task.seen == {("training", on), ("evaluation", on)}
    assert {w.dtype for w in load_weights(done.path)[1].values()} == {torch.float32}
    assert done.final_loss is not None


def test_a_run_that_diverges_keeps_no_weights(tmp_path: Path):
    done, _ = run(tmp_path, Scripted([1.0, float("nan")]), make_spec(steps=10), keep_weights=True)
    assert not (done.path / "weights.pt").exists()
