"""``mars`` without arguments: the next step by what a folder holds."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.cli.folder import Found, FoundCanary, FoundPilot, look
from mars_optim.cli.next_step import Advice, Step, next_step, screen

GONE = 2**30  # no process has this number


def first(found: Found) -> str:
    return next_step(found).steps[0].command


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pilot(out: Path, state: str = "ended", pid: int = GONE, verdict: str | None = None) -> None:
    """A pilot's folder as the pilot leaves it."""
    write(out / "plan.toml", 'arms = ["adamw", "mars-adamw"]\n')
    (out / "runs").mkdir()
    said = {"state": state, "host": platform.node(), "pid": pid, "share": 0.25}
    write(out / "status.json", json.dumps(said | {"done_runs": 3, "planned_runs": 12}))
    if verdict:
        write(out / "verdict.json", json.dumps({"verdict": verdict, "sentence": "It is so."}))


@pytest.mark.parametrize(
    ("found", "command"),
    [
        (Found(), "mars init"),
        (Found(scripts=("train.py",)), "mars doctor train.py"),
        (Found(scripts=("my train.py",)), "mars doctor 'my train.py'"),
        (Found(scripts=("train.py",), plans=("plan.toml",)), "mars plan --plan plan.toml"),
        (Found(mappings=("runs.toml",)), "mars report --from runs.toml"),
        (Found(pilots=(FoundPilot(folder="p", state="running"),)), "mars watch p"),
        (Found(pilots=(FoundPilot(folder="p", state="stopped"),)), "mars pilot --out p"),
        (Found(pilots=(FoundPilot(folder="mars-pilot", state="gone"),)), "mars pilot"),
        (Found(pilots=(FoundPilot(folder="p", state="ended"),)), "mars report p"),
        (Found(pilots=(FoundPilot(folder="p"),)), "mars pilot --out p"),
        (
            Found(pilots=(FoundPilot(folder="p", state="ended", verdict="go"),)),
            "mars canary CHECKPOINT --plan p/plan.toml",
        ),
        (Found(pilots=(FoundPilot(folder="p", verdict="go", by_hand=True),)), "mars report p"),
        (Found(pilots=(FoundPilot(folder="p", verdict="no-go"),)), "mars report p"),
        (Found(pilots=(FoundPilot(folder="p", verdict="not-enough-runs"),)), "mars report p"),
        (Found(canaries=(FoundCanary(folder="mars-canary"),)), "mars canary CHECKPOINT"),
        (
            Found(canaries=(FoundCanary(folder="c", recommendation="production"),)),
            "guard = mars_optim.Guard(model, optimizer, ...)",
        ),
        (
            Found(canaries=(FoundCanary(folder="c", recommendation="back"),)),
            "mars pilot --out another-pilot",
        ),
        (
            Found(canaries=(FoundCanary(folder="c", recommendation="not-enough-runs"),)),
            "mars canary CHECKPOINT --out c --seeds 1 ... --seeds 8",
        ),
        (Found(unreadable="Permission denied"), "mars --help"),
    ],
)
def test_each_folder_has_a_next_step(found: Found, command: str):
    assert first(found) == command


def test_a_canary_within_the_pilot_leads_to_the_guard(tmp_path: Path):
    pilot(tmp_path / "p", verdict="go")
    told = {"verdict": "go", "sentence": "It is so.", "next_step": {"key": "production"}}
    write(tmp_path / "p" / "verdict.json", json.dumps(told))
    advice = next_step(look(tmp_path))
    assert advice.here.endswith("It is so. Its canary says go on.")
    assert advice.steps[0].command.startswith("guard = mars_optim.Guard")


def test_a_go_says_what_its_own_verdict_says_of_the_next_stage(tmp_path: Path):
    pilot(tmp_path / "p", verdict="go")
    told = {
        "verdict": "go",
        "sentence": "It is so.",
        "action": {"kind": "do-not-switch", "text": "Do not switch yet."},
        "next_step": {"key": "canary", "command": "by hand (docs/production.md)"},
    }
    write(tmp_path / "p" / "verdict.json", json.dumps(told))
    advice = next_step(look(tmp_path))
    assert advice.here.endswith("It is so. Do not switch yet.")
    assert [step.command for step in advice.steps] == ["mars report p"]
    assert "by hand" in advice.steps[0].why


def test_what_runs_comes_first_and_others_are_named():
    pilots = (
        FoundPilot(folder="old", state="ended", verdict="no-go", time=1.0),
        FoundPilot(folder="new", state="ended", verdict="go", time=2.0),
        FoundPilot(folder="halted", state="stopped", time=0.0),
        FoundPilot(folder="live", state="running", time=0.0),
    )
    assert first(Found(pilots=pilots)) == "mars watch live"
    assert first(Found(pilots=pilots[:3])) == "mars pilot --out halted"
    advice = next_step(Found(pilots=pilots[:2]))
    assert advice.steps[0].command.startswith("mars canary CHECKPOINT --plan new")
    assert advice.notes == ("Also here: old, no-go.",)


def test_many_pilots_are_counted():
    pilots = tuple(FoundPilot(folder=f"p{i}", verdict="go", time=i) for i in range(9))
    assert next_step(Found(pilots=pilots)).notes[-1] == "And 4 more pilots."


