"""Pilots on a real SLURM cluster of one node, disturbed in every way: `make test-slurm`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

MARS = [sys.executable, "-m", "mars_optim"]
SMALL = {
    "arms": '["adamw", "mars-adamw"]',
    "training.steps": "60",
    "training.eval_tokens": "1024",
    "training.evaluations": "2",
    "task.context": "16",
    "task.width": "16",
    "task.heads": "1",
    "task.layers": "1",
    "task.batch": "4",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 1.5]",
    "comparison.others": "always",
    "decision.looks": "once",
    "tuning.trials": "1",
    "tuning.max_trials": "1",
}
TIMINGS = {"seconds", "tokens_per_second", "optimizer_share"}
SLOW = """
import json, sys, time
steps, out = int(sys.argv[1]), sys.argv[2]
time.sleep(0 if steps < 20 else 600)
with open(out + "/metrics.jsonl", "w") as file:
    file.write(json.dumps(dict(step=steps, valid_loss=2.0, seconds=0.01 * steps)))
"""


class Pilot:
    """``mars pilot`` on one folder, here or on the cluster."""

    def __init__(self, out: Path, cluster: Cluster, **options: str) -> None:
        self.out, self.cluster, self.options = out, cluster, options
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *more: str) -> subprocess.Popen[str]:
        sets = [w for key, value in self.options.items() for w in ("--set", f"{key}={value}")]
        with (self.out.parent / f"{self.out.name}.txt").open("a") as log:
            process = subprocess.Popen(
                [*MARS, "pilot", "--out", str(self.out), *sets, *more],
                env=self.cluster.environment | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)
        return process

    def run(self, *more: str) -> int:
        return self.start(*more).wait(timeout=800)

    @property
    def said(self) -> str:
        return (self.out.parent / f"{self.out.name}.txt").read_text()

    def begun(self) -> list[Path]:
        """Runs under way: they have rows, and no outcome."""
        rows = self.out.glob("runs/*/rows.jsonl")
        return [path.parent for path in rows if path.parent not in self.finished()]

    def finished(self) -> list[Path]:
        manifests = self.out.glob("runs/*/manifest.json")
        return [m.parent for m in manifests if json.loads(m.read_text())["outcome"]]

    def bits(self) -> dict[str, list[object]]:
        """Every number of every run that does not depend on the machine's speed."""
        found = {}
        for run in self.finished():
            rows = [json.loads(row) for row in (run / "rows.jsonl").read_text().splitlines()]
            kept = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
            outcome = json.loads((run / "manifest.json").read_text())["outcome"]
            found[run.name] = [outcome["final_loss"], kept]
        return found

    def failures(self) -> list[str]:
        files = self.out.glob("runs/*/failures.jsonl")
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [json.loads(line)["reason"] for line in lines]


@pytest.fixture
def new_pilot(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Pilot]]:
    """Makes pilots whose drivers end with the test."""
    made: list[Pilot] = []

    def new(name: str, **options: str) -> Pilot:
        made.append(Pilot(tmp_path / name, cluster, **options))
        return made[-1]

    yield new
    for process in [process for pilot in made for process in pilot.processes]:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(
        "It was the best of times, it was the worst of times; so much for that. " * 4000
    )
    return json.dumps(str(path))


QUEUE = ("--executor", "slurm", "--workers", "3", "--executor-option", "mem_gb=1")


