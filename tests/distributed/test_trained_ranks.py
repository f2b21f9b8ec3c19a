"""A run in real processes: torchrun and accelerate launch, DDP and FSDP2, and a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim.experiment.records import Run, read_runs
from mars_optim.experiment.records.run import CHECKPOINTS, TIMINGS
from mars_optim.experiment.training import load_weights
from tests.support.distributed import trained
from tests.support.distributed.trained import Words, one

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(trained.__file__)
EXACT = {"arm": "mars-adamw-exact"}
SHARDS = {"sharding": "fsdp2", "activation_checkpointing": True}
LEAVE = {"end": 7, "checkpoint_steps": 7}
KEEP = {"keep_weights": True}

OF_FOUR: list[dict[str, Any]] = [
    {"name": "killed", "kill": 8, "checkpoint_steps": 3, **KEEP},
    {"name": "4 replicas", **KEEP},
    {"name": "4 shards", **EXACT, **SHARDS, **KEEP},
    {"name": "4 shards, left", **EXACT, **SHARDS, **LEAVE},
    {"name": "4 shards, left", **EXACT, **SHARDS, **LEAVE, **KEEP, "end": 0},
    {"name": "4 replicas, then 2 shards", **LEAVE},
    {"name": "4 shards, then 1", "arm": "mars-m", **SHARDS, **LEAVE},
]
OF_TWO: list[dict[str, Any]] = [
    {"name": "2 replicas", **EXACT},
    {"name": "2 shards", "arm": "mars-m", **SHARDS},
    {"name": "4 replicas, then 2 shards", **SHARDS, **LEAVE, "end": 0},
    {"name": "refused", **LEAVE},
    {"name": "refused", **LEAVE, "width": 32, "unusable": "refuse"},
]
OF_ONE: list[dict[str, Any]] = [
    {"name": "1", **KEEP},
    {"name": "1 exact", **EXACT, **KEEP},
    {"name": "1 mars-m", "arm": "mars-m"},
    {"name": "4 shards, then 1", "arm": "mars-m", "checkpoint_steps": 7},
]
SAME = {
    "1": ["4 replicas", "killed", "4 replicas, then 2 shards"],
    "1 exact": ["2 replicas", "4 shards", "4 shards, left"],
    "1 mars-m": ["2 shards", "4 shards, then 1"],
}


def start(command: list[str], folder: Path, runs: list[dict[str, Any]]) -> str:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *command, str(SCRIPT), str(folder), json.dumps(runs)]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("trained")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    start([*torchrun, "--nproc-per-node=4"], folder, OF_FOUR)
    accelerate = (
        "-m accelerate.commands.launch --multi_gpu --num_machines=1 --num_processes=2".split()
    )
    start([*accelerate, "--mixed_precision=no", "--dynamo_backend=no"], folder, OF_TWO)
    for each in OF_ONE:
        one(folder, **each)
    assert (folder / "killed" / "killed").exists()
    assert (folder / "4 shards" / "rank 3 of 4").exists()
    assert (folder / "2 shards" / "rank 1 of 2").exists()
    return {path.name: read_runs(path)[0] for path in folder.iterdir()}


def numbers(run: Run) -> list[dict[str, float]]:
    """Rows without what depends on the machine; fields of the noise beside the others."""
    found = []
    for row in run.rows:
        kept = {k: v for k, v in row.items() if k not in (*TIMINGS, "noise")}
        noise = {f"noise {k}": v for k, v in row.get("noise", {}).items()}
        found.append(kept | noise)
    return found


@pytest.mark.parametrize(
    ("alone", "other"), [(alone, other) for alone, others in SAME.items() for other in others]
)
def test_a_run_is_that_of_one_process_to_round_off(
    alone: str, other: str, runs: dict[str, Run]
) -> None:
    """Its dropout and its gradient clip too; wherever it was left, killed and gone on from."""
    one, many = runs[alone], runs[other]
    assert one.outcome is not None
    assert many.outcome is not None
    assert many.final_loss == pytest.approx(one.final_loss, rel=1e-11)
    assert (many.outcome.steps, many.outcome.tokens) == (one.outcome.steps, one.outcome.tokens)
    assert many.outcome.parameters == one.outcome.parameters
    assert many.outcome.state_bytes == one.outcome.state_bytes
    for row, same in zip(numbers(one), numbers(many), strict=True):
        assert same.keys() == row.keys()
        for key, value in row.items():  # the noise is a difference, of which digits cancel
            rel = 1e-6 if key.startswith("noise") else 1e-10
            assert same[key] == pytest.approx(value, rel=rel), key


@pytest.mark.parametrize(
    ("whole", "resumed"), [("4 replicas", "killed"), ("4 shards", "4 shards, left")]
)
def test_resume_on_equal_process_count_is_bit_identical(
    whole: str, resumed: str, runs: dict[str, Run]
) -> None:
    """Above all after one of four was killed, and torchrun started them all again."""
    (_, some), (_, same) = (load_weights(runs[name].path) for name in (whole, resumed))
    assert some.keys() == same.keys()
    assert all(torch.equal(some[name], same[name]) for name in some)
    assert numbers(runs[whole]) == numbers(runs[resumed])


@pytest.mark.parametrize(("alone", "many"), [("1", "4 replicas"), ("1 exact", "4 shards")])
def test_weights_are_written_whole_under_the_models_own_names(
    alone: str, many: str, runs: dict[str, Run]
) -> None:
    spec, weights = load_weights(runs[many].path)
    assert spec == runs[many].spec
    model = Words().build_model(0)
    model.load_state_dict(weights)
    assert weights["head.weight"].data_ptr() == weights["wte.weight"].data_ptr()
    for name, value in load_weights(runs[alone].path)[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-9, atol=1e-11)


def test_every_process_refuses_the_checkpoint_of_another_model(runs: dict[str, Run]) -> None:
    folder = runs["refused"].path.parent
    told = [(folder / f"refused by {rank}").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert "wte.weight is (19, 16) there and (19, 32) here; nothing was changed" in told[0]
    assert [p.name for p in (runs["refused"].path / CHECKPOINTS).iterdir()] == ["step-000000000007"]
    assert len([row for row in runs["refused"].rows if "loss" in row]) == 7


def test_all_scores_of_a_task_stand_in_its_rows(runs: dict[str, Run]) -> None:
    for run in (runs[name] for names in SAME.values() for name in names):
        scores = [row for row in run.rows if "valid_loss" in row]
        assert [row["step"] for row in scores] == [3, 6, 9, 12]
        assert all(row["bits"] == pytest.approx(row["valid_loss"] / 0.6931471805) for row in scores)
