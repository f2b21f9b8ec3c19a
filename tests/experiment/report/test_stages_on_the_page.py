"""Canary and guard are read back into the report: on the page, in the terminal, in verdict.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mars_optim.cli import main
from mars_optim.experiment.tasks import GPT
from tests.support.rollout_files import BETTER, write_canary, write_guard_log
from tests.support.written_pilot import write_pilot

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    write_pilot(tmp_path / "pilot", speedup=1.3)
    return tmp_path / "pilot"


def verdict(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "verdict.json").read_text()))


def test_files_beside_the_pilot_tick_its_stages(pilot: Path, capsys: Capture) -> None:
    write_canary(pilot / "canary" / "canary.json")
    write_guard_log(pilot / "guard.jsonl", back=True)
    assert main(["report", str(pilot)]) == 0
    assert "Do not switch to mars-adamw: its guard went back" in capsys.readouterr().out
    markdown, page = (pilot / "report.md").read_text(), (pilot / "report.html").read_text()
    assert markdown.startswith("# Pilot go, production back\n")
    assert '<body class="no-go">' in page
    assert "### Stage 2 (done)" in markdown
    assert "### Stage 3 (failed)" in markdown
    assert "- [x] The canary says go on." in markdown
    assert "\u22120.0110 (95 % interval" in markdown
    assert "Went back to adamw at step 270, to step 225" in page
    data = verdict(pilot)
    assert data["canary"]["difference"]["mean"] == pytest.approx(sum(BETTER) / 3)  # type: ignore[index]
    assert len(data["guard"]["rollbacks"]) == 1  # type: ignore[index]
    assert [s["status"] for s in data["rollout"]] == ["done", "done", "failed"]  # type: ignore[attr-defined]
    assert data["action"]["kind"] == "do-not-switch"  # type: ignore[index]


@pytest.mark.slow
def test_files_elsewhere_are_named(pilot: Path, tmp_path: Path, capsys: Capture) -> None:
    canary = write_canary(tmp_path / "there" / "canary.json")
    log = write_guard_log(tmp_path / "log.jsonl")
    command = ["report", str(pilot), "--canary", str(canary.parent), "--guard", str(log)]
    assert main(command) == 0
    assert "Stay with the switch to mars-adamw" in capsys.readouterr().out
    markdown = (pilot / "report.md").read_text()
    assert markdown.startswith("# Go\n")
    assert "### Stage 3 (under way)" in markdown


def test_without_them_the_report_is_as_before(pilot: Path) -> None:
    assert main(["report", str(pilot)]) == 0
    data = verdict(pilot)
    assert (data["canary"], data["guard"], data["refused"]) == (None, None, [])
    assert "What happened" not in (pilot / "report.md").read_text()


@pytest.mark.parametrize("option", ["--canary", "--guard"])
def test_a_damaged_file_that_is_named_gives_one_line(
    pilot: Path, tmp_path: Path, capsys: Capture, option: str
) -> None:
    (tmp_path / "bad").write_text("{\n")
    assert main(["report", str(pilot), option, str(tmp_path / "bad")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "bad") in error
    assert len(error.splitlines()) == 1
    assert not (pilot / "report.md").exists()


@pytest.mark.slow
def test_a_foreign_file_beside_the_pilot_is_told(pilot: Path, capsys: Capture) -> None:
    write_canary(pilot / "canary.json", candidate="nadamw")
    assert main(["report", str(pilot)]) == 0
    line = "belongs to another pilot: its candidate is 'nadamw'"
    assert line in capsys.readouterr().out
    assert line in (pilot / "report.md").read_text().replace("\\", "")
    assert line in str(verdict(pilot)["refused"])


@pytest.mark.parametrize("option", [["--pdf"], ["--canary", "x"], ["--guard", "x"]])
def test_options_of_one_pilot_are_refused_elsewhere(
    tmp_path: Path, capsys: Capture, option: list[str]
) -> None:
    assert main(["report", "a", "b", *option]) == 2
    assert f"{option[0]} works with one pilot" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    assert main(["report", str(tmp_path), *option]) == 2
    assert f"{option[0]} works only with a pilot" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_canary_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Not a creature was stirring, not even a mouse. " * 600)
    small = dict(context="16", layers="1", width="16", heads="2", batch="4", corpus="'text.txt'")
    sets = {f"task__{key}": value for key, value in small.items()}
    write_pilot(Path("pilot"), speedup=1.3, training__eval_tokens="256", **sets)
    model = GPT(vocabulary=256, context=16, layers=1, width=16, heads=2)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for _ in range(3):
        model(torch.randint(256, (4, 16))).square().mean().backward()
        adamw.step()
    torch.save({"model": model.state_dict(), "opt": adamw.state_dict()}, "c.pt")
    command = ["canary", "c.pt", "--plan", "pilot/plan.toml", "--optimizer-key", "opt"]
    command += ["--out", "pilot/canary", "--steps", "20", "--history", "100"]
    assert main([*command, "--seeds", "1", "--seeds", "2"]) == 0
    capsys.readouterr()
    assert main(["report", "pilot"]) == 0
    told, own = (
        verdict(Path("pilot"))["canary"],
        json.loads(Path("pilot/canary/canary.json").read_text()),
    )
    assert told["recommendation"] == own["recommendation"]  # type: ignore[index]
    assert told["date"] == own["date"] != ""  # type: ignore[index]
    assert own["candidate"] == "mars-adamw"
    assert "What happened" in Path("pilot/report.md").read_text()
