"""An optimizer as one file in programs that call it: a speed run's script, AlgoPerf's runner."""

from __future__ import annotations

import enum
import json
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim.experiment.export.standalone import (
    export_standalone,
    standalone,
)
from mars_optim.optimizer_options import NAMED


class Small(nn.Module):
    """Embedding, blocks and head, by the names of modded-nanogpt."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.lm_head = nn.Linear(8, 11, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.lm_head(x)


def scope_of(name: str, form: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "submission"}
    exec(compile(standalone(name, form), f"{name}.py", "exec"), scope)
    return scope


TOKENS = torch.arange(64).reshape(8, 8) % 11
TARGETS = TOKENS * 3 % 11


@pytest.mark.parametrize("name", ["mars-m", "mars-adamw-auto", "mars-lion"])
def test_script_of_a_speedrun_trains_with_its_block(name: str) -> None:
    model = Small()
    optimizers = scope_of(name, "speedrun")["make_optimizers"](model)
    losses = []
    for step in range(30):  # as the script does it
        loss = nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), TARGETS.flatten())
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (1 - step / 30)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
    plain = {id(p) for g in optimizers[0].param_groups if g["plain"] for p in g["params"]}
    ends = {n for n, p in model.named_parameters() if id(p) in plain}
    assert ends == {"embed.weight", "lm_head.weight", "blocks.0.bias", "blocks.1.bias"}
    assert losses[-1] < 0.97 * losses[0]


class ForwardPassMode(enum.Enum):
    TRAIN = 0


class Workload:
    """The part of AlgoPerf's workload that a submission asks for."""

    step_hint = 40

    def model_fn(
        self,
        params: Any,
        augmented_and_preprocessed_input_batch: Any,
        model_state: Any,
        mode: Any,
        rng: Any,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
    ) -> tuple[Any, Any]:
        assert mode is ForwardPassMode.TRAIN
        return params(augmented_and_preprocessed_input_batch["inputs"]), model_state

    def loss_fn(
        self, label_batch: Any, logits_batch: Any, mask_batch: Any, label_smoothing: float
    ) -> dict[str, Any]:
        logits, labels = logits_batch.flatten(0, 1), label_batch.flatten()
        each = nn.functional.cross_entropy(
            logits, labels, reduction="none", label_smoothing=label_smoothing
        )
        return {"summed": each.sum(), "n_valid_examples": torch.tensor(len(each))}


@pytest.fixture
def algoperf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two modules of AlgoPerf that a submission imports."""
    package, spec, utils = map(ModuleType, ("algoperf", "algoperf.spec", "algoperf.pytorch_utils"))
    spec.ForwardPassMode = ForwardPassMode  # type: ignore[attr-defined]
    device = torch.device("cpu")
    utils.pytorch_setup = lambda: (False, 0, device, 0)  # type: ignore[attr-defined]
    package.spec = spec  # type: ignore[attr-defined]
    for module in (package, spec, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def trained(scope: dict[str, Any], hyperparameters: Any) -> tuple[list[float], Any]:
    """As AlgoPerf's submission_runner calls a submission; the loss at each step."""
    workload, model, rng = Workload(), Small(), [0, 1]
    assert scope["get_batch_size"]("mnist") == 16
    state = scope["init_optimizer_state"](workload, model, {}, hyperparameters, rng)
    queue = iter([{"inputs": TOKENS, "targets": TARGETS}] * 40)
    losses = []
    of_all: dict[str, Any] = dict(workload=workload, hyperparameters=hyperparameters, rng=rng)
    update: Callable[..., Any] = scope["update_params"]
    for step in range(40):
        now = dict(current_param_container=model, model_state={}, global_step=step)
        batch = scope["data_selection"](input_queue=queue, optimizer_state=state, **of_all, **now)
        more = dict(current_params_types=None, loss_type=None, eval_results=[])
        state, model, _ = update(
            batch=batch, optimizer_state=state, train_state={}, **more, **of_all, **now
        )
        logits = model(TOKENS).flatten(0, 1)
        losses.append(nn.functional.cross_entropy(logits, TARGETS.flatten()).item())
        state, model, _ = scope["prepare_for_eval"](optimizer_state=state, **more, **of_all, **now)
    return losses, state["optimizer"]


@pytest.mark.usefixtures("algoperf")
@pytest.mark.parametrize("name", ["mars-adamw-auto", "mars-m"])
def test_algoperfs_runner_trains_a_self_tuning_submission(name: str) -> None:
    losses, optimizer = trained(scope_of(name, "algoperf-self"), None)
    assert losses[-1] < 0.95 * losses[0]
    assert optimizer.param_groups[0]["weight_decay"] == NAMED[name].get("weight_decay", 0.01)


@pytest.mark.usefixtures("algoperf")
def test_algoperfs_runner_trains_an_external_tuning_submission(tmp_path: Path) -> None:
    out = tmp_path / "submission.py"
    export_standalone("mars-adamw-auto", out, form="algoperf-external")
    space = json.loads((tmp_path / "tuning_search_space.json").read_text())
    values = {
        k: v["feasible_points"][0] if "feasible_points" in v else v["max"] for k, v in space.items()
    }
    scope: dict[str, Any] = {"__name__": "submission"}
    exec(compile(out.read_text(), str(out), "exec"), scope)
    losses, optimizer = trained(scope, namedtuple("Hyperparameters", values)(**values))
    assert losses[-1] < 0.95 * losses[0]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
    assert optimizer.param_groups[0]["initial_lr"] == 1e-2


@pytest.mark.usefixtures("algoperf")
def test_unknown_workload_is_named() -> None:
    with pytest.raises(ValueError, match="workload 'mnits' must be one of cifar, criteo1tb"):
        scope_of("mars-adamw", "algoperf-self")["get_batch_size"]("mnits")
