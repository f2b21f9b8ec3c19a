"""README.ja.md is README.md in Japanese: the same code, the same links, the same order."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


def code(text: str) -> list[str]:
    blocks = re.findall("^```.*?^```", text, flags=re.S | re.M)
    return [re.sub(" +#.*", "", block) for block in blocks] + re.findall(
        "`(Mars\\w+|pip [^`]*)`", text
    )


def links(text: str) -> list[str]:
    return [link.replace(".ja.", ".") for link in re.findall(r"\]\(([^)]+)\)", text)]


def test_the_japanese_readme_follows_the_english_one() -> None:
    english = (ROOT / "README.md").read_text(encoding="utf-8")
    japanese = (ROOT / "README.ja.md").read_text(encoding="utf-8")
    other = {"README.md"}  # each leads to the other
    assert code(japanese) == code(english)
    assert [link for link in links(japanese) if link not in other] == [
        link for link in links(english) if link not in other
    ]
    files = [f.partition("#")[0] for f in re.findall(r"\]\(([^)]+)\)", japanese) if "://" not in f]
    assert [f for f in files if not (ROOT / f).exists()] == []
