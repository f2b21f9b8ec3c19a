"""A plan as a file, and as ``key=value`` changes to one."""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...toml import DEEPEST, parse_toml, read_toml
from .any_arm import is_any
from .arms import ARMS, Arm
from .plan import EXTERNAL, Plan
from .recipe import check_version
from .table import from_dict
from .task import GptPlan, of_kind
from .written import flat, plain, to_toml, toml_value

BUILT_IN: dict[str, Any] = {
    "comparison": {
        "seeds": [1, 2, 3, 4, 5, 6, 7, 8],
        "ladder": [0.5, 1.5],
        "ladder_seeds": 1,
        "rungs": "as-read",
        "trials_pair": True,
        "others": "after-go",
    },
    "decision": {"looks": "every-pair"},
}
"""The built-in plan, beside the defaults of each key: the cheapest decision at the same rates of
error (docs/statistics.md, "The default pilot")."""


def plan_of(out: Path) -> Path:
    """The plan that the runs in ``out`` follow; before the first run, the one that it offers."""
    adopted = out / "runs" / "plan.toml"
    return adopted if adopted.exists() else out / "plan.toml"


def load_plan(path: Path, overrides: tuple[str, ...] = ()) -> Plan:
    """Read a plan from TOML.

    Raises:
        UserError: with the file, the key, and what is allowed.
    """
    data = read_toml(path, "`mars pilot --init` writes one")
    try:
        plan = make_plan(data, overrides, path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return _with_departures(plan, data, path.parent) if overrides else plan


def _with_departures(plan: Plan, data: dict[str, Any], folder: Path) -> Plan:
    """With what was changed against a recipe's file written down in it."""
    try:
        recipe = make_plan(data, (), folder)
    except UserError:  # a file that is a plan only with what was set
        return plan
    if not recipe.recipe.title:
        return plan
    changed = dict.fromkeys((*plan.recipe.changed, *departures(recipe, plan)))
    return replace(plan, recipe=replace(plan.recipe, changed=tuple(changed)))


def make_plan(
    data: dict[str, Any], overrides: tuple[str, ...] = (), folder: Path | None = None
) -> Plan:
    """A plan from plain data and ``key=value`` overrides, the value in TOML.

    An arm's table may give only what differs from its published default.

    Args:
        data: as parsed from TOML.
        overrides: as given to ``--set``.
        folder: from where ``task.folder`` is reckoned (default: the working directory).
    """
    data = copy.deepcopy(data)
    recipe = data.get("recipe")
    if isinstance(recipe, dict) and "version" in recipe:
        check_version(recipe["version"])
    chosen = [text for text in overrides if text.partition("=")[0].strip() == "arms"]
    for text in chosen:
        override(data, text)
    if chosen:
        _leave_out_other_arms(data)
    for text in overrides:
        override(data, text)
    task = data.get("task", {})
    kind = task.get("kind", "gpt") if isinstance(task, dict) else None
    if isinstance(task, dict):
        data["task"] = task = of_kind(task)
        relative = task.get("folder", ".")
        if kind in ("python", "command") and isinstance(relative, str):
            task["folder"] = str((folder or Path.cwd()).joinpath(relative).resolve())
    tables = data.get("arm")
    if isinstance(tables, dict):
        for name, table in tables.items():
            if isinstance(table, dict):
                tables[name] = _arm_table(name, table, kind, folder or Path.cwd())
    return from_dict(Plan, data)


def _leave_out_other_arms(data: dict[str, Any]) -> None:
    """Drop what a file says of arms that are not asked for."""
    arms = data.get("arms")
    if not isinstance(arms, list):
        return
    for table in ("arm", "published", "ours"):
        if isinstance(data.get(table), dict):
            data[table] = {name: part for name, part in data[table].items() if name in arms}


def _arm_table(name: str, table: dict[str, Any], kind: object, folder: Path) -> dict[str, Any]:
    """With its published defaults; of a class by its name, with the folder where it may lie."""
    any_class = is_any(str(table.get("optimizer", "")))
    table = {**({} if any_class else _arm_defaults(name, kind)), **table}
    if (kind == "command" or any_class) and "lr" not in table:
        raise UserError(f"arm.{name} needs the key 'lr', at which its tuning starts")
    lies = table.get("folder", ".")
    if any_class and isinstance(lies, str):
        table["folder"] = str(folder.joinpath(lies).resolve())
    return table


def _arm_defaults(name: str, kind: object) -> dict[str, Any]:
    if kind in EXTERNAL:
        return {"optimizer": "external", **({"lr": ARMS[name].lr} if name in ARMS else {})}
    return asdict(ARMS[name]) if name in ARMS else {}


def override(data: dict[str, Any], text: str) -> None:
    """Apply one ``key=value`` to plain data, in place.

    Raises:
        UserError: if it is not of that form, or leads into a value.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r} must be KEY=VALUE, such as training.steps=400")
    try:
        parsed = parse_toml(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    except ValueError as error:
        raise UserError(f"--set {text[:40]!r}...: {error}") from None
    *tables, last = key.strip().split(".")
    if len(tables) >= DEEPEST:
        raise UserError(f"--set {text[:40]!r}...: a key must have at most {DEEPEST} names")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {text!r}: {table!r} is a value, not a table")
    data[last] = parsed


def plan_toml(plan: Plan) -> str:
    """The plan as a TOML file with comments, which :func:`load_plan` reads back equal."""
    head = (
        "# A plan for `mars pilot`: does MARS pay on this task?\n"
        "# Everything is decided here, before the first run. Any key may be left out.\n\n"
    )
    return head + to_toml(plan)


def built_in_plan(overrides: tuple[str, ...] = ()) -> Plan:
    """The plan of `mars pilot` without a file.

    Args:
        overrides: as given to ``--set``.

    Raises:
        UserError: naming what the built-in plan sets, where only that stands in the way.
    """
    try:
        arms = {name: {"lr": lr} for name, lr in _starts(make_plan(BUILT_IN, overrides)).items()}
        return make_plan({**BUILT_IN, "arm": arms}, overrides)
    except UserError as error:
        try:
            make_plan({}, overrides)
        except UserError:
            raise error from None
        sets = ", ".join(f"{key} = {toml_value(value)}" for key, value in flat(BUILT_IN).items())
        raise UserError(f"{error} (the built-in plan has {sets}; --set changes each)") from None


PUBLISHED_WIDTH = 768
"""Width of GPT-2 small, whose rates are the published ones of AdamW and NAdam."""


def _starts(plan: Plan) -> dict[str, float]:
    """Where tuning starts on the built-in text: the published rate, carried by 1 / width (muP)."""
    if not isinstance(plan.task, GptPlan):
        return {}
    arms = {name: ARMS[name] for name in ("adamw", "nadamw") if name in plan.arm}
    factor = PUBLISHED_WIDTH / plan.task.width
    return {n: a.lr * factor for n, a in arms.items() if plan.arm[n].optimizer == a.optimizer}


def differences(a: Plan, b: Plan) -> list[str]:
    """The keys in which two plans differ, as ``key: a's value, b's value``.

    Where the job is found does not count.
    """
    rows_a, rows_b = (flat(plain(p)) for p in (a, b))
    keys = sorted(key for key in rows_a.keys() | rows_b.keys() if not _is_place(key))
    return [
        f"{k}: {rows_a.get(k)}, {rows_b.get(k)}" for k in keys if rows_a.get(k) != rows_b.get(k)
    ]


def _is_place(key: str) -> bool:
    """Whether it says where the job or an arm's optimizer lies on this machine."""
    return bool(re.fullmatch(r"task\.folder|arm\.[^.]+\.folder", key))


TOLD = ("recipe.", "published.", "ours.")
"""Tables that say what is known, and decide nothing."""

_DO_NOT_COUNT = {"task.folder", "task.corpus", "training.eval_tokens", "training.evaluations"}


def departures(recipe: Plan, plan: Plan) -> list[str]:
    """Where a plan made out of a recipe departs from it, so that its result may be another one.

    Where the data lie, evaluations, and another cut of a step into micro-batches do not count.

    Returns:
        One ``key = value (recipe: value)`` each, of ``task``, ``training`` and the plan's arms.
    """
    before, after = (flat(plain(p)) for p in (recipe, plan))
    passed_over = set(_DO_NOT_COUNT)
    steps = [getattr(p.task, "batch", 1) * p.training.accumulation for p in (recipe, plan)]
    if steps[0] == steps[1]:
        passed_over |= {"task.batch", "training.accumulation"}
    counted = ("task.", "training.", *(f"arm.{name}." for name in plan.arms))
    return [
        f"{key} = {toml_value(value)} (recipe: {toml_value(before.get(key, 'none'))})"
        for key, value in after.items()
        if key.startswith(counted) and key not in passed_over and before.get(key) != value
    ]


def overrides(plan: Plan) -> list[str]:
    """The ``--set`` values that make ``plan`` out of the built-in one; not what recipes tell."""
    known = flat(plain(make_plan(BUILT_IN)))
    for name, arm in plan.arm.items():
        if is_any(arm.optimizer):
            default: Any = Arm(optimizer=arm.optimizer)
            rows = {k: v for k, v in plain(default).items() if k not in ("optimizer", "lr")}
            known |= flat(rows, f"arm.{name}.")
        elif name in ARMS:
            known |= flat(plain(ARMS[name]), f"arm.{name}.")
    known |= {f"arm.{name}.lr": lr for name, lr in _starts(plan).items()}
    changed = {
        key: value
        for key, value in flat(plain(plan)).items()
        if known.get(key) != value and not (key.startswith(TOLD) or _is_place(key))
    }
    return [f"{key}={toml_value(value)}" for key, value in changed.items()]
