"""The study of a second average: rates by a parabola, pairs by seeds, no run made twice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import filter_study as study
from benchmarks.filter_family import TwoAverages
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.training import build_optimizer

BEST = {"two": 0.012, "nadamw-auto": 0.009}
GAP = 0.03


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Runs that only look up their loss: a valley in the log rate, seeds of their own level."""
    made: list[dict[str, Any]] = []

    def train(plan: Plan, task: Any, name: str, *, lr: float, seed: int) -> dict[str, Any]:
        made.append(dict(name=name, lr=lr, seed=seed))
        loss = 2 + 0.1 * math.log(lr / BEST[name]) ** 2 + 0.2 * seed + GAP * (name == "two")
        return dict(loss=loss + 0.001 * seed * (name == "two"), weights=[[0.1, 0.2]] * 4)

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "load_task", lambda plan: None)
    monkeypatch.setattr(study, "ROWS", tmp_path)
    return made


def test_the_rate_is_the_lowest_point_of_the_valley():
    losses = {lr: math.log(lr / 0.0113) ** 2 for lr in (0.002, 0.004, 0.008, 0.016, 0.032)}
    rate, inside = study.best_rate(losses)
    assert rate == pytest.approx(0.0113, rel=1e-9)
    assert inside


def test_a_rate_at_the_edge_of_the_grid_is_said():
    assert study.best_rate({0.1: 1.0, 0.2: 2.0, 0.4: math.nan}) == (0.1, False)


def test_all_arms_get_the_same_trials_and_seeds(runs: list[dict[str, Any]]):
    study.compare("gpt", BEST)
    for arm, best in BEST.items():
        mine = [run for run in runs if run["name"] == arm]
        assert [r["seed"] for r in mine] == [study.TUNING] * 5 + list(study.SEEDS)
        assert [r["lr"] for r in mine[5:]] == [pytest.approx(best, rel=1e-3)] * 4
    rates = [[r["lr"] for r in runs if (r["name"], r["seed"]) == (arm, 9)] for arm in BEST]
    assert rates[0] == rates[1]


def test_the_command_goes_on_where_it_stopped(runs: list[dict[str, Any]]):
    study.compare("gpt", ["two"])
    (study.ROWS / "gpt.jsonl").write_text(
        "".join((study.ROWS / "gpt.jsonl").read_text().splitlines(keepends=True)[:7])
    )
    runs.clear()
    study.compare("gpt", ["two"])
    assert [run["seed"] for run in runs] == [3, 4]


def test_the_report_has_the_interval_of_the_paired_gaps(runs: list[dict[str, Any]]):
    study.compare("gpt", BEST)
    # gaps 0.031 to 0.034: mean 0.0325, half width t(3) sd / 2
    half = 3.1824 * torch.tensor([0.031, 0.032, 0.033, 0.034]).std().item() / 2
    line = f"| +0.0325 ({0.0325 - half:+.4f} to {0.0325 + half:+.4f}) | 4 |"
    (found,) = (row for row in study.report("gpt").splitlines() if "two less nadamw-auto" in row)
    assert found.endswith(line)


@pytest.mark.parametrize("name", study.CONTENDERS)
def test_every_contender_has_the_arms_groups(name: str):
    model = GPT(vocabulary=20, context=8, layers=1, width=16, heads=2)
    arm, ours = study.CONTENDERS[name]
    theirs = build_optimizer(model, arm, lr=0.01)
    optimizer = study.optimizer_of(name, model, 0.01)
    assert isinstance(optimizer, TwoAverages) == (ours is not None)
    for key in ("lr", "betas", "weight_decay"):
        wanted = {id(p): g[key] for g in theirs.param_groups for p in g["params"]}
        assert {id(p): g[key] for g in optimizer.param_groups for p in g["params"]} == wanted
