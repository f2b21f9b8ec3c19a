"""Before the first run: a sampler that is not there, trials too few for what is tuned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mars_optim.cli.pilot import _check_tuning
from mars_optim.errors import UserError
from tests.support.designed_pilot import designed_plan


def test_tpe_without_optuna_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"^optuna is not installed: pip install 'mars-optim\[tune"):
        _check_tuning(designed_plan('tuning.sampler="tpe"'))
    _check_tuning(designed_plan())


def test_few_trials_are_warned_of_in_one_line(capsys: pytest.CaptureFixture[str]):
    _check_tuning(designed_plan(trials=15))
    told = capsys.readouterr().err
    assert told.startswith("mars: warning: tuning.trials = 15 are few for tuning.over = ['lr'")
    assert told.count("\n") == 1
    _check_tuning(designed_plan(trials=16))
    assert not capsys.readouterr().err
