"""Runs that exist already become a folder that is analysed like a pilot's own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.external.discovery import compiled
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import read_runs
from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples" / "existing_runs"


def report(out: Path, *arguments: str) -> dict[str, Any]:
    """The verdict of ``mars report``."""
    assert main(["report", str(out), *arguments]) == 0
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    return verdict


def write_runs(folder: Path, arms: dict[str, float], *, steps: tuple[int, ...] = (100,)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for arm, loss in arms.items():
        for seed in (1, 2, 3):
            for n in steps:
                rows = [{"step": n, "loss": loss}, {"step": n, "valid_loss": loss + 0.01 * seed}]
                text = "".join(json.dumps(row) + "\n" for row in rows)
                (folder / f"{arm}-seed{seed}-steps{n}.jsonl").write_text(text)


def test_the_example_gives_the_verdict_that_is_in_its_formula(tmp_path: Path):
    verdict = report(tmp_path / "out", "--from", str(EXAMPLE / "runs.toml"))
    assert verdict["verdict"] == "go"
    assert verdict["tokens_saved"]["mean"] == pytest.approx(0.2, abs=0.02)  # 1 - 1 / 1.25
    assert verdict["tokens_per_run"] == 1000 * 8192
    assert "elsewhere" in (tmp_path / "out" / "report.md").read_text()


def test_what_runs_lack_for_a_forecast_can_be_told(tmp_path: Path):
    report(tmp_path, "--from", str(EXAMPLE / "runs.toml"), "--set", "target.pilot_parameters=1e8")
    assert load_plan(tmp_path / "plan.toml").target.pilot_parameters == 1e8


def test_it_becomes_records_that_say_where_they_came_from(tmp_path: Path):
    report(tmp_path, "--from", str(EXAMPLE / "runs.toml"))
    runs = read_runs(tmp_path / "runs")
    assert len(runs) == 16
    assert all(run.environment["imported"].endswith(".csv") for run in runs)
    plan = load_plan(tmp_path / "plan.toml")
    assert (plan.task.kind, plan.training.steps) == ("imported", 1000)
    assert plan.comparison.ladder == (0.5, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["{arm}-seed{seed}-steps{steps}.csv", "{arm}-seed{seed}-*.csv"])
def test_a_pattern_on_the_command_line_gives_the_same(tmp_path: Path, pattern: str):
    sets = ["columns.valid_loss=eval/loss", "columns.loss=train/loss"]
    options = [part for text in sets for part in ("--set", text)]
    by_file = report(tmp_path / "a", "--from", str(EXAMPLE / "runs.toml"))
    by_pattern = report(tmp_path / "b", "--from", str(EXAMPLE / "runs" / pattern), *options)
    assert by_pattern["tokens_saved"] == pytest.approx(by_file["tokens_saved"])


def test_so_does_a_folder_of_files_with_the_usual_names(tmp_path: Path):
    sets = ["--set", "columns.valid_loss=eval/loss", "--out", str(tmp_path / "out")]
    assert main(["report", "--from", str(EXAMPLE / "runs"), *sets]) == 0
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["verdict"] == "go"


def test_a_wandb_chart_has_a_column_for_every_run(tmp_path: Path):
    names = [f"{arm}-s{seed}-n{n}" for arm, seed, n in RUNS]
    heading = ["Step"] + [f"{n} - eval/loss{x}" for n in names for x in ("", "__MIN", "__MAX")]
    lines = []
    for step in (50, 100, 200):
        cells = [
            str(loss_of(arm, seed, n)) if n == step else ""
            for arm, seed, n in RUNS
            for _ in range(3)
        ]
        lines.append([str(step), *cells])
    text = "\n".join(",".join(f'"{cell}"' for cell in line) for line in [heading, *lines])
    (tmp_path / "chart.csv").write_text(text)
    sets = ["names={arm}-s{seed}-n{steps}", "columns.valid_loss=eval/loss"]
    options = [part for text in sets for part in ("--set", text)]
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "chart.csv"), *options)
    assert verdict["arms"]["adamw"]["final_losses"] == {
        str(s): pytest.approx(loss_of("adamw", s, 100)) for s in (1, 2)
    }
    assert verdict["tokens_saved"]["pairs"] == 2


RUNS = [("adamw", s, n) for s in (1, 2) for n in (50, 100, 200)]
RUNS += [("mars-adamw", s, 100) for s in (1, 2)]


def loss_of(arm: str, seed: int, steps: int) -> float:
    return 3.0 + 0.1 * seed + 5.0 / steps - (0.01 * seed if arm == "mars-adamw" else 0.0)


@pytest.mark.slow
def test_tensorboard_folders_are_runs(tmp_path: Path):
    module = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    from tests.experiment.external.test_metric_files import scalar

    for arm, seed, steps in RUNS:
        writer = module.EventFileWriter(str(tmp_path / "tb" / arm / f"seed{seed}" / f"n{steps}"))
        writer.add_event(scalar("eval/loss", loss_of(arm, seed, steps), steps))
        writer.close()
    verdict = report(
        tmp_path / "out",
        "--from",
        str(tmp_path / "tb" / "{arm}" / "seed{seed}" / "n{steps}"),
        "--set",
        "columns.valid_loss=eval/loss",
    )
    assert verdict["tokens_saved"]["pairs"] == 2


def test_runs_without_ladder_compare_losses_and_report_the_lack(tmp_path: Path):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    assert verdict["verdict"] == "not-enough-runs"
    assert "all equally long" in verdict["sentence"]
    assert verdict["tokens_saved"] is None
    difference = verdict["arms"]["mars-adamw"]["loss_difference"]
    assert difference["mean"] == pytest.approx(-0.1)
    assert difference["pairs"] == 3


def test_seeds_without_a_pair_are_left_out(tmp_path: Path):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    (tmp_path / "runs" / "adamw-seed3-steps100.jsonl").unlink()
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    assert list(verdict["arms"]["mars-adamw"]["final_losses"]) == ["1", "2"]
    assert verdict["pilot"]["missing"] == 0


def test_a_diverged_run_is_one(tmp_path: Path):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    path = tmp_path / "runs" / "mars-adamw-seed2-steps100.jsonl"
    path.write_text('{"step": 3, "loss": NaN}\n')
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    assert verdict["verdict"] == "no-go"
    assert verdict["arms"]["mars-adamw"]["diverged"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("gap", ["null", "NaN", '"NaN"', '""', '"n/a"'])
def test_rows_without_a_value_do_not_make_a_run_diverge(tmp_path: Path, gap: str):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    for path in (tmp_path / "runs").iterdir():
        rows = [f'{{"step": {s}, "loss": 3.0, "valid_loss": {gap}}}\n' for s in range(1, 100)]
        path.write_text("".join(rows) + path.read_text())
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    assert verdict["arms"]["adamw"]["diverged"] == 0
    assert list(verdict["arms"]["adamw"]["final_losses"].values()) == [2.51, 2.52, 2.53]


@pytest.mark.slow
def test_runs_that_all_diverged_speak_against_nobody(tmp_path: Path):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    for path in (tmp_path / "runs").iterdir():
        path.write_text('{"step": 3, "loss": NaN}\n')
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    assert verdict["verdict"] == "not-enough-runs"
    assert "adamw and mars-adamw diverged in all of their runs" in verdict["sentence"]


def test_a_diverged_run_of_unknown_length_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    (tmp_path / "runs" / "mars-adamw-seed2-steps100.jsonl").write_text('{"step": 3, "loss": NaN}\n')
    pattern = str(tmp_path / "runs" / "{arm}-seed{seed}-*.jsonl")
    error = mistake(capsys, str(tmp_path / "out"), "--from", pattern)
    assert (
        "diverged (training loss nan at step 3), and its planned number of steps is not known"
        in error
    )


def test_run_with_losses_after_its_last_evaluation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    path = tmp_path / "runs" / "adamw-seed1-steps100.jsonl"
    path.write_text(path.read_text() + '{"step": 150, "loss": null}\n')
    pattern = str(tmp_path / "runs" / "{arm}-seed{seed}-*.jsonl")
    error = mistake(capsys, str(tmp_path / "out"), "--from", pattern)
    assert "its last validation loss is of step 100, not 150" in error


@pytest.mark.slow_but_one
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_rows_newest_first_are_read_by_their_steps(tmp_path: Path, ending: str):
    mark = {"csv": ",", "tsv": "\t"}[ending]
    for arm in ("adamw", "mars-adamw"):
        for seed in (1, 2):
            rows = [f"{t}{mark}{3 - t / 100 + seed / 7}" for t in (100, 75, 50, 25)]
            lines = "\n".join([f"step{mark}valid_loss", *rows])
            (tmp_path / f"{arm}-seed{seed}.{ending}").write_text(lines + "\n")
    report(tmp_path / "out", "--from", str(tmp_path / ("{arm}-seed{seed}." + ending)))
    outcomes = [run.outcome for run in read_runs(tmp_path / "out" / "runs")]
    assert {o.steps for o in outcomes if o} == {100}
    assert {round(o.final_loss or 0, 6) for o in outcomes if o} == {2.142857, 2.285714}


def test_a_row_is_named_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    path = tmp_path / "runs" / "adamw-seed1-steps100.jsonl"
    path.write_text('{"step": null, "gpu": 1}\n{"step": null, "loss": 2}\n' + path.read_text())
    error = mistake(capsys, str(tmp_path / "out"), "--from", str(tmp_path / "runs"))
    assert "adamw-seed1-steps100.jsonl, line 2: a row has a loss but no 'step'" in error


CHARTS: dict[str, tuple[str, str]] = {
    "equal headings": (
        "Step,adamw-s1 - loss,mars-adamw-s1 - loss,mars-adamw-s1 - loss\n10,2.0,1.9,1.8\n",
        "has 2 columns headed 'mars-adamw-s1 - loss'",
    ),
    "one run under two names": (
        "Step,adamw-s1 - loss,mars-adamw-s1 - loss,mars-adamw-s01 - loss\n10,2.0,1.9,1.8\n",
        "are both mars-adamw, seed 1",
    ),
    "NaN after the last value": (
        "Step,adamw-s1 - loss,mars-adamw-s1 - loss\n10,2.0,1.9\n20,1.8,nan\n",
        "validation loss nan at step 20 may mean a divergence or, as elsewhere in this log, a",
    ),
    "NaN beside empty cells": (
        "Step,adamw-s1 - loss,mars-adamw-s1 - loss\n10,,1.9\n20,1.8,nan\n",
        "diverged (validation loss nan at step 20), and its planned number of steps is not known",
    ),
    "time for steps": (
        "Time,adamw-s1 - loss,mars-adamw-s1 - loss\n10.5,2.0,1.9\n",
        "a step must be a whole number",
    ),
    "no step": ("Step,adamw-s1 - loss,mars-adamw-s1 - loss\n,2.0,1.9\n", "line 2: a row has a"),
}


@pytest.mark.parametrize("case", CHARTS)
def test_a_chart_that_can_be_read_two_ways_is_refused(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
):
    text, words = CHARTS[case]
    (tmp_path / "chart.csv").write_text(text)
    sets = ["--set", "names={arm}-s{seed}", "--set", "columns.valid_loss=loss"]
    source = ["--from", str(tmp_path / "chart.csv"), *sets, "--set", "columns.loss="]
    assert words in mistake(capsys, str(tmp_path / "out"), *source)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mars: error: ")
    assert len(error.splitlines()) == 1
    return error


CASES: list[tuple[list[str], list[str]]] = [
    (
        ["RUNS/adamw-seed1-steps100.jsonl"],
        ["does not tell the runs apart", "mars init"],
    ),
    (["RUNS/{arm}-{sead}.jsonl"], ["unknown part {sead}", "did you mean 'seed'"]),
    (["RUNS/{arm}-{seed}.csv"], ["fits no file"]),
    (["absent.toml"], ["absent.toml does not exist", "mars init runs"]),
    (
        ["RUNS", "--set", "candidate=mars-adam"],
        ["no run is of candidate = 'mars-adam'", "did you mean"],
    ),
    (["RUNS", "--set", "columns.valid_loss=eval"], ["no row has 'eval'", "loss, step, valid_loss"]),
    (["RUNS", "--set", "columns.step=epoch"], ["has a loss but no 'epoch'"]),
    (["RUNS", "--set", "colums.step=epoch"], ["unknown key 'colums'", "did you mean 'columns'"]),
    (["RUNS/{arm}-seed{seed}-steps*.jsonl", "RUNS"], ["are both adamw, seed 1"]),
]


@pytest.mark.parametrize(("arguments", "parts"), CASES, ids=[p[0] for _, p in CASES])
def test_a_mistake_gives_one_line_and_writes_nothing(
    tmp_path: Path, arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    filled = [a.replace("RUNS", str(tmp_path / "runs")) for a in arguments]
    error = mistake(capsys, str(tmp_path / "out"), "--from", *filled)
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_runs(tmp_path / "runs", {"adamw": 2.5, "mars-adamw": 2.4})
    path = tmp_path / "runs" / "adamw-seed1-steps100.jsonl"
    path.write_text('{"step": 60, "valid_loss": 2.0}\n')
    error = mistake(capsys, str(tmp_path / "out"), "--from", str(tmp_path / "runs"))
    assert "its last validation loss is of step 60, not 100" in error


@pytest.mark.slow
def test_report_leaves_trained_or_foreign_folders_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = str(EXAMPLE / "runs.toml")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "holds other files" in mistake(capsys, str(tmp_path / "mine"), "--from", source)
    assert main(["init", "plan", str(tmp_path / "pilot")]) == 0
    capsys.readouterr()
    assert "that was trained" in mistake(capsys, str(tmp_path / "pilot"), "--from", source)
    report(tmp_path / "again", "--from", source)
    shutil.rmtree(tmp_path / "again" / "figures")
    assert report(tmp_path / "again", "--from", source)["verdict"] == "go"


def test_a_pattern_fits_whole_names_and_the_same_part_twice():
    assert compiled("{arm}/{arm}-{seed}.csv").fullmatch("a-b/a-b-3.csv")
    assert not compiled("{arm}/{arm}-{seed}.csv").fullmatch("a/b-3.csv")
    match = compiled("x/**/{arm}_lr{lr}_{seed}*").fullmatch("x/y/z/mars-m_lr1e-3_7.csv")
    assert match is not None
    assert match.groupdict() == {"arm": "mars-m", "lr": "1e-3", "seed": "7"}
    with pytest.raises(UserError, match=re.escape("needs {seed}")):
        compiled("{arm}.csv")
