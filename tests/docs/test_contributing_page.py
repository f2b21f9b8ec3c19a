"""CONTRIBUTING.md names files and names that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SRC = ROOT / "src/mars_optim"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKS = PAGE.partition("## Five walks")[2].partition("## Style")[0]
STEPS = re.findall(r"^\d+\. .+$", WALKS, flags=re.MULTILINE)
FILE = re.compile(r"[\w./-]+\.(?:py|c|md|toml|txt|yml|jsonl)|[\w/-]+/")
ON_DISK = {"rows.jsonl", "site/"}  # of runs, and what `make docs` builds


def _paths(text: str) -> list[str]:
    quoted = re.findall(r"`([^`\n]+)`", text)
    return [q for q in quoted if FILE.fullmatch(q) and q not in ON_DISK]


def _found(path: str) -> Path | None:
    """The one that is meant: from the root, from the package, or by its name alone."""
    wanted = [p for p in (ROOT / path, SRC / path, SRC / "experiment" / path) if p.exists()]
    by_name = [] if "/" in path else [*SRC.rglob(path), *(ROOT / "tests").rglob(path)]
    return next(iter([*wanted, *by_name]), None)


@pytest.mark.parametrize("path", sorted(set(_paths(PAGE))))
def test_every_path_of_the_page_exists(path: str):
    assert _found(path) is not None


@pytest.mark.parametrize("step", [s for s in STEPS if _paths(s)])
def test_every_name_of_a_step_is_in_a_file_of_the_step(step: str):
    files = [file for path in _paths(step) if (file := _found(path)) and file.is_file()]
    texts = "".join(file.read_text(encoding="utf-8") for file in files)
    names = [q for q in re.findall(r"`([^`\n]+)`", step) if q.isidentifier()]
    assert [name for name in names if files and name not in texts] == []


def test_the_walks_are_as_long_as_they_look():
    assert len(STEPS) > 20


def test_every_make_target_of_the_page_is_in_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`?make ([a-z-]+)", PAGE)) <= targets