def test_a_canary_goes_before_a_pilot_that_has_ended():
    ended = FoundPilot(folder="p", state="ended", verdict="go")
    canary = FoundCanary(folder="c", recommendation="production", sentence="On.")
    found = Found(pilots=(ended,), canaries=(canary,))
    assert "Guard" in first(found)
    assert next_step(found).notes == ("Also here: p, go.",)
    running = FoundPilot(folder="q", state="running")
    assert first(Found(pilots=(ended, running), canaries=(canary,))) == "mars watch q"


def test_an_empty_folder_and_hidden_files_are_nothing(tmp_path: Path):
    write(tmp_path / ".venv" / "plan.toml", "arms = []")
    write(tmp_path / "notes.py", "print('no training here')")
    write(tmp_path / "pyproject.toml", "[project]\nname = 'x'")
    assert look(tmp_path) == Found()


@pytest.mark.parametrize(
    "line",
    [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)",
        "opt = optim.SGD(net.parameters(), lr=0.1)",
        "optimizer = MARSAdamW(\n    self.model.parameters(),\n)",
        "optimizer = mars_optim.create('mars-adamw', model)",
        "optimizer = AdamW(params, lr=lr)",
    ],
)
def test_a_script_is_known_by_its_optimizer(line: str, tmp_path: Path):
    write(tmp_path / "train.py", f"import torch\n{line}\n")
    assert look(tmp_path).scripts == ("train.py",)


def test_plans_and_mappings_are_found(tmp_path: Path):
    write(tmp_path / "plan.toml", 'arms = ["adamw", "lion"]')
    write(tmp_path / "other.toml", "[task]\nkind = 'gpt'\n[training]\nsteps = 100")
    write(tmp_path / "runs.toml", "files = []")
    write(tmp_path / "mine" / "plan.toml", "arms = []")
    found = look(tmp_path)
    assert found.plans == ("plan.toml", "mine/plan.toml", "other.toml")
    assert found.mappings == ("runs.toml",)


def test_a_plan_that_cannot_be_read_is_one_line(tmp_path: Path):
    write(tmp_path / "plan.toml", "arms = [")
    notes = next_step(look(tmp_path)).notes
    assert len(notes) == 1
    assert "plan.toml is no valid TOML" in notes[0]


@pytest.mark.parametrize(
    ("state", "pid", "command"),
    [
        ("running", os.getpid(), "mars watch p"),
        ("running", GONE, "mars pilot --out p"),
        ("stopped", GONE, "mars pilot --out p"),
    ],
    ids=["alive", "gone", "stopped"],  # the same in every worker of the tests
)
def test_a_pilot_is_read_from_its_status(state: str, pid: int, command: str, tmp_path: Path):
    pilot(tmp_path / "p", state, pid)
    advice = next_step(look(tmp_path))
    assert advice.steps[0].command == command
    assert "3 of 12 runs done (25%)" in advice.here


def test_a_verdict_is_said_in_one_line(tmp_path: Path):
    pilot(tmp_path / "p", verdict="go")
    assert next_step(look(tmp_path)).here == "The pilot in p has ended. It is so."


def test_from_inside_a_pilots_folder_it_is_the_dot(tmp_path: Path):
    pilot(tmp_path, "stopped")
    assert first(look(tmp_path)) == "mars pilot --out ."


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": 7}', '{"state": "?"}'])
def test_a_damaged_status_is_one_line(text: str, tmp_path: Path):
    pilot(tmp_path / "p")
    write(tmp_path / "p" / "status.json", text)
    advice = next_step(look(tmp_path))
    assert advice.here == "p/status.json is damaged."
    assert advice.steps[0].command == "mars pilot --out p"


def test_damaged_results_are_one_line(tmp_path: Path):
    pilot(tmp_path / "p", verdict="go")
    write(tmp_path / "p" / "verdict.json", "{")
    assert next_step(look(tmp_path)).here == "p/verdict.json is damaged."
    write(tmp_path / "c" / "canary.json", "[")
    assert next_step(look(tmp_path)).here == "c/canary.json is damaged."


def test_a_locked_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all
    assert next_step(look(tmp_path)).here == "This folder cannot be read: Permission denied."


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path):
    advice = next_step(look(tmp_path / "gone"))
    assert advice.here == "This folder cannot be read: No such file or directory."


def test_without_the_packages_their_installation_comes_first():
    lines = screen(Advice("Here.", (Step("mars init", "asks"),)), complete=False)
    steps = [line.split(None, 1) for line in lines if line.startswith(("  Next", "  Then"))]
    assert steps == [["Next:", "pip install 'mars-optim[pilot]'"], ["Then:", "mars init"]]


def test_the_command_alone_shows_one_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        pilot(tmp_path / f"p{i}", verdict="no-go")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert lines[-1] == "All commands: mars --help"


def test_help_lists_the_commands_in_the_order_of_use(capsys: pytest.CaptureFixture[str]):
    main(["--help"])
    text = capsys.readouterr().out
    order = (
        "doctor init plan pilot watch report forecast transfer canary export prepare train noise"
    )
    places = [text.index(f"│ {name} ") for name in order.split()]
    assert places == sorted(places)


def test_it_imports_nothing_that_is_slow_to_import(tmp_path: Path):
    code = (
        "import sys\nfrom mars_optim.cli import main\nmain([])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'cyclopts', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
