"""How a run is carried out: recomputed, compiled, in bf16; what is told of its speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mars_optim.errors import UserError
from mars_optim.experiment.plan import ExecutionOptions
from mars_optim.experiment.records import RunWriter
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.training import (
    Gradients,
    Ranks,
    alone,
    join_ranks,
    load_weights,
    parallelize,
)
from mars_optim.experiment.training.parallelize import blocks_of
from mars_optim.experiment.training.speed import flops_per_token, peak_of
from tests.support.executed import Words, numbers, run
from tests.support.regression import Regression, make_spec, rows_of


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
    with pytest.raises(ValueError, match=r"Scored.scores.*\['accuracy'\]: 'valid_loss' must be"):
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
