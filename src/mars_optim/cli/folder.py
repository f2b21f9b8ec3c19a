"""Stage that a folder has reached, from a script to production; read in milliseconds."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from ..experiment.pilot.liveness import STATES, STATUS, State, read_status, state_of
from ..files import read_json
from ..toml import read_toml

MOST = 500
"""Entries of a folder that are looked at."""

READ = 200_000
"""Characters of a script that are searched for an optimizer."""

_OPTIMIZER = re.compile(
    r"\b(?:optim\.\w+|(?:MARS)?(?:AdamW?|Lion|Shampoo|M)|MARS|SGD|Muon|Adafactor)\(\s*"
    r"[\w.]*(?:param|model|net)|\bmars_optim\.create\("
)
_PLAN_KEYS = {"arms", "task", "training", "comparison", "tuning", "decision", "arm"}
_RUNS_KEYS = {"files", "charts", "columns", "baseline", "run"}

Verdict = Literal["go", "no-go", "not-enough-runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPilot:
    """A pilot's folder.

    Args:
        folder: as it is named on the command line.
        state: by its status.json.
        share: of its steps that are done, if known.
        runs: done and planned, if known.
        verdict: of verdict.json; None without one.
        sentence: of the verdict.
        not_yet: why a go is no switch yet, as verdict.json says; else empty.
        by_hand: whether the canary that comes next has no command.
        canary_done: whether a canary within the folder says go on.
        damaged: a line on what cannot be read; empty if all can.
        time: of its last word, seconds since the epoch.
    """

    folder: str
    state: State = "waiting"
    share: float | None = None
    runs: tuple[int, int] | None = None
    verdict: Verdict | None = None
    sentence: str = ""
    not_yet: str = ""
    by_hand: bool = False
    canary_done: bool = False
    damaged: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCanary:
    """A canary's folder; ``recommendation`` is empty while it has no result."""

    folder: str
    recommendation: str = ""
    sentence: str = ""
    damaged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Contents of a folder, as far as they matter for the next step.

    Args:
        unreadable: why the folder cannot be read; empty if it can.
        scripts: Python files that build an optimizer.
        plans: plans that no pilot has begun.
        mappings: files that say which existing run is which.
        pilots: those that have begun.
        canaries: those that have begun.
        damaged: lines on files that cannot be read.
    """

    unreadable: str = ""
    scripts: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    mappings: tuple[str, ...] = ()
    pilots: tuple[FoundPilot, ...] = ()
    canaries: tuple[FoundCanary, ...] = ()
    damaged: tuple[str, ...] = ()


def look(folder: Path) -> Found:
    """Read a folder and the folders in it."""
    try:
        files, folders = _entries(folder)
    except OSError as error:
        return Found(unreadable=error.strerror or str(error))
    own = [folder] if (folder / STATUS).is_file() or (folder / "runs").is_dir() else []
    scripts: list[str] = []
    plans: list[str] = []
    mappings: list[str] = []
    damaged: list[str] = []
    pilots: list[FoundPilot] = []
    canaries: list[FoundCanary] = []
    for path in files:
        if path.suffix == ".py" and _builds_optimizer(path):
            scripts.append(path.name)
        elif path.suffix == ".toml" and not own:
            kind, wrong = _kind_of_toml(path)
            {"plan": plans, "runs": mappings, "": []}[kind].append(path.name)
            damaged += [wrong] if wrong else []
    for path in (*own, *folders):
        name = "." if path == folder else path.name
        if (path / "canary.json").is_file() or _is_begun_canary(path):
            canaries.append(_canary(path, name))
        elif (path / "plan.toml").is_file():
            if (path / STATUS).is_file() or (path / "runs").is_dir() or _verdict_file(path):
                pilots.append(_pilot(path, name))
            else:
                kind, wrong = _kind_of_toml(path / "plan.toml")
                plans += [str(Path(name, "plan.toml"))] if kind == "plan" else []
                damaged += [wrong] if wrong else []
    return Found(
        scripts=tuple(scripts),
        plans=tuple(sorted(plans, key=lambda name: (name != "plan.toml", name))),
        mappings=tuple(mappings),
        pilots=tuple(pilots),
        canaries=tuple(canaries),
        damaged=tuple(damaged),
    )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders by name, hidden ones left out."""
    with os.scandir(folder) as entries:
        found = [e for e, _ in zip(entries, range(MOST), strict=False) if e.name[0] != "."]
    paths = sorted((Path(folder, e.name), e.is_dir()) for e in found)
    return [p for p, is_dir in paths if not is_dir], [p for p, is_dir in paths if is_dir]


