"""The page of three tasks shows what its studies found: tables from verdicts, valid plans."""

from __future__ import annotations

import re

import pytest

from docs.figures import results
from mars_optim.experiment.plan.plan_file import load_plan
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
STUDIES = sorted(path.stem for path in (DOCS / "studies").glob("*.toml"))


def test_every_table_is_what_its_verdict_says():
    text = results.PAGE.read_text(encoding="utf-8")
    assert results.page(text, results.verdicts()) == text


def test_every_study_has_its_plan_and_its_report_and_is_shown():
    text = results.PAGE.read_text(encoding="utf-8")
    assert set(results.verdicts()) == set(STUDIES)
    for name in STUDIES:
        assert f"docs/studies/{name}.toml" in text
        assert f"(studies/{name}/report.md)" in text
        assert f"(figures/results-{name}.svg)" in text
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (DOCS / link).exists()] == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_was_made_by_the_plan_beside_it(name: str):
    plan = load_plan(DOCS / "studies" / f"{name}.toml", ())
    followed = load_plan(DOCS / "studies" / name / "plan.toml", ())
    assert (plan.arms, plan.task, plan.training) == (
        followed.arms,
        followed.task,
        followed.training,
    )
    assert set(results.verdicts()[name]["arms"]) == set(plan.arms)


def test_a_page_without_a_studys_table_is_told_in_one_line():
    with pytest.raises(SystemExit, match=r"three-tasks\.md has no <!-- table"):
        results.page("nothing", results.verdicts())
