"""A run of the user's command: what it wrote becomes rows and an outcome, its faults one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.external.command_run import Command
from mars_optim.experiment.plan.task import CommandPlan
from mars_optim.experiment.records import RunWriter
from tests.support.command_runs import COMMAND, FOLDER, run, spec_of, task_with
from tests.support.paths import ROOT


def test_run_has_the_rows_and_outcome_the_command_wrote(tmp_path: Path):
    made = run(tmp_path, task_with(), steps=100)
    assert made.outcome is not None
    assert (made.outcome.status, made.outcome.steps, made.outcome.tokens) == ("finished", 100, 700)
    assert made.outcome.seconds == pytest.approx(1.0)
    text = (made.path / "job" / "metrics.jsonl").read_text()
    written = [json.loads(line) for line in text.splitlines()]
    assert made.final_loss == written[-1]["valid_loss"]
    losses = [row["loss"] for row in made.rows if "loss" in row]
    assert len(losses) == 51  # of which the last has what was left over
    assert losses[1] == pytest.approx((written[1]["loss"] + written[2]["loss"]) / 2)
    assert made.rows[-1]["valid_loss"] == made.final_loss
    assert (made.path / "log.txt").read_text() == "training ours\n"


def test_tokens_per_step_of_the_plan_replace_a_tokens_column(tmp_path: Path):
    task = task_with(tokens_key="none", tokens_per_step=5, seconds_key="none")
    made = run(tmp_path, task)
    assert made.outcome is not None
    assert made.outcome.tokens == 100
    assert 0 < made.outcome.seconds < 60  # of the whole command


@pytest.mark.slow
def test_each_arm_can_have_arguments_of_its_own(tmp_path: Path):
    made = run(tmp_path, task_with("{arm_args}"), arguments="--fault crash --only 'somebody else'")
    assert made.outcome is not None
    with pytest.raises(UserError, match="no data on the disk"):
        run(tmp_path, task_with("{arm_args}"), arguments="--fault crash")


@pytest.mark.slow
def test_an_arms_settings_reach_command_and_name_of_the_run(tmp_path: Path):
    found = {}
    for decay in (1.0, 4.0):
        task, settings = task_with("--decay {decay} {arm_args}"), {"decay": decay, "pause": 0.001}
        made = run(tmp_path, task, arguments="--pause {pause}", settings=settings)
        assert dict(made.spec.arm.settings) == settings
        found[made.spec.run_id] = made.final_loss
    losses = list(found.values())
    assert losses[1] - losses[0] == pytest.approx(0.05)  # by the formula, two octaves off


FAULTS = [
    ("--fault crash", ["ended with status 1: no data on the disk", "log.txt"]),
    ("--fault exit-255", ["ended with status 255: training ours"]),
    ("--fault memory", ["ended by signal 9 (out of memory?): training ours"]),
    ("--fault no-valid", ["no validation loss", "'valid_loss'", "known: loss, step"]),
    ("--fault early", ["should take 20 steps", "is of step 17", "evaluate after the last"]),
    ("--fault step-tokens", ["'tokens' is 7 at step 1 and 7 at step 20", 'tokens_key = "" and']),
    ("--wrong", ["ended with status 2: ", "unrecognized arguments: --wrong"]),
]


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("extra", "parts"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_of_the_command_gives_one_line(tmp_path: Path, extra: str, parts: list[str]):
    with pytest.raises(UserError) as error:
        run(tmp_path, task_with(extra))
    assert "\n" not in str(error.value)
    assert spec_of(task_with(extra)).run_id in str(error.value)
    for part in parts:
        assert part in str(error.value)


CURVES = [
    (dict(loss_key="trian_loss"), ["no training loss: no row has 'trian_loss'", "task.loss_key"]),
    (dict(loss_key="losses"), ["no training loss: no row has 'losses'", "did you mean 'loss'"]),
]


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("options", "parts"), CURVES)
def test_a_training_loss_under_a_wrong_name_is_named(
    tmp_path: Path, options: dict[str, object], parts: list[str]
):
    with pytest.raises(UserError) as error:
        run(tmp_path, task_with(**options))
    for part in parts:
        assert part in str(error.value)


def test_no_training_loss_may_be_asked_for(tmp_path: Path):
    made = run(tmp_path, task_with(loss_key=""))
    assert made.final_loss is not None
    assert not any("loss" in row for row in made.rows)


def test_nan_in_a_row_with_a_good_loss_is_no_divergence(tmp_path: Path):
    made = run(tmp_path, task_with("--fault gaps"), steps=20)
    assert made.outcome is not None
    assert made.outcome.status == "finished"


def test_a_program_that_cannot_be_started_says_so(tmp_path: Path):
    command = COMMAND.replace("{python} trainer.py", "./absent-{optimizer}")
    task = CommandPlan(command=command, folder=str(FOLDER))
    with pytest.raises(UserError, match=r"status 127: \./absent-ours cannot be started: No such"):
        run(tmp_path, task)


@pytest.mark.slow
def test_missing_metric_is_reported_with_the_names_present(tmp_path: Path):
    with pytest.raises(UserError, match=r"there are no rows; set task\.metrics"):
        run(tmp_path, task_with(metrics="metrics.csv"))
    with pytest.raises(UserError, match=r"no row has 'eval_loss'; known: loss, .*valid_loss"):
        run(tmp_path, task_with(valid_key="eval_loss"))
    with pytest.raises(UserError, match="a row has a loss but no 'global_step'"):
        run(tmp_path, task_with(step_key="global_step"))


@pytest.mark.parametrize("fault", ["nan", "nan-crash"])
def test_a_loss_that_is_no_number_ends_the_run_as_diverged(tmp_path: Path, fault: str):
    made = run(tmp_path, task_with(f"--fault {fault}"))
    assert made.outcome is not None
    assert (made.outcome.status, made.outcome.steps) == ("diverged", 5)
    assert made.outcome.reason == "training loss nan at step 5"
    assert made.final_loss is None


def test_what_an_interrupted_try_left_is_not_read_again(tmp_path: Path):
    task = task_with("--fault no-valid", metrics="*.jsonl")
    old = tmp_path / "runs" / spec_of(task).run_id / "job" / "old.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text('{"step": 20, "valid_loss": 0.1}\n')
    with pytest.raises(UserError, match="no validation loss"):
        run(tmp_path, task)
    assert not old.exists()


def test_fingerprint_covers_the_command_and_the_files_it_names(tmp_path: Path):
    def fingerprint(text: str, command: str = COMMAND) -> str:
        (tmp_path / "trainer.py").write_text(text)
        task = CommandPlan(command=command, folder=str(tmp_path))
        return Command(task, tmp_path, 1).fingerprint

    assert fingerprint("a = 1") == fingerprint("a = 1")
    assert fingerprint("a = 1") != fingerprint("a = 2")
    assert fingerprint("a = 1") != fingerprint("a = 1", COMMAND + " --more")


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (COMMAND.replace("trainer.py", "trainor.py"), ["trainor.py does not exist"]),
        (COMMAND.replace("{python}", "no-such-program"), ["'no-such-program' is neither on the"]),
    ],
)
def test_what_is_not_there_is_named_before_anything_runs(command: str, parts: list[str]):
    task = CommandPlan(command=command, folder=str(FOLDER))
    with pytest.raises(UserError) as error:
        Command(task, FOLDER, 1).check()
    for part in parts:
        assert part in str(error.value)
    by_arm = "{optimizer}.sh" + COMMAND.removeprefix("{python} trainer.py")
    for good in (COMMAND, by_arm + " {optimizer}"):
        Command(CommandPlan(command=good, folder=str(FOLDER)), FOLDER, 1).check()


@pytest.mark.slow
def test_steps_are_told_while_the_command_runs(tmp_path: Path):
    task, seen = task_with("--pause 0.3"), list[int]()
    spec = spec_of(task)
    writer = RunWriter(tmp_path / "runs", spec, {})
    Command(task, tmp_path, 1).run(spec, writer, seen.append)
    writer.close()
    assert seen == sorted(seen)
    assert seen[-1] == 20
    assert any(0 < step < 20 for step in seen)


ALONE = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.support.command_runs import run, task_with
run(Path({out!r}), task_with("--fault child --pause 0.05"), steps=100000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_and_its_children_end_with_whoever_ran_it(tmp_path: Path, number: int):
    code = ALONE.format(root=str(ROOT), out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    found: list[Path] = []

    def child_is_known() -> bool:
        found[:] = [p for p in tmp_path.glob("runs/*/job/child") if p.read_text()]
        return bool(found)

    wait_until(child_is_known)
    child = int(found[0].read_text())
    assert alive(child)
    process.send_signal(number)
    process.wait()
    wait_until(lambda: not alive(child))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in a minute"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