def _builds_optimizer(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _OPTIMIZER.search(file.read(READ)) is not None
    except OSError:
        return False


def _kind_of_toml(path: Path) -> tuple[Literal["plan", "runs", ""], str]:
    """Kind of file, and what is wrong with a plan that cannot be read."""
    try:
        keys = set(read_toml(path, ""))
    except UserError as error:
        return "", str(error) if path.name == "plan.toml" else ""
    if path.name == "plan.toml" or len(keys & _PLAN_KEYS) > 1:
        return "plan", ""
    return ("runs" if path.name == "runs.toml" or len(keys & _RUNS_KEYS) > 1 else ""), ""


def _is_begun_canary(path: Path) -> bool:
    return path.name.startswith("mars-canary") and (path / "runs").is_dir()


def _verdict_file(path: Path) -> bool:
    return (path / "verdict.json").is_file()


def _pilot(path: Path, folder: str) -> FoundPilot:
    status, damaged = read_status(path), ""
    if (path / STATUS).is_file() and status.get("state") not in STATES:
        status, damaged = {}, f"{Path(folder, STATUS)} is damaged"
    verdict, wrong = _object(path / "verdict.json", Path(folder, "verdict.json"))
    decision = verdict.get("verdict")
    share, runs = status.get("share"), (status.get("done_runs"), status.get("planned_runs"))
    known = isinstance(runs[0], int) and isinstance(runs[1], int)
    return FoundPilot(
        folder=folder,
        state=state_of(status),
        share=share if isinstance(share, float | int) else None,
        runs=runs if known else None,  # type: ignore[arg-type]
        verdict=decision if decision in ("go", "no-go", "not-enough-runs") else None,
        sentence=str(verdict.get("sentence", "")),
        not_yet=_not_yet(verdict.get("action")),
        by_hand=_by_hand(verdict.get("next_step")),
        canary_done=_is_production(verdict.get("next_step")),
        damaged=damaged or wrong,
        time=max(_time(path / STATUS), _time(path / "verdict.json"), _time(path / "plan.toml")),
    )


def _not_yet(action: Any) -> str:
    """The line that says what to do, where that is not to switch."""
    if not isinstance(action, dict) or action.get("kind") != "do-not-switch":
        return ""
    return str(action.get("text", ""))


def _is_production(stage: Any) -> bool:
    return isinstance(stage, dict) and stage.get("key") == "production"


def _by_hand(stage: Any) -> bool:
    """Whether the next stage is a canary that `mars` cannot run."""
    if not isinstance(stage, dict) or stage.get("key") != "canary":
        return False
    return not str(stage.get("command", "mars")).startswith("mars")


def _canary(path: Path, folder: str) -> FoundCanary:
    result, wrong = _object(path / "canary.json", Path(folder, "canary.json"))
    return FoundCanary(
        folder=folder,
        recommendation=str(result.get("recommendation", "")),
        sentence=str(result.get("sentence", "")),
        damaged=wrong,
    )


def _object(path: Path, name: Path) -> tuple[dict[str, Any], str]:
    """A JSON object, empty if there is none, and what is wrong with the file."""
    if not path.is_file():
        return {}, ""
    try:
        data = read_json(path)
    except UserError:
        data = None
    return (data, "") if isinstance(data, dict) else ({}, f"{name} is damaged")


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
