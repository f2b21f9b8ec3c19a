"""AdamW continued against MARS continued, from a checkpoint that was really trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.canary import CanarySettings, canary, read_checkpoint
from mars_optim.experiment.canary.production_checkpoint import in_saved_order
from mars_optim.experiment.canary.result import Continued, judge
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.records.lock import pilot_lock
from mars_optim.guard import Alarm
from mars_optim.optim import param_groups
from tests.support.continued_lines import QUICK, Lines, read, saved_run


def test_both_arms_go_on_from_the_same_state_on_the_same_data(tmp_path: Path) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt"))
    result = canary(Lines(), checkpoint, tmp_path, CanarySettings(**QUICK))
    runs = {(r.spec.arm_name, r.spec.seed): r for r in read_runs(tmp_path / "runs")}
    assert len(runs) == 9
    for seed in QUICK["seeds"]:
        adamw, mars = runs["adamw-continued", seed], runs["mars-continued", seed]
        assert len(adamw.rows) == len(mars.rows) == 40
        assert adamw.rows[0]["loss"] == mars.rows[0]["loss"]  # before either has stepped
        assert adamw.rows[5]["loss"] != mars.rows[5]["loss"]
        assert [row["lr"] for row in adamw.rows] == [row["lr"] for row in mars.rows]
        assert adamw.outcome
        assert mars.outcome
        assert mars.outcome.state_bytes > adamw.outcome.state_bytes  # the last gradient
    differences = [s.mars_loss - s.adamw_loss for s in result.seeds]
    assert result.difference == t_interval(differences, 0.95)
    assert all(s.mars_spike is None for s in result.seeds)
    assert "No spike at the switch" in result.reasons[0]

    data = json.loads((tmp_path / "canary.json").read_text())
    assert data["recommendation"] == result.recommendation
    assert data["difference"]["mean"] == pytest.approx(result.difference.mean)
    assert [s["seed"] for s in data["seeds"]] == [1, 2, 3]


def test_with_gamma_zero_and_no_clip_the_arms_are_one(tmp_path: Path) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt"))
    settings = CanarySettings(**QUICK, gamma=0.0, clip=0.0)
    result = canary(Lines(), checkpoint, tmp_path, settings)
    for s in result.seeds:
        assert s.mars_loss == pytest.approx(s.adamw_loss, abs=1e-6)


@pytest.mark.slow
def test_resumed_canary_keeps_finished_runs_and_equal_losses(
    tmp_path: Path,
) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt"))
    settings = CanarySettings(**QUICK)
    whole = canary(Lines(), checkpoint, tmp_path / "whole", settings)
    canary(Lines(), checkpoint, tmp_path / "part", settings)
    victim = next((tmp_path / "part" / "runs").glob("mars-continued*seed2*"))
    kept = next((tmp_path / "part" / "runs").glob("adamw-continued*seed2*")) / "manifest.json"
    (victim / "manifest.json").unlink()
    before = kept.stat().st_mtime_ns
    again = canary(Lines(), checkpoint, tmp_path / "part", settings)
    assert kept.stat().st_mtime_ns == before
    assert [(s.adamw_loss, s.mars_loss) for s in again.seeds] == [
        (s.adamw_loss, s.mars_loss) for s in whole.seeds
    ]


@pytest.mark.parametrize("named", [False, True])
def test_a_harmful_switch_is_a_spike_and_sends_back(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch without moments at ten times the learning rate does the harm that the canary
    looks for."""
    import mars_optim.experiment.canary.continued as module
    from mars_optim import MARSAdamW

    def careless(adamw: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        params = [p for group in adamw.param_groups for p in group["params"]]
        return MARSAdamW(params, lr=1.0)

    monkeypatch.setattr(module, "migrate", careless)
    checkpoint = read(saved_run(tmp_path / "c.pt", named=named))
    result = canary(Lines(), checkpoint, tmp_path, CanarySettings(**QUICK))
    assert result.recommendation == "back"
    assert all(s.mars_spike and not s.adamw_spike for s in result.seeds)
    assert "Data order 1: loss at step" in result.reasons[0]


def seed(number: int, difference: float | None, spike: bool = False, both: bool = False) -> Any:
    alarm = Alarm(signal="loss", step=9, since=5, value=3.0, limit=2.5)
    return Continued(
        seed=number,
        adamw_loss=2.0,
        mars_loss=None if difference is None else 2.0 + difference,
        adamw_spike=alarm if both else None,
        mars_spike=alarm if spike or both else None,
        step_time=1.1,
    )


@pytest.mark.parametrize(
    ("seeds", "margin", "edges", "expected"),
    [
        ([seed(i, -0.02 - 0.001 * i) for i in range(4)], 0.0, [], "production"),
        ([seed(i, 0.02 + 0.001 * i) for i in range(4)], 0.0, [], "back"),
        ([seed(i, 0.02 + 0.001 * i) for i in range(4)], 0.05, [], "production"),
        ([seed(i, (-1) ** i * 0.02) for i in range(4)], 0.0, [], "not-enough-runs"),
        ([seed(i, -0.02 - 0.001 * i, spike=i == 2) for i in range(4)], 0.0, [], "back"),
        ([seed(i, -0.02 - 0.001 * i, both=i == 2) for i in range(4)], 0.0, [], "production"),
        ([seed(1, -0.02), seed(2, None)], 0.0, [], "not-enough-runs"),
        ([seed(1, None, spike=True), seed(2, None, spike=True)], 0.0, [], "back"),
        ([seed(i, 0.02 + 0.001 * i) for i in range(4)], 0.0, ["mars"], "not-enough-runs"),
        ([seed(i, -0.02 - 0.001 * i) for i in range(4)], 0.0, ["adamw"], "not-enough-runs"),
        ([seed(i, -0.02 - 0.001 * i) for i in range(4)], 0.0, ["mars"], "production"),
    ],
)
def test_the_recommendation_follows_the_rule(
    seeds: list[Any], margin: float, edges: list[str], expected: str
) -> None:
    result = judge(seeds, CanarySettings(margin=margin), {}, [], edges)
    assert result.recommendation == expected


@pytest.mark.parametrize("order", ["plain", "split", "trainer", "sorted", "named"])
def test_the_saved_order_of_the_parameters_is_found(order: str) -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    groups: dict[str, Any] = {
        "plain": list(net.parameters()),
        "split": [
            {"params": [p for p in net.parameters() if p.ndim >= 2]},
            {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        "trainer": [
            {"params": [p for n, p in net.named_parameters() if "bias" not in n and n[0] != "2"]},
            {"params": [p for n, p in net.named_parameters() if "bias" in n or n[0] == "2"]},
        ],
        "sorted": [{"params": [p for _, p in g["params"]]} for g in param_groups(net)],
        "named": list(net.named_parameters())[::-1],
    }
    adamw = torch.optim.AdamW(groups[order])
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    adamw.step()
    held = [p for group in adamw.param_groups for p in group["params"]]
    found = in_saved_order(adamw.state_dict(), net)
    assert all(p is q for (_, p), q in zip(found, held, strict=True))
    names = {id(p): name for name, p in net.named_parameters()}
    assert [name for name, _ in found] == [names[id(p)] for p in held]


def test_ambiguous_parameter_order_is_refused_not_guessed() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Parameter(torch.ones(2, 2))
            self.a = nn.Parameter(torch.ones(2, 2))

    net = Twins()
    adamw = torch.optim.AdamW([{"params": [net.norm]}, {"params": [net.a]}])
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    adamw.step()
    with pytest.raises(UserError, match=r"of \[1, 1\] is not known, several usual ones fit"):
        in_saved_order(adamw.state_dict(), net)


def test_a_key_enters_lists_as_lightning_has_them(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    adamw = torch.optim.AdamW(net.parameters())
    net.weight.grad = torch.ones_like(net.weight)
    adamw.step()
    data = {"state_dict": net.state_dict(), "optimizer_states": [adamw.state_dict()]}
    torch.save(data, tmp_path / "last.ckpt")
    found = read_checkpoint(
        tmp_path / "last.ckpt", model_key="state_dict", optimizer_key="optimizer_states.0"
    )
    assert found.adamw["state"].keys() == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("state"), "'state.adamw' is not in .*its keys are: model"),
        (
            lambda data: data["state"].update(adamw={"a": 1}),
            "is not the state dict of an optimizer",
        ),
        (lambda data: data["state"]["adamw"].update(state={}), "has taken no step"),
        (lambda data: data["model"].pop("0.weight"), "checkpoint's model is not the task's"),
        (lambda data: data["state"]["adamw"]["state"][0].pop("exp_avg"), "has no exp_avg"),
        (
            lambda data: data["state"]["adamw"]["param_groups"][0].update(params=[0, 1]),
            "is not known",
        ),
    ],
)
def test_a_checkpoint_that_cannot_serve_is_refused_in_one_line(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = saved_run(tmp_path / "c.pt", steps=2)
    data = torch.load(path)
    change(data)
    torch.save(data, path)
    with pytest.raises(UserError, match=message):
        canary(Lines(), read(path), tmp_path, CanarySettings(**QUICK))


def test_two_canaries_in_one_folder_are_refused(tmp_path: Path) -> None:
    checkpoint = read(saved_run(tmp_path / "c.pt", steps=2))
    with pilot_lock(tmp_path), pytest.raises(UserError, match="is running in"):
        canary(Lines(), checkpoint, tmp_path, CanarySettings(**QUICK))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none.pt")
    (tmp_path / "c.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        read(tmp_path / "c.pt")


def test_an_unhealthy_history_is_no_ground_to_judge_on(tmp_path: Path) -> None:
    class Broken(Lines):
        def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            return super().loss(model, batch) * math.inf

    checkpoint = read(saved_run(tmp_path / "c.pt", steps=3))
    with pytest.raises(UserError, match="loss of AdamW itself is not finite"):
        canary(Broken(), checkpoint, tmp_path, CanarySettings(**QUICK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(history=50), "history = 50 must be at least 100"),
        (dict(seeds=(1,)), "two or more different"),
        (dict(seeds=(1, 1)), "two or more different"),
        (dict(lr_scales=()), "lr_scales is empty"),
        (dict(lr_scales=(1.0, 2.0, 4.0), seeds=(0, 1)), "tuning_seed = 0 is among seeds"),
    ],
)
def test_settings_that_make_no_canary_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CanarySettings(**options)
