"""TAB completes commands, options, arms and templates in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main
from tests.support.terminal import Terminal

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
PLAN = 'arms = ["alpha-one", "beta-two"]\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the command on its path."""
    command = tmp_path / "bin" / "mars"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mars_optim "$@"\n')
    command.chmod(0o755)
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    for name in ("ZSH", "ZSH_CUSTOM", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("shell", list(SHELLS))
def test_tab_completes_in_a_real_shell(shell: str, home: Path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    suffix = {"zsh": "_cyclopts_mars", "bash": "mars.bash", "fish": "mars.fish"}[shell]
    script = home / suffix
    assert main(["--install-completion", "--shell", shell, "--output", str(script)]) == 0
    if shell == "zsh":
        setup = f"PS1='$ '; fpath=({home} $fpath); autoload -Uz compinit && compinit -u -D"
    else:
        setup = f"source {script}"
    with Terminal(SHELLS[shell], home, {"PS1": "$ "}) as terminal:
        terminal.type(f"{setup}; echo read''y\n")
        terminal.expect("ready")
        for typed, completed in (
            ("mars pil", "mars pilot"),
            ("mars pilot --exec", "mars pilot --executor"),
            ("mars init fine", "mars init finetune"),
            ("mars train plan.toml --arm alp", "mars train plan.toml --arm alpha-one"),
        ):
            terminal.type(f"{typed}\t")
            terminal.expect(completed)
            terminal.type("\x15")  # the line is taken back
        terminal.type("exit\n")


def words(*typed: str, folder: Path) -> tuple[list[str], str]:
    """Words offered, and which heavy module was imported."""
    code = (
        "import sys\nfrom mars_optim.cli import main\nmain(['__complete', *sys.argv[1:]])\n"
        "print({'torch', 'scipy', 'matplotlib'} & set(sys.modules) or '', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *typed], cwd=folder, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("\x1f")]
    return [line.split("\t")[0] for line in lines], done.stderr.strip()


@pytest.mark.slow_but_one(among=4)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("train", "plan.toml", "--arm", ""), "beta-two"),
        (("train", "gone.toml", "--arm", ""), "mars-adamw"),
        (("transfer", ".", "--arm", ""), "alpha-one"),
        (("pilot", "--init", ""), "bandit"),
        (("export", "--standalone", ""), "mars-adamw-auto"),
        (("forecast", "--baseline", ""), "adamw"),
        (("doctor", ""), "train.py"),
        (("init", "--script", ""), "train.py"),
    ],
)
def test_words_are_offered_without_torch(typed: tuple[str, ...], offered: str, tmp_path: Path):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "train.py").write_text("")
    found, heavy = words(*typed, folder=tmp_path)
    assert offered in found
    assert heavy == ""
