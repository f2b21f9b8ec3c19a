"""The words of docs/public-runs.md follow from its tables, and these from the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.public_runs import few_seeds, main, small_sizes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/public-runs.md"
TEXT = PAGE.read_text(encoding="utf-8")
SAYS = TEXT[: TEXT.index("## How to read it")].replace("\n  ", " ")  # a bullet is a line
NUMBER = r"-?\d+(?:\.\d+)?"


def rows(name: str, text: str = TEXT) -> dict[str, list[str]]:
    """A table between its markers: first cell -> the others."""
    part = text[text.index(f"<!-- {name} -->") : text.index(f"<!-- end of {name} -->")]
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def said(bullet: str) -> str:
    """The bullet that begins so, in the tables' spelling of per cent."""
    (line,) = [line for line in SAYS.splitlines() if line.startswith(f"- **{bullet}")]
    return line.replace(" %", "%")


def shares(cell: str) -> list[str]:
    """Mean, low and high of a cell such as "7.1% (4.1% to 10.3%)"."""
    return re.findall(rf"({NUMBER})%", cell)


def test_muon_pays_and_its_gain_shrinks() -> None:
    *ratios, saved, decision = rows("verdicts")["muon"]
    mean, low, high = shares(saved)
    assert decision == "go"
    size = "537 M, which marin calls 520 M"
    assert f"({mean}% of AdamW's tokens at {size}; 95%: {low} to {high}%)" in said("Muon pays")
    assert [float(r) for r in ratios] == sorted(map(float, ratios), reverse=True)
    assert f"a ratio of {', '.join(f'{float(r):.2f}' for r in ratios)}" in said("Muon pays")


def test_mars_is_ahead_of_adamw_and_not_of_nadamw() -> None:
    *_, saved, decision = rows("verdicts")["mars"]
    mean, low, high = shares(saved)
    text = said("MARS is ahead")
    assert f"by {mean}%** ({low} to {high}%)" in text
    assert decision == "not-enough-runs"
    beyond, least, most = shares(rows("shared")["mars"][-1])
    assert float(least) < 0 < float(most)
    assert f"({beyond}%, {least} to {most}%)" in text


def test_the_rate_beside_the_best_is_told_as_in_the_table() -> None:
    raised = {name: cells[1] for name, cells in rows("sensitivity").items()}
    text = said("AdamW's best rate")
    runs, gone = re.findall(r"\d+", raised["adamw"])
    assert f"({gone} of {runs} runs one step up, " in text
    lost, runs, gone = re.findall(r"\d+", raised["mars"])
    assert f"{gone} of {runs} diverged, with {lost}% of the tokens lost" in text


def test_the_small_pilot_is_told_as_in_the_table() -> None:
    words = ["none", "one", "two", "three", "four"]
    same, unsure, wrong = rows("small sizes")["134 M, 4 budgets"]
    agree, of = map(int, re.findall(r"\d+", same))
    text = said("A pilot at 134 M")
    assert f"the same of {words[agree]} optimizers in {words[of]}" in text
    assert f"undecided on the other {words[int(unsure)]}" in text
    assert wrong == "0"
    alone = rows("small sizes")["134 M, 1 budget (the sign)"]
    assert f"had {words[int(alone[2])]} sign of {words[of]} wrong" in text


def test_few_seeds_are_told_as_in_the_table() -> None:
    cells = [cell for row in rows("few seeds").values() for cell in row[1:4]]
    right, wrong = zip(*(map(float, shares(cell)) for cell in cells), strict=True)
    text = said("Two to five seeds")
    assert f"apart in only {min(right):.0f} to {max(right):.0f}% of the draws" in text
    assert f"in at most {max(wrong):g}%" in text


def test_the_tables_without_the_law_are_those_of_the_records() -> None:
    assert small_sizes() in TEXT
    assert few_seeds() in TEXT


@pytest.mark.slow
def test_the_tables_of_the_law_are_those_of_the_records(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT, encoding="utf-8")
    main(["--page", str(page)])
    for name in ("verdicts", "shared", "sensitivity"):
        made, there = (rows(name, text) for text in (page.read_text(encoding="utf-8"), TEXT))
        assert made.keys() == there.keys()
        for key, cells in made.items():
            pairs = zip("".join(cells).split(), "".join(there[key]).split(), strict=True)
            for mine, theirs in pairs:
                words = [re.sub(NUMBER, "", text) for text in (mine, theirs)]
                numbers = [list(map(float, re.findall(NUMBER, x))) for x in (mine, theirs)]
                assert words[0] == words[1]
                near = 1.0 if "%" in mine else 0.006
                assert numbers[0] == pytest.approx(numbers[1], abs=near)
