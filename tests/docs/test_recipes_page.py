"""docs/recipes.md says what the recipes hold, and its commands run."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from docs.figures.recipes import PAGE, ROOT, with_tables
from mars_optim.cli import main
from mars_optim.cli.train import train
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import read_runs

TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_tables_are_those_of_the_recipes():
    assert with_tables(TEXT) == TEXT


def test_every_recipe_is_in_a_table():
    linked = set(re.findall(r"\(\.\./recipes/(.+?\.toml)\)", TEXT))
    assert linked == {path.name for path in (ROOT / "recipes").glob("*.toml")}


@pytest.mark.slow
def test_the_recipe_in_a_minute_runs_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (command,) = [c for c in COMMANDS if "task.corpus=stdlib" in c]
    command = [str(ROOT / word) if word.startswith("recipes/") else word for word in command]
    monkeypatch.chdir(tmp_path)
    assert main([*command[1:], "--set", "training.steps=10"]) == 0
    assert len(read_runs(tmp_path / "tried" / "runs")) == 1
    assert main(["report", "tried"]) == 0
    assert "2.849" in capsys.readouterr().out


def test_the_options_that_the_page_names_are_the_commands():
    named = set(re.findall(r"`(--[a-z-]+)", TEXT)) - {"--set", "--plan"}
    assert named
    known = {f"--{name.replace('_', '-')}" for name in train.__annotations__}
    assert named <= known


def test_the_entry_of_ones_own_is_read():
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.S)
    assert make_plan(tomllib.loads(block)).ours["mars-adamw"].seeds == 1
