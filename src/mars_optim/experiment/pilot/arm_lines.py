"""A pilot's lines on arms that name a class of optimizers: changed code, and findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from ..plan import Arm, Plan, RunSpec
from ..plan.any_arm import is_any
from ..plan.plan_file import load_plan, plan_of
from ..records import read_runs
from ..records.checks import ArmCheck

SOURCE = re.compile(r"arm\.[^.]+\.source: ")
"""Begins what :func:`~mars_optim.experiment.plan.plan_file.differences` says of one."""
_DIGEST = re.compile(r"(sha256 \w{8})\w+")


def resolve_arms(plan: Plan) -> Plan:
    """The plan with the source of each class that an arm names; torch is loaded for these only.

    Raises:
        UserError: naming the arm whose class cannot be used.
    """
    if not any(is_any(arm.optimizer) for arm in plan.arm.values()):
        return plan
    from ..training import with_sources

    return with_sources(plan)


def source_changes(given: Plan, plan: Plan, out: Path) -> list[str]:
    """A line for each arm whose optimizer's code is not what it was.

    Args:
        given: before :func:`resolve_arms`; it may come from elsewhere, with its sources.
        plan: after it.
        out: folder of the pilot, which may have runs.
    """
    path = plan_of(out)
    old = load_plan(path).arm if path.exists() else {}
    lines = []
    for name, arm in plan.arm.items():
        known = old.get(name) or given.arm[name]
        before = known.source or given.arm[name].source
        if before in ("", arm.source):
            continue
        runs = [r.spec for r in read_runs(out / "runs") if r.outcome]
        count = sum(r.arm_name == name and r.arm.source != arm.source for r in runs)
        text = f"arm.{name}: the code of {arm.optimizer} has changed: {before} before, "
        text += f"{arm.source} now"
        if count:
            text += f"; a run belongs to the code that made it, so {count} finished runs are "
            text += "repeated, unless you put the old code back"
        lines.append(escape(_DIGEST.sub(r"\1", text)))
    return lines


def new_run_line(spec: RunSpec, out: Path) -> str | None:
    """A line for a run that begins anew as its optimizer's code has changed; None without one.

    Args:
        spec: of the run.
        out: folder, which may hold the run of the code before.
    """

    def of_old_code(other: RunSpec) -> bool:
        arm = replace(other.arm, source=spec.arm.source, folder=spec.arm.folder)
        return other.arm.source not in ("", spec.arm.source) and replace(other, arm=arm) == spec

    found = [run for run in read_runs(out / "runs") if of_old_code(run.spec)]
    if not found:
        return None
    old = found[-1]
    name = spec.arm.optimizer
    text = f"arm.{spec.arm_name}: the code of {name} has changed: {old.spec.arm.source} before, "
    text += f"{spec.arm.source} now; another source is another run, so this one is new: "
    ended = "is finished" if old.outcome else "goes on"
    text += f"{old.path.name} {ended} with the old code put back into {_place(spec.arm)}"
    return escape(_DIGEST.sub(r"\1", text))


def _place(arm: Arm) -> str:
    """The file or the package that a class comes from."""
    where = arm.optimizer.rpartition(":")[0]
    return str(Path(arm.folder) / where) if where.endswith(".py") else where


def check_lines(checks: Mapping[str, ArmCheck]) -> list[str]:
    """A line for each arm that names a class: its source, and what the check found."""
    lines = []
    for name, check in checks.items():
        said = " ".join(text for _, text in check.found) or "nothing was found."
        lines.append(escape(f"arm.{name}: {check.optimizer} ({check.version}), checked: {said}"))
    return lines
