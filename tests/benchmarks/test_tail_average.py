"""A tail average is the mean of the weights over the last part of a budget."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.tail_average import (
    BASELINE,
    RUNGS,
    TAILS,
    Run,
    TailAverages,
    due,
    key,
    loss_with,
    rows_of,
)
from benchmarks.tail_average import saving as saving_of
from tests.support.paths import ROOT


def test_an_average_is_the_mean_over_its_part_of_the_budget() -> None:
    model, averages, weights = nn.Linear(3, 2), TailAverages(40), []
    for step in range(1, 61):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        weights.append([p.detach().double().clone() for p in model.parameters()])
        averages.add(step, model)
        for form, share in TAILS.items() if step in averages.ends else ():
            last = weights[step - round(share * step) :]
            for got, *tail in zip(averages.mean(step, form), *last, strict=True):
                torch.testing.assert_close(got, torch.stack(tail).mean(0))
    assert sorted(averages.ends.values()) == sorted(RUNGS)


def test_judging_an_average_leaves_the_weights_to_the_bit() -> None:
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    seen = []

    def evaluate(model: nn.Module, tokens: int) -> float:
        seen.append([p.detach().clone() for p in model.parameters()])
        return 2.0

    task = SimpleNamespace(model=model, evaluate=evaluate)
    ones = [torch.ones_like(p) for p in model.parameters()]
    assert loss_with(task, ones, 10) == 2.0  # type: ignore[arg-type]
    assert all(torch.equal(x, y) for x, y in zip(seen[0], ones, strict=True))
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("form", ["linear", "tail 20 %"])
def test_savings_are_read_off_the_ladders_of_one_form(form: str) -> None:
    def loss(tokens: float) -> float:  # of the baseline
        return 2.0 - 0.3 * math.log(tokens)

    linear, faster = form == "linear", 1.25
    losses: dict[str, dict[str, float]] = {}
    for arm, by in ((BASELINE, 1.0), ("mars-adamw", faster)):
        for budget in RUNGS:
            run = Run(arm, linear, budget if linear else max(RUNGS), 0.01, 1)
            losses.setdefault(key(run), {})[f"{form}/{budget}"] = loss(by * budget)
    rates = dict.fromkeys((BASELINE, "mars-adamw"), 0.01)
    log = saving_of(losses, form, "mars-adamw", rates, 1)
    assert log == pytest.approx(math.log(faster), abs=0.01)


def test_the_kept_losses_give_the_table_of_the_lab_log() -> None:
    kept = json.loads((ROOT / "docs/studies/next/tail-average.json").read_text())
    assert due(kept) == []
    log = (ROOT / "docs/lab-log.md").read_text()
    table = log[log.index("| schedule-free AdamW |") - 2500 :]
    assert [loss for _, _, _, loss, *_ in rows_of(kept) if f"| {loss} |" not in table] == []
