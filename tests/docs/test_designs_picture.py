"""The picture of designs shows the rows of its table, and is the one that its command draws."""

from __future__ import annotations

import re

import pytest

from docs.figures.designs import DESIGNS, PAGE, PICTURE, draw, points
from mars_optim.experiment.report.figures.draw import svg_element
from mars_optim.experiment.report.figures.svg import standalone
from tests.support.paths import ROOT


def test_every_design_has_a_point_at_every_saving():
    found = points(PAGE.read_text("utf-8"))
    savings = {point.saving for point in found}
    assert savings == {"-10%", "0%", "5%", "20%"}
    assert len(found) == len({(p.design, p.saving) for p in found}) == 4 * len(DESIGNS)
    rates = {(p.design, p.saving): p for p in found}
    halving = rates["successive halving", "5%"]
    assert (halving.wrong, halving.pilots, halving.budgets) == (87, 100, 45.3)
    assert halving.ends == pytest.approx((79.0, 92.2), abs=0.1)


def test_the_picture_is_the_one_that_its_command_draws():
    drawn = standalone(svg_element("designs", draw, height=3.0))
    assert PICTURE.read_text("utf-8") == drawn


def test_the_readme_tells_how_many_pilots_stay_open():
    page = PAGE.read_text("utf-8")
    told = (ROOT / "README.md").read_text("utf-8")
    for saving, words in (("0%", "{} % open at a saving of 0"), ("5%", "{} % at just 5 %")):
        row = re.search(
            rf"^\| {saving} \| pilot, built-in plan \| ([\d.]+) .*? \| ([\d.]+)", page, re.M
        )
        assert row
        undecided = 100 - float(row[1]) - float(row[2])
        assert words.format(round(undecided)) in told
