"""The page of other optimizers says what the zoo's results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.optimizer_zoo import PAGE, RESULTS, ZOO, Entry, page, tried
from docs.zoo.defects import DEFECTS
from tests.support.paths import ROOT

RESULT = json.loads((ROOT / RESULTS).read_text())


def test_the_page_is_made_from_the_results():
    text = (ROOT / PAGE).read_text()
    assert page(text, RESULT) == text


def test_at_least_25_optimizers_are_tried():
    assert len([name for name, result in RESULT.items() if "flaws" in result]) >= 25
    assert set(RESULT) == {entry.source for entry in ZOO}


def test_every_script_is_on_the_page():
    text = (ROOT / PAGE).read_text()
    assert [s.__name__ for _, _, s in DEFECTS if f"`{s.__name__}`" not in text] == []


@pytest.mark.parametrize("script", [s for p, _, s in DEFECTS if p == "torch"])
def test_what_is_said_of_torch_is_shown(script):
    assert script()


def test_an_optimizer_that_cannot_be_tried_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = tried(Entry("no_such_package_here:SOAP"))
    assert "cannot be imported" in told["absent"]
    assert str(tmp_path) not in told["absent"]
