"""``mars train``: every recipe runs; a run is told beforehand, and not repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import read_runs
from tests.support.shrunken_recipes import QUICK, RECIPES, SMALL, TINY, little_data, shrunken

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
ARMS = [
    (name, arm)
    for name in (SMALL, "resnet18-cifar10")
    for arm in load_plan(RECIPES / f"{name}.toml").arms
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return little_data(tmp_path_factory.mktemp("data"))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_when_it_is_shrunken(
    name: str, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*shrunken(data, name), "--out", str(tmp_path)]) == 0
    (run,) = read_runs(tmp_path / "runs")
    assert run.spec.arm_name == "mars-adamw"
    assert run.outcome is not None
    assert run.outcome.steps == 10
    assert (run.path / "weights.pt").exists()
    printed = capsys.readouterr().out
    assert "published:" in printed
    assert "differs from it" in printed or "not published" in printed


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_every_published_arm_trains_as_the_authors_script_does(
    name: str, arm: str, data: dict[str, Path], tmp_path: Path
):
    more = {"training.convention": "reference_code", "training.evaluations": 1}
    assert main([*shrunken(data, name, **more), "--arm", arm, "--out", str(tmp_path)]) == 0
    (run,) = read_runs(tmp_path / "runs")
    assert run.final_loss is not None
    assert run.spec.training.convention == "reference_code"


def test_plan_is_told_before_training_and_published_loss_after(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*shrunken(data, SMALL), "--arm", "muon", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split(":")[0].strip(): line for line in lines}
    parameters = 256 * 8 + 8 * 8 + 12 * 64 + 3 * 8
    assert f"model: {parameters:,} parameters" in told["model"]
    assert "320 tokens in 10 steps of 32" in told["data"]
    for part in (
        "768 in 4 matrices: MARS shampoo folded gamma 0.05, lr 0.02, betas 0.95 0.99, decay 0",
        "2.11 k in 2 embeddings: adamw, lr 0.003",
        "24 in 3 vectors: adamw, lr 0.003, betas 0.9 0.95, decay 0",
    ):
        assert part in told["optimizer"]
    assert "loss 2.901 (README of the authors' code" in told["published"]
    assert "training.steps = 10 (recipe: 100000)" in told["differs from the recipe"]
    result = next(line for line in lines if line.startswith("loss "))
    assert "published: loss 2.901, for the unchanged recipe" in result
    assert lines.index(told["records"]) < lines.index(result)


@pytest.mark.slow
def test_run_true_to_recipe_prints_difference_to_published_loss(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "tiny.toml"
    training = "\n".join(f"{k} = {json.dumps(v)}" for k, v in QUICK.items())
    task = "\n".join(f"{k} = {v}" for k, v in TINY["images"].items())
    recipe.write_text(
        f'[recipe]\ntitle = "tiny"\n[task]\nkind = "images"\ncorpus = "elsewhere"\n{task}\n'
        f"[training]\n{training}\n[published.mars-adamw]\nloss = 1.0\naccuracy = 50.0\n"
        'source = "nowhere"\n'
    )
    command = ["train", str(recipe), "--set", f"task.corpus={data['images']}"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    (run,) = read_runs(tmp_path / "out" / "runs")
    accuracy = 100 * next(r["accuracy"] for r in run.rows[::-1] if "accuracy" in r)
    printed = capsys.readouterr().out
    assert run.final_loss is not None
    assert f"published: loss 1 (ours {run.final_loss - 1:+.4f})" in printed
    assert f"accuracy 50 % (ours {accuracy - 50:+.2f})" in printed
    assert "departs" not in printed


def test_finished_run_is_not_repeated_and_gives_a_time_estimate(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = [*shrunken(data, SMALL), "--out", str(tmp_path)]
    assert main(command) == 0
    assert "by an earlier run" not in capsys.readouterr().out
    (run,) = read_runs(tmp_path / "runs")
    stamp = (run.path / "rows.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "finished and is not repeated" in printed
    assert f"loss {run.final_loss:.4f}" in printed
    assert (run.path / "rows.jsonl").stat().st_mtime_ns == stamp
    assert main([*command, "--seed", "2"]) == 0
    assert "by an earlier run" in capsys.readouterr().out
    assert len(read_runs(tmp_path / "runs")) == 2


@pytest.mark.slow
def test_changed_code_of_a_class_says_why_the_run_is_new(data: dict[str, Path], tmp_path: Path):
    code = tmp_path / "mine.py"
    code.write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    arm = [
        *("--set", 'arms=["adamw", "mine"]', "--set", "comparison.candidate=mine"),
        *("--set", "arm.mine.optimizer=mine.py:Mine", "--set", "arm.mine.lr=0.1"),
        *("--set", f"arm.mine.folder={tmp_path}", "--out", str(tmp_path / "out")),
    ]
    command = [sys.executable, "-m", "mars_optim", *shrunken(data, SMALL), *arm]

    def printed() -> str:
        """By a process of its own: modules are loaded once."""
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert "has changed" not in printed()
    (old,) = read_runs(tmp_path / "out" / "runs")
    with code.open("a") as file:
        file.write("# changed\n")
    (line,) = (x for x in printed().splitlines() if "has changed" in x)
    assert line.startswith("arm.mine: the code of mine.py:Mine has changed: mine, sha256 ")
    assert f"{old.path.name} is finished with the old code put back into {code}" in line
    assert len(read_runs(tmp_path / "out" / "runs")) == 2


def test_the_plan_beside_the_run_makes_it_again(data: dict[str, Path], tmp_path: Path):
    assert main([*shrunken(data, SMALL), "--lr", "0.01", "--out", str(tmp_path / "a")]) == 0
    (first,) = read_runs(tmp_path / "a" / "runs")
    again = ["train", str(first.path / "plan.toml"), "--lr", "0.01", "--out", str(tmp_path / "b")]
    assert main(again) == 0
    (second,) = read_runs(tmp_path / "b" / "runs")
    assert second.spec == first.spec
    assert second.final_loss == first.final_loss


def test_a_run_that_diverges_says_so_and_ends_with_status_1(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = [*shrunken(data, SMALL, **{"training.steps": 200}), "--lr", "1e4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path)])
    assert ended.value.code == 1
    assert "diverged: training loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arm", "mars-adam"], "--arm mars-adam is not an arm of this plan; did you mean"),
        (["--lr", "0"], "--lr 0 must be above 0"),
        (["--lr", "1e-5"], "--lr 1e-05 must be above training.min_lr = 3e-05"),
        (["--seed", "-1"], "--seed -1 must be at least 0"),
        (["--keep", "-1"], "execution.keep = -1 must be at least 0"),
        (["--set", "task.corpus=nowhere"], "`mars prepare --out nowhere` writes such a folder"),
        (["--set", "recipe.title=x", "--set", "training.step=1"], "did you mean 'training.steps'"),
        (["--checkpoint-minutes", "-1"], "running.checkpoint_minutes = -1.0 must be at least 0"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_made(
    more: list[str],
    message: str,
    data: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert main([*shrunken(data, SMALL), "--out", str(tmp_path / "out"), *more]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("mars: error: ")
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_another_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "next.toml"
    recipe.write_text('[recipe]\nversion = 2\nform = "new"\n')
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "recipe.version = 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_commands_are_left_to_the_pilot(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[task]\nkind = "command"\n'
        'command = "echo {optimizer} {lr} {seed} {steps} {run_dir}"\n'
        "[arm.adamw]\nlr = 1e-3\n[arm.nadamw]\nlr = 1e-3\n[arm.mars-adamw]\nlr = 1e-3\n"
    )
    assert main(["train", str(plan), "--out", str(tmp_path / "out")]) == 2
    assert "`mars pilot` runs commands" in capsys.readouterr().err
