"""Findings on optimizers that a plan names stand beside their arms' results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import analyse, rollout_steps
from mars_optim.experiment.records.checks import CHECKS, ArmCheck
from mars_optim.experiment.report import Messages, summary, write_report
from mars_optim.experiment.report.verdict_json import verdict_data
from mars_optim.files import write_json
from tests.support.written_pilot import write_pilot

SOURCE = "soap, pytorch_optimizer 4.1.0, sha256 0123456789abcdef"
FOUND = (("takes any keyword", "It takes | keywords that it does not have."),)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named") / "pilot"
    optimizer = '{optimizer = "pytorch_optimizer:SOAP", lr = 0.003, source = "' + SOURCE + '"}'
    write_pilot(
        folder,
        speedup=1.3,
        arms='["adamw", "soap"]',
        comparison__candidate='"soap"',
        arm__soap=optimizer,
    )
    check = ArmCheck("pytorch_optimizer:SOAP", SOURCE, FOUND, "")
    write_json(folder / CHECKS, {"soap": asdict(check)})
    return folder


def test_the_page_has_a_row_with_source_and_findings(out: Path):
    write_report(analyse(out), out)
    text = (out / "report.md").read_text()
    assert "pytorch\\_optimizer:SOAP (pytorch\\_optimizer 4.1.0, sha256 01234567)" in text
    assert "It takes \\| keywords that it does not have." in text


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_terminal_names_what_was_found(out: Path, lang: str):
    text = summary(analyse(out), Messages(lang))  # type: ignore[arg-type]
    assert all(word in text for word in ("soap", "`pytorch_optimizer:SOAP`", "sha256 01234567"))
    assert "takes any keyword" in text


def test_programs_are_told_source_and_findings(out: Path):
    arms = verdict_data(analyse(out))["arms"]
    assert arms["soap"]["optimizer"] == "pytorch_optimizer:SOAP"
    assert arms["soap"]["source"] == SOURCE
    assert arms["soap"]["found"] == [{"name": FOUND[0][0], "text": FOUND[0][1]}]
    assert "optimizer" not in arms["adamw"]


def test_its_state_is_not_taken_for_adamws(out: Path):
    codes = {c.key for step in rollout_steps(analyse(out)) for c in step.entry}
    assert "other-moments" in codes
    assert "same-moments" not in codes
