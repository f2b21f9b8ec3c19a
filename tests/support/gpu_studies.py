"""Tiny texts and plans for the tests of the GPU study."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_study import state
from benchmarks.gpu_study.plan import StudyPlan, load
from benchmarks.gpu_study.runs import Limit
from benchmarks.gpu_study.study import go_on
from mars_optim.experiment.data import TokenOptions, prepare_tokens
from mars_optim.experiment.data.sources import find_sources
from tests.support.texts import texts, write_jsonl

FOREVER = Limit(float("inf"))


def tiny_text(folder: Path) -> Path:
    """DATA of a few thousand bytes as tokens."""
    source = write_jsonl(folder / "text.jsonl", texts())
    options = TokenOptions(tokenizer="bytes", share=0.2)
    prepare_tokens(find_sources([str(source)])[0], folder / "data" / "tokens", options)
    return folder / "data"


def tiny_plan(*arms: str, **design: Any) -> StudyPlan:
    """The rehearsal's plan with a few arms."""
    plan = load(rehearse=True)
    few = {"timed": ("adamw",), "most_rates": 4, "seeds": 1, **design}
    kept = {name: plan.arms[name] for name in arms or ("adamw", "nadamw-auto")}
    return replace(plan, arms=kept, design=replace(plan.design, **few))


def looks(number: int) -> Limit:
    """A limit that is reached at so many looks at its clock."""
    ticks: Iterator[int] = itertools.count(1)
    return Limit(number, clock=lambda: next(ticks))


def call(
    plan: StudyPlan, data: Path, out: Path, *, limit: Limit = FOREVER, scratch: Path | None = None
) -> tuple[bool, state.State]:
    """One call, and the state that it left."""
    scratch = scratch or out / "under-way"
    lines: list[str] = []
    done = go_on(plan, data, out, scratch=scratch, limit=limit, rehearsal=True, echo=lines.append)
    return done, state.read(out)


def numbers(found: state.State) -> dict[str, Any]:
    """Numbers of the runs that do not depend on the machine's speed."""
    keys = ("status", "final_loss", "tokens", "valid", "train")
    return {name: [run[key] for key in keys] for name, run in found["runs"].items()}
