"""``mars transfer``: settings for the large job, and a check of the user's model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.experiment.records import Run, read_runs
from tests.support.written_pilot import write_pilot

OF_WIDTH = """
import torch
from torch import nn


class Words:
    fingerprint, batch_tokens = "words", 64

    def __init__(self, width=16):
        self.width = width

    def build_model(self, seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, self.width), nn.Linear(self.width, self.width))
        nn.init.normal_(model[0].weight)
        return model

    def batch(self, seed, step, micro):
        return torch.randn(16, 8, generator=torch.Generator().manual_seed(100 * seed + step))

    def loss(self, model, batch):
        return (model(batch) - 1.0).square().mean()

    def evaluate(self, model, tokens):
        return self.loss(model, self.batch(0, 10**6, 0)).item()
"""


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pilot")
    text = out / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 600)
    write_pilot(out, speedup=1.2, task__corpus=json.dumps(str(text)))
    return out


@pytest.fixture(scope="module")
def of_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own")
    (out / "words.py").write_text(OF_WIDTH)
    own = dict(task__kind='"python"', task__source='"words.py:Words"', task__folder=f'"{out}"')
    write_pilot(out, speedup=1.2, **own)
    return out


def is_trial(run: Run) -> bool:
    return (run.spec.arm_name, run.spec.purpose) == ("adamw", "tune")


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["transfer", *words]) == code
    shown = capsys.readouterr()
    return shown.err if code else shown.out


def test_the_sheet_carries_every_arm(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--width", "256", "--depth", "8", "--tokens", "1e8"]
    found: dict[str, Any] = json.loads(told(capsys, str(pilot), *sizes, "--json"))
    base, target = found["base"], found["target"]
    assert (base["width"], base["depth"], target["width"], target["depth"]) == (64, 2, 256, 8)
    assert (found["logit_multiplier"], found["residual_multiplier"]) == (0.25, 0.25)
    shrunk = (1e8 / base["tokens"]) ** -0.32
    rows = {(r["arm"], r["kind"]): r for r in found["groups"]}
    matrix, vector = rows["adamw", "matrix"], rows["adamw", "vector"]
    assert matrix["lr"] == pytest.approx(vector["lr"] / 4)
    assert rows["adamw", "embedding"]["lr"] == pytest.approx(vector["lr"])
    large = json.loads(told(capsys, str(pilot), *sizes, "--large-vocabulary", "--json"))
    fallen = {(r["arm"], r["kind"]): r["lr"] for r in large["groups"]}
    assert fallen["adamw", "embedding"] == pytest.approx(vector["lr"] / 2)
    unchanged = json.loads(told(capsys, str(pilot), "--json"))
    lr = {(r["arm"], r["kind"]): r["lr"] for r in unchanged["groups"]}
    assert vector["lr"] == pytest.approx(lr["adamw", "vector"] * shrunk)
    assert {r["arm"] for r in found["groups"]} == {r["arm"] for r in unchanged["groups"]}


def test_text_names_sources_and_multipliers(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, str(pilot), "--width", "256", "--arm", "mars-adamw")
    assert "logits x 0.25, residual branches x 1" in text
    assert "2203.03466" in text
    assert "mars-adamw  matrix" in text
    assert "\nadamw " not in text


def test_a_best_rate_at_the_edge_of_those_tried_is_told(
    pilot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pilot"
    shutil.copytree(pilot, out)
    highest = max((r for r in read_runs(out / "runs") if is_trial(r)), key=lambda r: r.spec.lr)
    shutil.rmtree(highest.path)
    said = "The best learning rate of adamw in the pilot lies at the edge of those tried"
    assert said in told(capsys, str(out))
    assert json.loads(told(capsys, str(out), "--json"))["at_edge"] == ["adamw"]
    assert "edge" not in told(capsys, str(out), "--arm", "mars-adamw")
    assert "edge" not in told(capsys, str(pilot))


def test_a_vocabulary_below_the_width_is_told(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told_of = "largest embedding has 256 rows, fewer than the width of 512"
    large = [str(pilot), "--large-vocabulary", "--width"]
    assert told_of in told(capsys, *large, "512")
    assert told_of not in told(capsys, *large, "256")
    assert told_of not in told(capsys, str(pilot), "--width", "512")


def test_the_check_passes_the_built_in_model(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = [word for width in (32, 64, 128) for word in ("--widths", str(width))]
    text = told(capsys, str(pilot), "--check", "--arm", "adamw", *widths)
    assert "Coordinates of adamw: passed, 24 layers keep their size" in text


def test_the_check_names_what_breaks_a_model_of_the_users(
    of_width: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--base-width", "16", "--base-depth", "1", "--check", "--arm", "adamw"]
    text = told(capsys, str(of_width), *base)
    assert "layers break" in text
    told_json = json.loads(told(capsys, str(of_width), *base, "--json"))
    assert told_json["check"]["adamw"]["passed"] is False


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--width", "-1"], "--width -1 must be a finite number above 0"),
        (["--base-depth", "nan"], "--base-depth nan must be a finite number above 0"),
        (
            ["--base-width", "32"],
            "--base-width 32 contradicts the plan, which says 64: leave it out",
        ),
        (["--arm", "admw"], "--arm admw has no best rate in this pilot; known: "),
        (["--widths", "64"], "--widths works only with --check: add --check"),
        (["--check", "--widths", "64"], "widths 64: they must be above 0, and the widest"),
        (["--check", "--widths", "0"], "widths 0: they must be above 0"),
        (["--check", "--widths", "64", "--widths", "270"], "--widths 270 must be a multiple of"),
        (["--batch", "1e9"], "leaves no average for betas"),
        (["--tokens-exponent", "-2"], "--tokens-exponent -2 must be from -1 to 1"),
        (["--tokens-exponent", "nan"], "--tokens-exponent nan must be from -1 to 1"),
    ],
)
def test_bad_options_are_one_line(
    pilot: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    text = told(capsys, str(pilot), *words, code=2)
    assert line in text
    assert text.count("\n") == 1


def test_tokens_far_from_the_pilots_are_warned_of(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("found from 25 billion tokens on", "--tokens-exponent")
    tokens = json.loads(told(capsys, str(pilot), "--json"))["base"]["tokens"]
    for times, warned in ((0.02, True), (32, False), (33, True)):
        text = told(capsys, str(pilot), "--tokens", str(times * tokens))
        assert all((word in text) is warned for word in words)
    # what would be larger by the exponent of small runs, and that exponent given
    assert f"every lr {33**0.22:.3g} times" in text
    text = told(capsys, str(pilot), "--tokens", str(33 * tokens), "--tokens-exponent", "-0.1")
    assert "25 billion" not in text


def test_an_exponent_of_tokens_is_the_power_of_every_rate(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, *others = (
        json.loads(told(capsys, str(pilot), "--tokens", str(tokens), *words, "--json"))
        for tokens, words in (
            (1000.0, ["--tokens-exponent", "0"]),
            (1000.0, ["--tokens-exponent", "-0.5"]),
            (1000.0, []),
        )
    )
    ratio = base["target"]["tokens"] / base["base"]["tokens"]
    for sheet, exponent in zip(others, (-0.5, -0.32), strict=True):
        assert sheet["tokens_exponent"] == exponent
        for group, its in zip(base["groups"], sheet["groups"], strict=True):
            assert its["lr"] == pytest.approx(group["lr"] * ratio**exponent)


def test_a_folder_without_a_pilot_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, str(tmp_path / "nowhere"), "--width", "64", code=2)
    assert text.endswith("nowhere` makes one\n")
    assert "nowhere holds no pilot (no plan.toml)" in text


def test_a_file_in_place_of_a_pilot_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "notes.md").write_text("no pilot\n")
    text = told(capsys, str(file), "--width", "64", code=2)
    assert text.endswith("notes.md is a file: give the folder of a pilot\n")


def test_what_the_plan_does_not_say_is_asked_for(
    of_width: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, str(of_width), "--width", "64", code=2)
    assert "the plan does not say the model's width: give --base-width" in text


def test_arms_of_other_packages_are_refused_at_another_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'arms = ["adamw", "mars-adamw", "soap"]\n[task]\nbase_width = 32\n'
        '[arm.soap]\noptimizer = "torch.optim:Adamax"\nlr = 0.01\n'
    )
    assert main(["plan", "--plan", str(plan)]) == 2
    assert "no known rule carries its settings" in capsys.readouterr().err
