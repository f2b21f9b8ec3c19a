"""Rules of the style note in CONTRIBUTING.md that a program can hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDERS = ("src", "benchmarks", "examples", "docs", "tests")
PRIVATE = re.compile(r"same command goes on|\bis no (number|JSON|CSV|folder|script)\b|\bmend\b")


def strings(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line and text of every string of a file, and whether it is a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, id(node) in alone


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_the_thing(folder: str):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text, docstring in strings(path)
        if docstring and re.match(r"(Of|What)\b", text.strip())
    ]
    assert found == []


def test_messages_have_no_private_words():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line, text, docstring in strings(path)
        if not docstring and PRIVATE.search(text)
    ]
    assert found == []
