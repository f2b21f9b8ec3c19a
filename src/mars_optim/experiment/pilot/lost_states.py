"""Trunks that are run again, as a branch of theirs was lost after its state had been removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..plan import RunSpec
from ..records import Run
from ..records.run import CHECKPOINTS, branch_point, ended_before


def trunks_without_states(
    runs: Path, ready: Iterable[RunSpec], trunks: Mapping[str, Run]
) -> set[str]:
    """Ids of finished trunks that no longer hold the state that a branch has still to start from.

    A state is removed once its branch has finished, so a branch that is lost later lacks it.

    Args:
        runs: folder of all runs.
        ready: runs that have still to start; those that are no branches are passed over.
        trunks: finished runs by id, among them the trunks that are looked at.
    """
    return {
        spec.trunk
        for spec in ready
        if (trunk := trunks.get(spec.trunk)) and trunk.outcome
        if not ended_before(trunk.outcome, spec) and not branch_point(runs, spec).exists()
    }


def make_way(runs: Path, trunk: str, say: Callable[[str], None]) -> None:
    """Make way for a trunk that is run from its first step, so that it saves every state again.

    A run that has an outcome is never computed again, so its manifest is set aside.
    """
    shutil.rmtree(runs / trunk / CHECKPOINTS, ignore_errors=True)
    os.replace(runs / trunk / "manifest.json", runs / trunk / "manifest.json.old")
    say(f"{runs / trunk}: a branch lacks the state that it starts from, so the trunk is repeated")
