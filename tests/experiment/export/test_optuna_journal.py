"""The trials of a pilot as Optuna's own storage; and TPE asks for the same after a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.export.optuna_journal import JOURNAL, write_journal
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.records import read_runs
from tests.support.designed_pilot import designed_plan, write_designed
from tests.support.pretend import DATA
from tests.support.scored_pilot import IMAGES, METRIC

optuna = pytest.importorskip("optuna")
TWO = "arms=['adamw', 'mars-adamw']"


def studies(path: Path) -> dict[str, optuna.Study]:
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    return {
        name: optuna.load_study(study_name=name, storage=storage)
        for name in optuna.get_all_study_names(storage)
    }


@pytest.mark.slow
def test_report_keeps_the_trials_for_optuna(tmp_path: Path):
    out = tmp_path / "pilot"
    plan = write_designed(out, designed_plan(TWO, "tuning.sampler='tpe'", trials=9), gone=["adamw"])
    assert main(["report", str(out)]) == 0
    found = studies(out / JOURNAL)
    assert list(found) == list(plan.arms)
    assert {trial.state.name for trial in found["adamw"].trials} == {"FAIL"}
    trials = found["mars-adamw"].trials
    made = {r.spec.lr: r.final_loss for r in read_runs(out / "runs") if r.spec.purpose == "tune"}
    assert [trial.value for trial in trials] == [made[trial.params["lr"]] for trial in trials]
    assert len(trials) == 9
    shares = optuna.importance.get_param_importances(
        found["mars-adamw"], evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert set(shares) == {"lr", "weight_decay"}
    assert main(["report", str(out)]) == 0  # again: not twice the trials
    assert len(studies(out / JOURNAL)["mars-adamw"].trials) == 9


@pytest.mark.parametrize("target", [False, True], ids=["metric", "target"])
def test_a_metric_is_kept_as_it_is_and_a_target_in_tokens(tmp_path: Path, target: bool):
    sets = (TWO, *IMAGES, *METRIC, *(["decision.target=0.5"] if target else []))
    out = tmp_path / "pilot"
    write_designed(out, designed_plan(*sets, trials=6))
    path = write_journal(analyse(out), out)
    assert path is not None
    study = studies(path)["adamw"]
    reached = [trial.user_attrs.get("reached") for trial in study.trials]
    if target:
        assert study.direction.name == "MINIMIZE"
        assert all(
            (t.value <= 8000) == there for t, there in zip(study.trials, reached, strict=True)
        )
        assert len(set(reached)) == 2
    else:
        assert study.direction.name == "MAXIMIZE"
        assert 0.5 < study.best_value < 0.7
        assert reached == [None] * 6


def test_the_rate_alone_leaves_no_storage(tmp_path: Path):
    out = tmp_path / "pilot"
    write_designed(out, designed_plan(TWO, over='["lr"]', trials=3))
    assert write_journal(analyse(out), out) is None
    assert not (out / JOURNAL).exists()


NEXT = """
import sys
from pathlib import Path
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import read_runs
from tests.support.pretend import DATA
out = Path(sys.argv[1])
now = agenda(load_plan(out / "plan.toml"), DATA, read_runs(out / "runs"))
print(*(spec.run_id for spec in now.ready))
"""


@pytest.mark.slow_but_one
@pytest.mark.parametrize("target", [False, True], ids=["loss", "target"])
def test_another_process_asks_tpe_for_the_same(tmp_path: Path, target: bool):
    sets = (*IMAGES, *METRIC, "decision.target=0.5") if target else ()
    plan = designed_plan(TWO, "tuning.sampler='tpe'", *sets, trials=16)
    out = tmp_path / "pilot"
    write_designed(out, plan, runs=23)  # eleven trials and more: beyond the random start
    mine = [spec.run_id for spec in agenda(plan, DATA, read_runs(out / "runs")).ready]
    command = [sys.executable, "-c", NEXT, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == mine
    assert len(mine) == 2  # one trial of each arm at a time
