"""The benchmarks run from a checkout, on tensors too small to say anything about speed."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import checkpoint_size, training_step
from benchmarks.training_step import median_interval

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def made(module: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    path = folder / f"{module}.json"
    done = run(module, "--tensors", "tiny", "--threads", "1", "--json", str(path), *arguments)
    return json.loads(path.read_text()), done.stdout


@pytest.mark.slow
def test_step_times_stand_in_json_table_and_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    only = [x for piece in ("AdamW, fused", "MARSAdamW", "heavyball") for x in ("--only", piece)]
    arguments = ["--rounds", "2", "--slow", *only, "--plot", str(plot)]
    result, out = made("step_time", tmp_path, *arguments)
    rows = {row["name"]: row for row in result["rows"]}
    assert {"torch AdamW, fused", "MARSAdamW", "MARSAdamW, folded"} <= rows.keys()
    for name, row in rows.items():
        assert row["gradients_kept"], name
        assert row["ratio"]["q1"] <= row["ratio"]["median"] <= row["ratio"]["q3"]
        assert len(row["rounds"]) == 2
        (line,) = (line for line in out.splitlines() if line.startswith(f"{name}  "))
        assert f"{row['ratio']['median']:.2f}" in line
    assert rows["MARSAdamW, folded"]["state_bytes"] == rows["torch AdamW, fused"]["state_bytes"]
    assert plot.read_text().startswith("<svg")


@pytest.mark.slow
def test_peer_that_is_not_installed_or_writes_gradients_is_said(tmp_path: Path) -> None:
    checkout = tmp_path / "MARS" / "optimizers"
    checkout.mkdir(parents=True)
    (checkout / "mars.py").write_text(
        "import torch\n"
        "class MARS(torch.optim.SGD):\n"
        "    def __init__(self, params, lr, weight_decay):\n"
        "        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=0.9)\n"
        "    def step(self):\n"
        "        super().step()\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                p.grad.mul_(0.5)\n"
    )
    only = [x for piece in ("authors", "timm") for x in ("--only", piece)]
    arguments = ["--rounds", "2", *only, "--official", str(tmp_path)]
    result, out = made("step_time", tmp_path, *arguments)
    assert [row["gradients_kept"] for row in result["rows"] if "authors" in row["name"]] == [False]
    assert "changed" in out
    seen = {row["name"] for row in (*result["rows"], *result["skipped"])}
    assert seen == {"MARS of its authors", "MARS of timm"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's clear_refs")
def test_memory_is_measured_and_state_is_what_was_counted(tmp_path: Path) -> None:
    result, out = made("memory", tmp_path, "--only", "MARSAdamW, folded")
    for row in result["states"]:
        assert row["measured"] == row["counted"], row
    assert [row["name"] for row in result["steps"]] == ["MARSAdamW, folded"]
    assert all(row["rise"] >= 0 for row in (*result["steps"], *result["releases"]))
    assert len(result["releases"]) == 2
    assert "gradients released" in out


@pytest.mark.slow
def test_newton_schulz_is_a_ratio_to_the_models_step(tmp_path: Path) -> None:
    arguments = ["--batch", "1", "--length", "8", "--rounds", "1"]
    result, out = made("newton_schulz", tmp_path, *arguments)
    assert result["matrices"] == 4
    assert result["tokens"] == 8
    errors = {row["name"]: row["error"] for row in result["rows"]}
    for name, error in errors.items():
        assert error < (1e-4 if "float32" in name else 0.3), name
        assert name in out


@pytest.mark.slow
def test_page_gets_tables_and_figure_from_the_json_files(tmp_path: Path) -> None:
    from benchmarks.page import SECTIONS

    made("step_time", tmp_path, "--rounds", "2", "--only", "MARSAdamW, folded")
    (tmp_path / "step_time.json").rename(tmp_path / "step_time-gpt2.json")
    page = tmp_path / "page.md"
    start, end = "<!-- step_time-gpt2 -->", "<!-- end of step_time-gpt2 -->"
    page.write_text(f"before\n{start}\nstale\n{end}\nafter\n")
    for _ in range(2):  # again over its own text
        run("page", "--page", str(page), "--folder", str(tmp_path))
        text = page.read_text()
        assert text.startswith(f"before\n{start}\n")
        assert text.endswith(f"{end}\nafter\n")
        assert text.count("| MARSAdamW, folded |") == 1
        assert "stale" not in text
    assert (tmp_path / "step_time.svg").read_text().startswith("<svg")
    docs = (ROOT / "docs" / "benchmarks.md").read_text()
    assert all(
        f"<!-- {name} -->" in docs and f"<!-- end of {name} -->" in docs for name in SECTIONS
    )


def test_the_page_says_what_its_json_files_say() -> None:
    from benchmarks.page import FOLDER, PAGE, SECTIONS, filled

    results = {n: json.loads((ROOT / FOLDER / f"{n}.json").read_text()) for n in SECTIONS}
    text = (ROOT / PAGE).read_text()
    assert filled(text, results) == text


@pytest.mark.parametrize("text", ["", "<!-- a -->\n", "<!-- end of a -->"])
def test_a_page_without_both_markers_is_refused(text: str) -> None:
    from benchmarks.output import UserError, between_markers

    with pytest.raises(UserError, match="no markers <!-- a -->"):
        between_markers(text, {"a": "part"})


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("step_time", ["--only", "nobody"], "'nobody' is in none of"),
        ("step_time", ["--rounds", "1"], "--rounds 1 must be at least 2"),
        ("step_time", ["--official", "nowhere"], "no such folder"),
        ("memory", ["--json", "nowhere/x.json"], "there is no folder"),
        ("newton_schulz", ["--length", "2000"], "the model's context, 1024"),
    ],
)
def test_mistake_is_one_line_that_says_what_is_wrong(
    module: str, arguments: list[str], words: str
) -> None:
    done = run(module, *arguments, expect=2)
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_models_tensors_are_those_that_are_stepped() -> None:
    import torch

    from benchmarks.model import GPT2
    from benchmarks.shapes import count, gpt2

    shapes = gpt2()
    assert len(shapes) == 148
    assert count(shapes) == 124_475_904
    with torch.device("meta"):
        model = GPT2()
    found = {
        n.removesuffix(".weight") if n[0] == "w" else n: tuple(p.shape)
        for n, p in model.named_parameters()
    }
    assert found == shapes


def test_median_interval_covers_the_median_95_times_of_100() -> None:
    draw, covered = random.Random(1), 0
    for _ in range(2000):
        low, high = interval(*[draw.expovariate(1.0) for _ in range(25)])
        covered += low <= math.log(2.0) <= high
    assert 0.94 <= covered / 2000 <= 0.98
    assert interval(3.0, 1.0, 2.0, 6.0, 5.0, 4.0) == (1.0, 6.0)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def interval(*values: float) -> tuple[float, float]:
    found = median_interval(values)
    assert found is not None
    return found


def test_optimizer_only_leaves_forward_and_backward_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = {4: training_step.Seconds(10.0, 3.0), 0: training_step.Seconds(20.0, 2.0)}
    monkeypatch.setattr(
        training_step, "runner", lambda *_, telemetry, **__: lambda: turns[telemetry]
    )
    for only, ratio in ((False, 10 / 20), (True, (20 + 3 - 2) / 20)):
        row = training_step.compare(
            *(None, None, "telemetry, MARS-AdamW"),  # type: ignore[arg-type]
            rounds=3, turn=1, clock=float, optimizer_only=only,
        )  # fmt: skip
        assert row["ratio"]["median"] == pytest.approx(ratio)
        assert row["seconds_without"] == 20.0


@pytest.mark.slow
def test_options_are_timed_in_whole_training_steps(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    arguments = ["--rounds", "2", "--layers", "1", "--threads", "1", "--json", str(path)]
    arguments += ["--turn", "3", "--batch", "2"]
    done = run("training_step", *arguments, "--only", "telemetry, MARS-A", "--only", "folded")
    assert "batches of 128 bytes, 2 rounds of 3 steps" in done.stdout
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == ["telemetry, MARS-AdamW", 'gamma="auto", folded']
    for row in rows:
        assert row["ratio"]["q1"] <= row["ratio"]["median"] <= row["ratio"]["q3"]
        assert f"{row['ratio']['median']:.3f}" in done.stdout
    for name, least in (("rounds", 2), ("turn", 1)):
        flag, value = f"--{name}", str(least - 1)
        refused = run("training_step", flag, value, expect=2)
        assert f"{flag} {value} must be at least {least}" in refused.stderr


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_size_of_a_checkpoint_is_told_nested_and_flattened() -> None:
    few, more = (list(map(float, checkpoint_size.row(n)[1:])) for n in (2, 8))
    assert all(size > 0 for size in few)
    # adamw grows with the number of matrices, flattened auto faster
    assert more[1] < 5 * few[1]
    assert more[3] > 8 * few[3]
