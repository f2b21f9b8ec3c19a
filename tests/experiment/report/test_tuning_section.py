"""Cost and gain of tuning, in the report and in verdict.json."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import Analysis, analyse
from mars_optim.experiment.report import write_report
from tests.support.designed_pilot import designed_plan, write_designed
from tests.support.written_pilot import write_pilot


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    out = tmp_path_factory.mktemp("designed") / "pilot"
    write_designed(out, designed_plan(trials=12))
    return out, analyse(out)


@pytest.mark.slow
def test_report_tells_what_was_chosen_and_what_fewer_trials_give(
    designed: tuple[Path, Analysis],
):
    out, analysis = designed
    _, markdown, verdict = write_report(analysis, out)
    text = markdown.read_text()
    assert "Every arm had 12 trials over lr, weight\\_decay" in text
    assert "default 0.001" in text
    assert "The tuned settings are lr, weight\\_decay" in text
    for name in ("best-of", "budgets", "importances"):
        assert f"figures/{name}.svg" in text
    data = json.loads(verdict.read_text())["tuning"]
    assert [at["trials"] for at in data["verdict_by_trials"]] == [1, 2, 4, 8, 12]
    adamw = data["arms"]["adamw"]
    assert len(adamw["trials"]) == 12
    assert sum(adamw["importances"].values()) == pytest.approx(1.0)
    assert adamw["trials"][0]["lr"] == 0.001
    assert set(adamw["chosen"]) == {"lr", "weight_decay"}


def test_all_trials_of_the_budgets_are_the_verdict_itself(designed: tuple[Path, Analysis]):
    _, analysis = designed
    whole, found = analysis.budgets[-1], analysis.candidate.log_ratio
    assert whole.decision == analysis.verdict.decision == "go"
    assert whole.log_ratio is not None
    assert found is not None
    assert whole.log_ratio.low == pytest.approx(found.low)
    assert whole.log_ratio.high == pytest.approx(found.high)


def test_choice_of_the_settings_widens_the_interval(designed: tuple[Path, Analysis]):
    _, analysis = designed
    found, here = analysis.candidate.log_ratio, analysis.candidate.log_ratio_here
    assert found is not None
    assert here is not None
    assert found.rates > 0
    assert found.high - found.low > here.high - here.low


def test_saving_is_near_the_truth(designed: tuple[Path, Analysis]):
    found = designed[1].candidate.log_ratio
    assert found is not None
    assert found.low < math.log(1.2) < found.high


def test_without_optuna_the_report_says_so(
    designed: tuple[Path, Analysis], monkeypatch: pytest.MonkeyPatch
):
    out, analysis = designed
    monkeypatch.setitem(sys.modules, "optuna", None)
    _, markdown, verdict = write_report(analysis, out)
    assert "pip install 'mars-optim[tune]'" in markdown.read_text()
    assert json.loads(verdict.read_text())["tuning"]["arms"]["adamw"]["importances"] is None


@pytest.mark.slow
def test_a_pilot_under_way_has_a_report(tmp_path: Path):
    for runs in (1, 5, 20, 38):
        out = tmp_path / str(runs)
        write_designed(out, designed_plan(trials=12), runs=runs)
        analysis = analyse(out)
        assert analysis.verdict.decision == "not-enough-runs"
        write_report(analysis, out)


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["adamw", "mars-adamw"])
def test_an_arm_all_of_whose_trials_diverged_is_reported(tmp_path: Path, gone: str):
    out = tmp_path / "pilot"
    write_designed(out, designed_plan(trials=4), gone=[gone])
    analysis = analyse(out)
    assert analysis.arm(gone).tuned.whole.loss is None  # type: ignore[union-attr]
    assert not analysis.budgets or analysis.budgets[-1].decision is None
    write_report(analysis, out)


def test_the_rate_alone_has_no_section_of_it(tmp_path: Path):
    write_pilot(tmp_path / "pilot", speedup=1.3)
    _, markdown, verdict = write_report(analyse(tmp_path / "pilot"), tmp_path / "pilot")
    assert "Cost and gain of tuning" not in markdown.read_text()
    assert "tuning" not in json.loads(verdict.read_text())


def test_a_moved_rate_is_among_the_limits(tmp_path: Path):
    sets = dict(comparison__lr_exponent="-0.35")
    write_pilot(tmp_path / "pilot", speedup=1.3, **sets)
    _, markdown, _ = write_report(analyse(tmp_path / "pilot"), tmp_path / "pilot")
    assert "the budget to the power -0.35" in markdown.read_text()
