"""TOML that would overwhelm its parser is refused in one line, and at once."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.cli import main
from mars_optim.toml import DEEPEST, LARGEST, parse_toml, read_toml

HOSTILE = {
    "brackets": "x = " + "[" * 100_000 + "]" * 100_000,
    "braces": "x = " + "{a = " * 100_000 + "1" + "}" * 100_000,
    "dots": "a" + ".a" * 50_000 + " = 1",
    "dots with spaces": "a" + " . a" * 50_000 + " = 1",
    "quoted": '"a"' + ".'a'" * 50_000 + " = 1",
    "table": "[a" + ".a" * 50_000 + "]",
    "digits": "x = " + "9" * 5000,
    "size": "x = '" + "a" * LARGEST + "'",
    "no end": '"' * 500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", ["--plan", "--set", "--from"])
def test_hostile_toml_gives_one_line_at_once(
    tmp_path: Path, name: str, way: str, capsys: pytest.CaptureFixture[str]
):
    text, start = HOSTILE[name], time.monotonic()
    (tmp_path / "hostile.toml").write_text(text)
    file = str(tmp_path / "hostile.toml")
    arguments = {
        "--plan": ["plan", "--out", str(tmp_path / "o"), "--plan", file],
        "--from": ["report", str(tmp_path / "o"), "--from", file],
        "--set": ["plan", "--out", str(tmp_path / "o"), "--set", text.replace(" = ", "=")],
    }[way]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    if way != "--set":
        assert len(error) < 1000
        assert "hostile.toml is no valid TOML: " in error
    assert time.monotonic() - start < 20


def test_brackets_and_dots_in_strings_and_comments_are_text():
    text = "[" * 2 * DEEPEST
    dots = ".".join("abc" * DEEPEST)
    for quote in ('"', "'", '"""', "'''"):
        found = parse_toml(f"x = {quote}{text}{dots}{quote} # {text}{dots}\ny = 1")
        assert found == {"x": text + dots, "y": 1}


def test_the_line_is_named():
    with pytest.raises(ValueError, match=r"\(at line 4\)"):
        parse_toml('x = """\n\n"""\ny = ' + "[" * 50)


@given(st.text(alphabet="[]{}\"'.#=,\n a1\\", max_size=60))
def test_whatever_is_refused_is_a_value_error(text: str):
    with contextlib.suppress(ValueError):
        parse_toml(text)


def test_a_file_may_begin_with_the_mark_of_its_editor(tmp_path: Path):
    path = tmp_path / "plan.toml"
    path.write_text("a = 'é'\r\n", encoding="utf-8-sig")
    assert read_toml(path, "") == {"a": "é"}
