"""The main job, in real processes: from nothing to a verdict, stopped and taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_pilot import MARS, Pilot


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened in two minutes"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_pilot_ends_with_a_verdict_and_its_files(undisturbed: Pilot) -> None:
    stdout = (undisturbed.out / "stdout.txt").read_text()
    assert f"Report: {undisturbed.out / 'report.html'}" in stdout
    assert undisturbed.verdict()["sentence"] in " ".join(stdout.split())
    assert undisturbed.verdict()["verdict"] in ("go", "no-go", "not-enough-runs")
    for name in ("plan.toml", "report.html", "report.md", "verdict.json", "probe.json"):
        assert (undisturbed.out / name).stat().st_size > 0
    assert (undisturbed.out / "stderr.txt").read_text() == ""


def test_progress_names_every_run_and_estimates_the_time_left(undisturbed: Pilot) -> None:
    stdout = (undisturbed.out / "stdout.txt").read_text()
    lines = [line for line in stdout.splitlines() if ": loss " in line]
    assert len(lines) == len(undisturbed.finished())
    assert all("gone, about" in line for line in lines)
    assert [int(line.split("/")[0]) for line in lines] == list(range(1, len(lines) + 1))


def test_every_arm_gets_the_same_number_of_trials(undisturbed: Pilot) -> None:
    specs = [json.loads(m.read_text())["spec"] for m in undisturbed.finished().values()]
    trials = [s["arm_name"] for s in specs if s["purpose"] == "tune"]
    counts = {arm: trials.count(arm) for arm in ("adamw", "nadamw", "mars-adamw")}
    assert len(set(counts.values())) == 1
    assert 2 <= counts["adamw"] <= 3


@pytest.mark.slow
def test_the_same_command_again_repeats_nothing(undisturbed: Pilot, tmp_path: Path) -> None:
    before = {m: m.stat().st_mtime_ns for m in undisturbed.finished().values()}
    verdict = undisturbed.verdict()
    done = undisturbed.run()
    assert done.returncode == 0, done.stderr
    assert f"All {len(before)} runs are done" in done.stdout
    assert {m: m.stat().st_mtime_ns for m in undisturbed.finished().values()} == before
    assert undisturbed.verdict() == verdict


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_numbers(
    undisturbed: Pilot, new_pilot: Callable[[], Pilot]
) -> None:
    pilot = new_pilot()
    pilot.options["running.checkpoint_minutes"] = "1e-3"  # every few steps
    for kills in range(3):
        process = pilot.start()
        wait_until(lambda n=kills: len(pilot.finished()) > 2 * n, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = {m: m.stat().st_mtime_ns for m in pilot.finished().values()}
    done = pilot.run()
    assert done.returncode == 0, done.stderr
    assert kept.items() <= {m: m.stat().st_mtime_ns for m in pilot.finished().values()}.items()
    assert pilot.losses() == undisturbed.losses()
    assert pilot.verdict()["tokens_saved"] == undisturbed.verdict()["tokens_saved"]


@pytest.mark.slow
def test_workers_end_with_a_killed_pilot(new_pilot: Callable[[], Pilot]) -> None:
    pilot = new_pilot()
    process = pilot.start()
    wait_until(lambda: bool(pilot.finished()), process)
    children = children_of(process.pid)
    assert children
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its pilot"
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_stops_with_one_line_and_status_130(new_pilot: Callable[[], Pilot]) -> None:
    pilot = new_pilot()
    process = pilot.start()
    wait_until(lambda: bool(pilot.finished()), process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout.splitlines()[-1].startswith("Stopped. Finished runs are kept")
    assert stderr == ""


@pytest.mark.slow
def test_a_second_pilot_on_the_same_folder_is_refused(new_pilot: Callable[[], Pilot]) -> None:
    pilot = new_pilot()
    process = pilot.start()
    try:
        wait_until(lambda: (pilot.out / "plan.toml").exists(), process)
        second = pilot.run()
        assert second.returncode == 2
        assert second.stderr.startswith("mars: error: another pilot is running in")
        assert len(second.stderr.splitlines()) == 1
    finally:
        process.kill()
        process.communicate()


def test_another_plan_in_the_same_folder_is_refused(undisturbed: Pilot) -> None:
    done = undisturbed.run(**{"training.steps": "13"})
    assert done.returncode == 2
    assert "training.steps: 12, 13 now" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_added_seeds_only_add_their_runs_and_are_noted(
    undisturbed: Pilot, new_pilot: Callable[[], Pilot]
) -> None:
    pilot = new_pilot()
    shutil.copytree(undisturbed.out, pilot.out)
    before = pilot.losses()
    done = pilot.run(**{"comparison.seeds": "[1, 2, 3]"})
    assert done.returncode == 0, done.stderr
    after = pilot.losses()
    assert before.items() <= after.items()
    assert len(after) == len(before) + 3  # three arms; only the first two seeds have rungs
    assert "comparison.seeds" in (pilot.out / "report.html").read_text()
    assert pilot.verdict()["amendments"]


@pytest.mark.slow
def test_a_report_of_an_unfinished_pilot_says_what_is_missing(
    undisturbed: Pilot, new_pilot: Callable[[], Pilot]
) -> None:
    pilot = new_pilot()
    shutil.copytree(undisturbed.out, pilot.out)
    of_candidate = (m for r, m in pilot.finished().items() if r.startswith("mars-adamw-lr"))
    manifest = next(m for m in of_candidate if "seed2" in m.parent.name)
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "outcome": None}))
    done = subprocess.run(
        [*MARS, "report", str(pilot.out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert pilot.verdict()["verdict"] == "not-enough-runs"
    assert "the comparison still lacks 1 run" in pilot.verdict()["sentence"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_folder_that_cannot_be_used_gives_one_line(tmp_path: Path, corpus: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = Pilot(blocked, corpus).run()
    assert done.returncode == 2
    assert done.stderr.startswith(f"mars: error: --out {blocked} cannot be used")


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


@pytest.mark.slow
def test_missing_corpus_gives_one_line_and_leaves_no_plan(
    new_pilot: Callable[[], Pilot],
) -> None:
    pilot = new_pilot()
    done = pilot.run(**{"task.corpus": '"nowhere.txt"'})
    assert done.returncode == 2
    assert done.stderr.startswith("mars: error: task.corpus = 'nowhere.txt' does not exist")
    assert len(done.stderr.splitlines()) == 1
    assert not (pilot.out / "plan.toml").exists()  # so that the mended command is no other plan
