"""The recipe of docs/frameworks.md in torchtitan itself: its container, its models, its Trainer.

Needs torchtitan and what it imports; on a CPU, with gloo.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARSM
from tests.support import titan

from ..test_frameworks_page import PAGE, Titan, block

pytest.importorskip("torchtitan", reason="torchtitan is not installed")
pytestmark = [
    pytest.mark.filterwarnings("default"),  # torchtitan's own are not ours to fix
    pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy of the package"),
]
REAL: Any = pytest.importorskip("torchtitan.components.optimizer", exc_type=ImportError)
LINEAR = ["attention.qkv_linear.wqkv.weight", "attention.wo.weight"]
DENSE = [*LINEAR, "feed_forward.w1.weight", "feed_forward.w2.weight", "feed_forward.w3.weight"]
LATENT = [f"attention.{name}.weight" for name in ("wkv_a", "wkv_b", "wo", "wq")]
SHARED = [f"moe.shared_experts.w{i}.weight" for i in (1, 2, 3)]
INNER = "moe.routed_experts.inner_experts"
# model -> which recipe, its matrices (one layer's), its stacks of matrices
MODELS: dict[str, tuple[str, list[str], list[str]]] = {
    "llama3": ("dense", DENSE, []),
    "qwen3": ("dense", DENSE, []),
    "deepseek_v3": (
        "moe",
        [*LATENT, *DENSE[2:], *SHARED],
        [f"{INNER}.w1_EFD", f"{INNER}.w2_EDF", f"{INNER}.w3_EFD"],
    ),
    "gpt_oss": ("moe", LINEAR, [f"{INNER}.mlp1_weight_EGD", f"{INNER}.mlp2_weight_EDF"]),
}


def recipe(choice: str) -> Any:
    scope: dict[str, Any] = {"__name__": "recipe"}
    exec(block("torchtitan"), scope)
    return scope[choice]


@pytest.mark.parametrize("name", MODELS)
def test_recipe_gives_newton_schulz_exactly_the_model_matrices(
    name: str,
) -> None:
    choice, matrices, stacks = MODELS[name]
    module = pytest.importorskip(f"torchtitan.models.{name}")
    flavour = "debugmodel"
    with torch.device("meta"):
        model = module.model_registry(flavour, attn_backend="flex").model.build()
    container = recipe(choice).build(model_parts=[model])
    (ours,) = (optimizer for optimizer in container if isinstance(optimizer, MARSM))
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for group in ours.param_groups:
        assert group["rule"] == "muon"
        names = {re.sub(r"^layers\.\d+\.", "", n) for n in group["param_names"]}
        found[group["stacked"]] |= names
    assert found == {False: set(matrices), True: set(stacks)}
    assert "! " not in ours.describe()


def test_stand_in_makes_the_groups_and_flat_state_of_torchtitan() -> None:
    scope: dict[str, Any] = {"__name__": "recipe"}
    exec(block("torchtitan"), scope)
    flat = []
    for host in (REAL, titan):
        model = Titan(moe=True)

        class Container(host.OptimizersContainer):  # type: ignore[misc, name-defined]
            Config = host.OptimizersContainer.Config
            _resolve_optimizer_factory = staticmethod(
                scope["Optimizers"]._resolve_optimizer_factory
            )

        config = host.OptimizersContainer.Config(param_groups=scope["moe"].param_groups)
        flat.append(Container(config, model_parts=[model]).state_dict())
    assert flat[0].keys() == flat[1].keys()
    for key, value in flat[0].items():
        assert (
            torch.equal(torch.as_tensor(value), torch.as_tensor(flat[1][key]))
            if isinstance(value, torch.Tensor)
            else value == flat[1][key]
        ), key


def trained(folder: Path, steps: int, written: Path) -> list[dict[str, Any]]:
    """Two ranks train up to this step, from the last checkpoint in the folder; what each has."""
    worker = Path(__file__).with_name("titan_worker.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(worker), str(PAGE), str(folder), str(steps), str(written)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(Path(f"{written}.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.timeout(900)  # three runs of two processes
def test_trainer_on_two_ranks_resumes_bit_identically(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 4, tmp_path / "at-4")
    trained(tmp_path / "parts", 2, tmp_path / "at-2")
    resumed = trained(tmp_path / "parts", 4, tmp_path / "resumed")
    assert whole == resumed
    assert whole[0]["optimizers"] == ["AdamW", "MARSM"]
    assert sum(name.endswith(".last_grad") for name in whole[0]["digests"]) == 10
    assert json.loads((tmp_path / "at-2.0").read_text())["digests"] != whole[0]["digests"]