def wait_for(condition: Callable[[], object], pilot: Pilot, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, pilot.said
        time.sleep(0.05)


def test_disturbed_slurm_pilot_equals_the_local_pilot_bitwise(
    cluster: Cluster, corpus: str, new_pilot: Callable[..., Pilot]
):
    options = SMALL | {"task.corpus": corpus}
    local = new_pilot("local", **options)
    assert local.run("--workers", "1") == 0, local.said

    queued = new_pilot("queued", **options)
    driver = queued.start(*QUEUE)
    wait_for(queued.begun, queued)
    driver.kill()
    driver.wait()
    assert cluster.jobs(), "jobs outlive their driver"

    driver = queued.start(*QUEUE)
    wait_for(lambda: len(queued.finished()) > 2, queued)
    wait_for(cluster.jobs, queued)
    cancelled = max(cluster.jobs(), key=int)
    cluster.ask("scancel", cancelled)

    wait_for(lambda: f"its job {cancelled} was cancelled" in queued.said, queued)
    cluster.stop_controller()
    time.sleep(5)
    cluster.start_controller()
    assert driver.wait(timeout=600) == 0, queued.said

    assert queued.bits() == local.bits()
    assert queued.failures() == [f"its job {cancelled} was cancelled"], "it counts once"
    assert "waits in the queue (" in queued.said


def test_disturbed_slurm_trunks_equal_the_local_ones_bitwise(
    cluster: Cluster, corpus: str, new_pilot: Callable[..., Pilot]
):
    options = SMALL | {"task.corpus": corpus, "training.steps": "1500"}
    options |= {"training.decay": "wsd", "training.trunk": "true", "comparison.ladder_seeds": "0"}
    options |= {"comparison.rungs": "always", "comparison.trials_pair": "false"}
    local = new_pilot("local", **options)
    assert local.run("--workers", "1") == 0, local.said

    queued = new_pilot("queued", **options)

    def trunks(runs: list[Path]) -> list[Path]:
        return [run for run in runs if "-trunk" in run.name]

    driver = queued.start(*QUEUE)
    wait_for(lambda: trunks(queued.begun()) and cluster.jobs(), queued)
    cancelled = max(cluster.jobs(), key=int)
    cluster.ask("scancel", cancelled)
    wait_for(lambda: f"its job {cancelled} was cancelled" in queued.said, queued)
    wait_for(lambda: trunks(queued.finished()), queued)
    driver.kill()
    driver.wait()
    assert queued.run(*QUEUE) == 0, queued.said

    assert queued.bits() == local.bits()
    assert sum("-trunk" in name for name in local.bits()) == 4, "two arms, two seeds"
    assert queued.failures() == [f"its job {cancelled} was cancelled"], "it counts once"


def test_a_mistake_in_the_options_is_one_line(new_pilot: Callable[..., Pilot]):
    for option, words in (
        ("partition=nowhere", "partition=NAME"),
        ("gres=gpu:1", "gpus_per_node or gres"),
        ("mem_gb=90000", "mem_gb"),
    ):
        pilot = new_pilot(option.partition("=")[0])
        assert pilot.run("--executor", "slurm", "--executor-option", option) == 2
        *_, line = pilot.said.splitlines()
        assert len(pilot.said.splitlines()) <= 2, pilot.said
        assert line.startswith("mars: error: sbatch takes no job (")
        assert words in line


def test_run_at_the_queue_time_limit_is_named_and_not_retried(
    new_pilot: Callable[..., Pilot], tmp_path: Path
):
    (tmp_path / "train.py").write_text(SLOW)
    plan = tmp_path / "plan.toml"
    command = "{python} train.py {steps} {run_dir} # {optimizer} {lr} {seed}"
    plan.write_text(
        f"""
arms = ["a", "b"]
[task]
kind = "command"
command = '{command}'
[comparison]
baseline = "a"
candidate = "b"
ladder = [0.5, 1.5]
[training]
steps = 100
[tuning]
trials = 1
max_trials = 1
[arm.a]
lr = 0.1
[arm.b]
lr = 0.1
"""
    )
    pilot = new_pilot("pilot")
    limit = ("--executor-option", "timeout_min=1")
    assert pilot.run("--plan", str(plan), *QUEUE, *limit) == 3, pilot.said
    assert len(pilot.failures()) == 2, "one for each arm"
    for reason in pilot.failures():
        assert "reached the queue's time limit of 1 minutes: raise it by" in reason
