"""Links of files that the site's build does not read: outside docs/, and in the sources.

Inside docs/ mkdocs checks them, anchors included (mkdocs.yml, validation).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"(?<![\w/.-])(docs/[\w/-]+\.md)(?:#([\w-]+))?")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def tracked(*patterns: str) -> list[str]:
    """Files of the repository by their paths."""
    command = ["git", "ls-files", *patterns]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {slug(title) for title in HEADING.findall(text)}


def slug(title: str) -> str:
    """Anchor of a heading."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
    return re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")


def broken(target: Path, anchor: str) -> bool:
    """Whether a link leads nowhere."""
    if not target.exists():
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in anchors(target)


OUTSIDE = [name for name in tracked("*.md") if not name.startswith("docs/")]


@pytest.mark.parametrize("name", OUTSIDE)
def test_every_link_of_a_page_outside_docs_leads_somewhere(name: str):
    page = ROOT / name
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    wrong = [
        f"{target}#{anchor}"
        for target, anchor in LINK.findall(text)
        if broken(page.parent / target if target else page, anchor)
    ]
    assert wrong == []


def test_every_page_that_the_sources_name_is_there():
    wrong = []
    for name in tracked("src/*.py", "src/*.toml", "src/*.c", "src/*.txt", "examples/*", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        wrong += [
            f"{name}: {target}#{anchor}"
            for target, anchor in NAMED.findall(text)
            if broken(ROOT / target, anchor)
        ]
    assert wrong == []
