"""Spec of one run, in full: two runs with equal specs are the same run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any

from .arms import Arm
from .table import Number, Whole, from_dict, table
from .task import TaskPlan
from .training import TrainingPlan

FIRST_KEYS = {
    "arm": "optimizer rule lr betas weight_decay gamma clip correction".split(),
    "task": "corpus context layers width heads batch".split(),
    "training": (
        "steps warmup decay accumulation grad_clip eval_tokens evaluations precision".split()
    ),
}
"""Keys that have always been in a run's name. Later ones join it only where they are not at their
default, so that finished runs keep their names as keys are added."""


@table
class RunSpec:
    """One training run, from (task, optimizer, learning rate, seed, steps) to a number.

    Args:
        purpose: why it is run: "tune", "trunk", "compare" or "ladder". Not part of its identity.
        arm_name: name of the optimizer in the plan.
        arm: its settings.
        lr: peak learning rate.
        seed: of initialisation and batches; equal seeds see equal data from equal weights.
        steps: optimizer steps, over which the schedule decays to zero.
        task: what is trained.
        training: how (its ``steps`` is the plan's unit budget, not this run's).
        data: hash of the data.
        branches: of a trunk, the steps whose state it leaves for branches, rising; it ends at the
            last one, and does not decay.
        trunk: of a branch, the id of the trunk whose state it starts from; else empty.
    """

    purpose: str
    arm_name: str
    arm: Arm
    lr: Number
    seed: Whole
    steps: Whole
    task: TaskPlan
    training: TrainingPlan
    data: str
    branches: tuple[Whole, ...] = ()
    trunk: str = ""

    @property
    def start(self) -> int:
        """Steps that a branch takes over from its trunk; 0 of other runs."""
        return self.training.decay_start(self.steps) if self.trunk else 0

    @property
    def work(self) -> int:
        """Steps that the run takes itself."""
        return self.steps - self.start

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> RunSpec:
        """The inverse of :meth:`to_dict`."""
        return from_dict(cls, data, "spec")

    @property
    def run_id(self) -> str:
        """Folder name: readable, and ending in a hash of everything that defines the run."""
        return _run_id(self)


@functools.lru_cache(maxsize=4096)  # an agenda asks again and again
def _run_id(spec: RunSpec) -> str:
    identity = spec.to_dict()
    del identity["purpose"]
    for key in ("branches", "trunk"):
        if not identity[key]:
            del identity[key]
    for key, first in FIRST_KEYS.items():
        part = getattr(spec, key)
        for f in dataclasses.fields(part):
            value = getattr(part, f.name)
            if not f.compare or (f.name not in first and value == f.default):
                del identity[key][f.name]
            elif value is None:
                identity[key][f.name] = f.metadata["none"]
    if spec.task.kind != "gpt":  # the first kind's runs do not name it
        identity["task"]["kind"] = spec.task.kind
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    kind = "-trunk" if spec.branches else ""
    return f"{spec.arm_name}{kind}-lr{spec.lr:.3g}-seed{spec.seed}-steps{spec.steps}-{digest}"
