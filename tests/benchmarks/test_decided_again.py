"""Studies decided again from records: these are the studies' own, and the page says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.decided_again import FOLDER, STUDIES, Study, decided, plan_of, rows
from mars_optim.experiment.plan.plan_file import BUILT_IN

PAGE = FOLDER.parent / "statistics.md"


@pytest.mark.parametrize("name", STUDIES)
def test_records_give_the_verdicts_of_the_study_itself(name: str):
    study = Study.read(FOLDER / name)
    baseline = study.plan.comparison.baseline
    for arm in (a for a in study.plan.arms if a != baseline):
        found = decided(study, plan_of(study, arm, cheap=False))
        mean = study.verdict["arms"][arm]["tokens_saved"]["mean"]
        told = float(found.saved.lstrip("≥≤ ").split(" %")[0])
        assert told == pytest.approx(100 * mean, abs=0.06)
    own = decided(study, plan_of(study, study.plan.comparison.candidate, cheap=False))
    assert own.decision == study.verdict["verdict"]


def test_the_cheap_design_is_that_of_the_built_in_plan():
    study = Study.read(FOLDER / STUDIES[0])
    plan = plan_of(study, "nadamw", cheap=True)
    assert list(plan.comparison.ladder) == BUILT_IN["comparison"]["ladder"]
    assert (plan.decision.looks, plan.arms) == ("every-pair", ("adamw", "nadamw"))
    whole = decided(study, plan_of(study, "nadamw", cheap=False))
    assert decided(study, plan).budgets < whole.budgets


def test_a_picture_that_is_not_of_the_verdict_is_refused(tmp_path: Path):
    shutil.copytree(FOLDER / STUDIES[0], tmp_path / "study")
    other = FOLDER / STUDIES[1] / "figures" / "ladder.svg"
    shutil.copy(other, tmp_path / "study" / "figures")
    with pytest.raises(ValueError, match="seed 1 ends at"):
        Study.read(tmp_path / "study")


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_tells_what_the_command_prints(name: str):
    page = PAGE.read_text("utf-8")
    for row in rows(name):
        assert f"| {' | '.join(row)} |" in page
