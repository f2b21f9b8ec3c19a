"""A study of many arms: its figures stay readable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.report import Messages
from mars_optim.experiment.report.figures.theme import colour, pictured
from mars_optim.experiment.report.sections import curves
from mars_optim.files import write_text
from tests.support.runs_by_hand import PLAN, comparison_losses, law, write_comparison, write_run


def test_of_many_arms_the_best_are_drawn_and_the_tables_have_all(tmp_path: Path):
    names = ("adamw", "mars-adamw", "nadamw", "lion", "mars-lion", "muon", "mars-m", "mars-shampoo")
    names += ("mars-adamw-exact", "torch-nadam", "mars-adamw-cautious", "cautious-adamw")
    plan = replace(PLAN, arms=names)
    write_comparison(tmp_path, comparison_losses())
    write_text(tmp_path / "plan.toml", plan_toml(plan))
    for rank, name in enumerate(names[3:]):  # the last one is the worst
        write_run(tmp_path, name, law(1, -0.1 * rank), seed=1, plan=plan)
    analysis, words = analyse(tmp_path), Messages("en")
    drawn = [arm.name for arm in pictured(analysis)]
    assert drawn == list(names[:11])
    assert len({colour(analysis, arm) for arm in pictured(analysis)}) == 11
    picture = curves.picture(analysis, words)
    assert picture.caption.endswith(
        "Drawn are 11 of 12 arms: baseline, candidate, control and the best of the others; the "
        "tables have all."
    )
