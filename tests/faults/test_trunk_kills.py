"""Killed in a trunk or in a branch, a pilot ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.test_queue import QUEUE, SMALL
from tests.support.hurt import Pilot, children_of, wait_for

TASK = """
import os
import time
import torch
from torch import nn


class Task:
    fingerprint = "slow regression"
    batch_tokens = 32

    def build_model(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))

    def batch(self, seed, step, micro):
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
        noise = torch.Generator().manual_seed(1 + seed + 100 * step)
        x = torch.randn(32, 3, generator=noise)
        return torch.cat([x, x.prod(dim=1, keepdim=True)], dim=1)

    def loss(self, model, batch):
        return 5.0 + (model(batch[:, :3]) - batch[:, 3:]).square().mean()  # none diverges

    @torch.no_grad()
    def evaluate(self, model, tokens):
        model.eval()
        loss = float(self.loss(model, self.batch(10**6, 0, 0)))
        model.train()
        return loss
"""
TRUNKS = {
    "training.decay": "wsd",
    "training.trunk": "true",
    "comparison.ladder_seeds": "0",
    "comparison.rungs": "always",
    "comparison.trials_pair": "false",
}
SETTINGS = TRUNKS | {
    "arms": '["adamw", "mars-adamw"]',
    "task.kind": "python",
    "task.source": "slow.py:Task",
    "training.steps": "20",
    "training.decay_share": "0.5",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 1.5]",
    "comparison.others": "always",
    "decision.looks": "once",
    "tuning.trials": "2",
    "tuning.max_trials": "2",
    "running.checkpoint_minutes": "1e-9",
}


class Trunks(Pilot):
    """``mars pilot`` with trunks on a task that takes as long as it is told to."""

    def go(self, seconds: float = 0.0) -> subprocess.Popen[str]:
        sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mars_optim",
                "pilot",
                "--out",
                self.out,
                "--workers",
                "1",
                *sets,
            ],
            cwd=self.out.parent,
            env=os.environ | {"STEP_SECONDS": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def whole(self) -> str:
        """Go on to the end; what was said."""
        process = self.go()
        stdout, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stdout + stderr
        return stdout

    def under_way(self, *, trunk: bool) -> list[Path]:
        """Runs that have a checkpoint and no outcome."""
        found = []
        for manifest in (self.out / "runs").glob("*/manifest.json"):
            data = json.loads(manifest.read_text())
            kind = data["spec"]["branches"] if trunk else data["spec"]["trunk"]
            if (
                kind
                and not data["outcome"]
                and list(manifest.parent.glob("checkpoints/step-*[0-9]"))
            ):
                found.append(manifest.parent)
        return found

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Step and loss of every row of every run."""
        found = {}
        for path in sorted((self.out / "runs").glob("*/rows.jsonl")):
            rows = map(json.loads, path.read_text().splitlines())
            found[path.parent.name] = [
                (r["step"], r.get("loss", r.get("valid_loss"))) for r in rows
            ]
        return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_in_trunks_and_branches_change_no_bit(tmp_path: Path):
    (tmp_path / "slow.py").write_text(TASK)
    undisturbed, pilot = Trunks(tmp_path / "undisturbed"), Trunks(tmp_path / "pilot")
    kept: dict[Path, int] = {}
    try:
        undisturbed.whole()
        pilot.out.mkdir()
        shutil.copy(undisturbed.out / "probe.json", pilot.out)
        for trunk, whose in ((True, "pilot"), (False, "worker")):
            process = pilot.go(seconds=0.15)
            wait_for(lambda trunk=trunk: pilot.under_way(trunk=trunk) != [], 400)
            kept |= {m: m.stat().st_mtime_ns for m in pilot.finished().values()}
            if whose == "worker":
                os.kill(children_of(process.pid)[-1], signal.SIGKILL)
            pilot.kill(process)
        pilot.whole()
    finally:
        undisturbed.end()
        pilot.end()
    assert pilot.losses() == undisturbed.losses()
    assert None not in pilot.losses().values()
    assert len(pilot.losses()) == 4 + 2 * (2 + 6)
    assert pilot.curves() == undisturbed.curves()
    assert kept
    for path, written in kept.items():
        assert path.stat().st_mtime_ns == written, "a finished run was computed again"
    assert not list(pilot.out.rglob("step-*")), "what no branch needs is not kept"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "how", [(), pytest.param(QUEUE, marks=pytest.mark.slow)], ids=["workers", "queue"]
)
def test_branches_wait_for_their_trunks(how: tuple[str, ...], pilot: Pilot):
    """The pretended job fails if its trunk has not finished, and is then tried again."""
    if how:
        pytest.importorskip("submitit")
    trunks = {key.replace(".", "__"): value for key, value in TRUNKS.items()}
    process = pilot.start(*how, workers=3, **SMALL, **trunks)
    stdout, stderr = process.communicate(timeout=800)
    assert process.returncode == 0, stdout + stderr
    assert len(pilot.computed()) == len(set(pilot.computed())) == 2 + 2 * (2 + 6)
    assert sum("-trunk-" in run for run in pilot.computed()) == 4


@pytest.mark.timeout(600)
def test_a_branch_that_is_lost_has_its_trunk_made_again(pilot: Pilot):
    """The pretended job saves no states: they are gone, as those of finished branches are."""
    settings = {key.replace(".", "__"): value for key, value in TRUNKS.items()}
    assert pilot.run(**SMALL, **settings).returncode == 0
    before, made = pilot.losses(), len(pilot.computed())
    branch, manifest = next(found for found in pilot.finished().items() if "steps5-" in found[0])
    trunk = json.loads(manifest.read_text())["spec"]["trunk"]
    manifest.write_text('{"spec')
    done = pilot.run(**SMALL, **settings)
    assert done.returncode == 0, done.stderr
    assert f"{trunk}: a branch lacks the state that it starts from" in done.stdout
    assert pilot.computed()[made:] == [trunk, branch]
    assert pilot.losses() == before
