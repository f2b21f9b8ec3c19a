"""The tables of docs/recipes.md, out of the recipes: ``python -m docs.figures.recipes``."""

from __future__ import annotations

import re
from pathlib import Path

from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.plan.task import GptPlan

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes.md"
GPT_ARMS = (
    *("adamw", "muon", "mars-adamw", "mars-adamw-exact", "mars-lion"),
    *("moonlight", "mars-m"),
)


def tables(folder: Path = ROOT / "recipes") -> str:
    """Both tables: losses of GPT-2 by recipe, and of CIFAR by arm."""
    plans = {path.name: load_plan(path) for path in sorted(folder.glob("*.toml"))}
    gpts = {name: plan.task for name, plan in plans.items() if isinstance(plan.task, GptPlan)}
    by_size = sorted(gpts, key=lambda name: (gpts[name].corpus, gpts[name].layers))
    gpt = {name: plans[name] for name in by_size}
    images = {name: plan for name, plan in plans.items() if plan.task.kind == "images"}
    return f"{_gpt_table(gpt)}\n\n{_images_table(images)}"


def _gpt_table(plans: dict[str, Plan]) -> str:
    rows = [["recipe", *(f"`{arm}`" for arm in GPT_ARMS)]]
    for name, plan in plans.items():
        cells = [_loss(plan, arm) for arm in GPT_ARMS]
        rows.append([f"[{name}](../recipes/{name})", *cells])
    return _markdown(rows)


def _loss(plan: Plan, arm: str) -> str:
    """Published loss, and the learning rate that it belongs to."""
    if arm not in plan.arms:
        return ""
    known, rate = plan.published[arm], f"{plan.arm[arm].lr:g}"
    star = "\\*" if known.settings == "ours" else ""
    return f"{f'{known.loss:.3f}' if known.loss is not None else '-'} ({rate}{star})"


def _images_table(plans: dict[str, Plan]) -> str:
    head = ["arm", *(f"[{name}](../recipes/{name})" for name in plans)]
    arms = list(next(iter(plans.values())).arms)
    rows = [head]
    for arm in arms:
        known = [plan.published[arm] for plan in plans.values()]
        rows.append([f"`{arm}`", *(f"{k.loss:.3f}, {k.accuracy:.2f} %" for k in known)])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def with_tables(page: str) -> str:
    """The page with its tables made again."""
    begin, end = "<!-- tables: python -m docs.figures.recipes -->", "<!-- end of tables -->"
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{tables()}\n{end}",
        page,
        flags=re.S,
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
