"""Terminals and arguments that are not UTF-8 cost characters, not the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "existing_runs" / "runs.toml"


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path, encoding: str, lang: str):
    ended = mars({"PYTHONIOENCODING": encoding}, tmp_path, "--from", str(EXAMPLE), "--lang", lang)
    assert ended.returncode == 0, ended.stderr
    assert b"report" in ended.stdout
    suffix = ".ja" if lang == "ja" else ""
    assert "mars-adamw" in (tmp_path / f"report{suffix}.md").read_text(encoding="utf-8")


def test_so_does_an_error_in_a_plain_c_locale(tmp_path: Path):
    more = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = mars(more, tmp_path, "--from", str(tmp_path / "fehlt-\u00fc.toml"))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_an_argument_that_is_not_utf8_is_named(tmp_path: Path):
    ended = mars({}, tmp_path, "--from", os.fsencode(tmp_path) + b"/a\xff.toml")
    assert ended.returncode == 2
    assert b"a\\xff.toml: this argument is not UTF-8" in ended.stderr


def mars(
    environment: dict[str, str], out: Path, *more: str | bytes
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mars_optim", "report", str(out), *more]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True)
