"""gamma="auto" of sharded parameters: the choice of the single process, at next to no messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.distributed import gammas, layouts
from tests.support.distributed.ranks import Ranks

Of = Callable[[int], Ranks]

MESSAGES = {  # groups of processes that cut tensors
    "repeated": 0,
    "rows over both dimensions": 2,
    "rows and columns": 2,
    "FSDP over tensor parallel": 2,
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_any_layout_chooses_gamma_like_the_whole(layout: str, ranks: Of) -> None:
    options: dict[str, Any] = {"rule": "adamw", "gamma": "auto", "lr": 1e-2, "optimize_1d": True}
    arguments = (layout, torch.float64, 1e-9, gammas.STEPS, options)
    for messages in ranks(4).run(gammas.chosen_like_whole, *arguments):
        assert messages == MESSAGES.get(layout, 1) * gammas.STEPS // 10


@pytest.mark.slow
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("rule", ["muon", "shampoo"])
def test_any_layout_chooses_gamma_of_matrices_like_the_whole(
    rule: str, layout: str, ranks: Of
) -> None:
    options: dict[str, Any] = {"rule": rule, "gamma": "auto", "lr": 1e-3}
    ranks(4).run(gammas.chosen_like_whole, layout, torch.float64, 1e-9, gammas.STEPS, options)


@pytest.mark.slow
@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("rule", ["adamw", "lion", "muon", "shampoo"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_any_rule_chooses_gamma_like_the_whole(
    rule: str, dtype: torch.dtype, rtol: float, world: int, ranks: Of
) -> None:
    options: dict[str, Any] = {"rule": rule, "gamma": "auto", "lr": 1e-3}
    steps = gammas.STEPS
    if dtype == torch.float32 and rule not in ("adamw", "lion"):
        rtol, steps = 1e-2, 60  # Newton-Schulz rounds to bfloat16
    ranks(world).run(gammas.chosen_like_whole, "rows", dtype, rtol, steps, options)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("capturable", [False, True])
def test_least_error_of_shards_is_that_of_the_whole(capturable: bool, ranks: Of) -> None:
    options: dict[str, Any] = {"gamma_schedule": "least_error", "correction": "folded"}
    options |= {"capturable": capturable, "lr": torch.tensor(1e-3)}
    ranks(2).run(gammas.chosen_like_whole, "columns", torch.float64, 1e-9, 60, options)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [*gammas.SHARDED, "DDP"])
def test_a_model_trains_with_the_gamma_of_one_process(shard: str, ranks: Of) -> None:
    world = 2 if shard == "DDP" else 4
    ranks(world).run(gammas.trains_like_one_process, shard, "adamw", torch.float64, 1e-9)


def test_ranks_without_gradients_or_elements_hold_nobody_up(ranks: Of) -> None:
    found = ranks(4).run(gammas.goes_on_without_some_gradients)
    assert all(abs(gamma - 0.1) > 1e-4 for gammas_of_rank in found for gamma in gammas_of_rank)


@pytest.mark.slow
@pytest.mark.parametrize("at", [25, 30])
def test_a_resumed_run_has_the_gamma_of_the_one_that_went_on(
    at: int, ranks: Of, tmp_path: Path
) -> None:
    arguments = (str(tmp_path / "saved"), "adamw", at, 61)
    went_on = ranks(4).run(gammas.save_and_go_on, *arguments)
    resumed = ranks(4).run(gammas.resume, *arguments)
    assert resumed[0][0] == went_on[0][0]
    assert all(torch.equal(a, b) for a, b in zip(went_on[0][1], resumed[0][1], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_gamma_goes_on_in_another_number_of_processes(
    before: int, after: int, ranks: Of, tmp_path: Path
) -> None:
    arguments = (str(tmp_path / "saved"), "adamw", 25, 61)
    went_on = ranks(before).run(gammas.save_and_go_on, *arguments)
    resumed = ranks(after).run(gammas.resume, *arguments)
    assert resumed[0][0] == pytest.approx(went_on[0][0], rel=1e-9)
    assert went_on[0][0][0] != 0.025


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 4)])
def test_a_run_of_the_pilot_goes_on_with_its_gamma(
    before: int, after: int, ranks: Of, tmp_path: Path
) -> None:
    folder = str(tmp_path / "saved")
    (gammas_then, weights, memory), *_ = ranks(before).run(gammas.save_by_names, folder, 25, 61)
    found = ranks(after).run(gammas.resume_by_names, folder, 25, 61, memory)
    assert found[0][0] == pytest.approx(gammas_then, rel=1e-9)
    if before == after:
        assert found[0][0] == gammas_then
        assert all(torch.equal(a, b) for a, b in zip(weights, found[0][1], strict=True))
