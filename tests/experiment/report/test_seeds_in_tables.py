"""Tables of seeds: a pilot that ended early has no missing pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.report import Messages, write_report
from tests.support.written_pilot import write_pilot

SEEDS = "[1, 2, 3, 4, 5, 6, 7, 8]"


def report_without(out: Path, looks: str, lost: set[tuple[str, int]]) -> str:
    """The Markdown of a pilot of eight pairs that has not run these arms and seeds."""
    write_pilot(out, speedup=0.8, decision__looks=f'"{looks}"', comparison__seeds=SEEDS)
    for manifest in out.glob("runs/*/manifest.json"):
        spec = json.loads(manifest.read_text())["spec"]
        if (spec["arm_name"], spec["seed"]) in lost and spec["purpose"] != "tune":
            shutil.rmtree(manifest.parent)
    write_report(analyse(out), out, Messages("en"))
    return (out / "report.md").read_text()


def late(*seeds: int) -> set[tuple[str, int]]:
    """All arms of these seeds."""
    return {(arm, seed) for arm in ("adamw", "nadamw", "mars-adamw") for seed in seeds}


def test_pairs_that_a_verdict_did_without_are_no_rows(tmp_path: Path) -> None:
    page = report_without(tmp_path / "p", "every-pair", late(4, 5, 6, 7, 8))
    table = page[page.index("Final validation loss of every seed") :].split("\n\n")[1]
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == ["1", "2", "3"]
    assert "missing" not in table


@pytest.mark.parametrize(
    ("looks", "lost", "last"),
    [("every-pair", {("mars-adamw", 3)} | late(4, 5, 6, 7, 8), "3"), ("once", late(8), "8")],
    ids=["of a pair", "of a fixed design"],
)
def test_a_run_that_is_lacking_is_named(
    tmp_path: Path, looks: str, lost: set[tuple[str, int]], last: str
) -> None:
    page = report_without(tmp_path / "p", looks, lost)
    table = page[page.index("Final validation loss of every seed") :].split("\n\n")[1]
    row = table.splitlines()[-1]
    assert row.split("|")[1].strip() == last
    assert "missing" in row
