"""Hand-made layouts of DTensors: whatever the mesh, a step is that of the whole tensors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import pytest
import torch

from tests.support.distributed import layouts, work
from tests.support.distributed.ranks import Ranks

Of = Callable[[int], Ranks]


@pytest.mark.slow_but_one(among=9)
@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("rule", work.RULES)
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_any_layout_steps_like_the_whole(
    layout: str, rule: str, correction: str, ranks: Of
) -> None:
    options = {"rule": rule, "correction": correction, "gamma": 0.1, "lr": 1e-2}
    options["optimize_1d"] = rule in ("adamw", "lion")
    ranks(4).run(layouts.steps_like_whole, layout, torch.float64, 1e-12, options)


@pytest.mark.parametrize(
    ("rule", "backend"),
    [
        ("adamw", {"fused": True}),
        *itertools.product(work.RULES, [{"foreach": True}, {"foreach": False}]),
    ],
    ids=str,
)
def test_every_backend_takes_shards(rule: str, backend: dict[str, bool], ranks: Of) -> None:
    ranks(2).run(layouts.steps_like_whole, "rows", torch.float64, 1e-12, {"rule": rule, **backend})


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("adamw", {"amsgrad": True}),
        *itertools.product(work.RULES, [{"maximize": True}, {"clip": None}, {"gamma": 0.0}]),
        *itertools.product(work.RULES, [{"cautious": True, "clip_over": "global"}]),
    ],
    ids=str,
)
def test_options_mean_the_same_for_shards(rule: str, options: dict, ranks: Of) -> None:
    ranks(2).run(layouts.steps_like_whole, "rows", torch.float64, 1e-12, {"rule": rule, **options})


@pytest.mark.slow_but_one(among=6)
@pytest.mark.parametrize("backend", [{}, {"foreach": False}], ids=str)
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_clip_over_all_tensors_sees_the_whole_of_each(
    layout: str, backend: dict[str, bool], ranks: Of
) -> None:
    options = {"rule": "adamw", "clip": 0.5, "clip_over": "global", "lr": 1e-2, "gamma": 0.1}
    ranks(4).run(layouts.steps_like_whole, layout, torch.float64, 1e-12, {**options, **backend})


@pytest.mark.parametrize("rule", ["adamw", "lion"])
def test_bfloat16_shards_with_float32_state_step_like_the_whole(rule: str, ranks: Of) -> None:
    options = {"rule": rule, "state_dtype": torch.float32, "lr": 1e-2}
    ranks(4).run(layouts.steps_like_whole, "rows", torch.bfloat16, 2**-8, options)


@pytest.mark.parametrize("rule", ["shampoo", "muon"])
def test_sharded_bf16_newton_schulz_differs_only_by_rounding(rule: str, ranks: Of) -> None:
    options = {"rule": rule, "lr": 1e-2}
    ranks(4).run(layouts.steps_like_whole, "rows", torch.float32, 1e-4, options)


@pytest.mark.parametrize("layout", ["rows", "columns", "rows in pairs, repeated"])
def test_norms_of_all_tensors_take_one_collective(layout: str, ranks: Of) -> None:
    for count in ranks(4).run(layouts.count_work, layout, "adamw"):
        assert count == {"all_reduce": 1, "all_to_all": 0, "newton_schulz": 0}


def test_newton_schulz_is_divided_among_the_processes(ranks: Of) -> None:
    counts = ranks(4).run(layouts.count_work, "rows", "muon")
    assert sorted(c["newton_schulz"] for c in counts) == [1, 1, 1, 2]
    assert all(c["all_to_all"] == 2 and c["all_reduce"] == 1 for c in counts)


def test_elementwise_rule_on_replicated_tensors_sends_nothing(ranks: Of) -> None:
    for count in ranks(2).run(layouts.count_work, "repeated", "adamw"):
        assert count == {"all_reduce": 0, "all_to_all": 0, "newton_schulz": 0}


@pytest.mark.parametrize(
    ("layout", "world"), [("repeated", 2), ("rows in pairs, repeated", 4)], ids=str
)
def test_newton_schulz_is_divided_among_replicas_too(layout: str, world: int, ranks: Of) -> None:
    counts = [c["newton_schulz"] for c in ranks(world).run(layouts.count_work, layout, "muon")]
    assert sum(counts) == 5  # every matrix once
    assert max(counts) < 5


def test_gradients_that_are_still_partial_sums_are_summed(ranks: Of) -> None:
    ranks(2).run(layouts.takes_partial_gradients)


@pytest.mark.parametrize("layout", ["rows", "columns", "rows in pairs, repeated"])
def test_variance_reduce_takes_shards(layout: str, ranks: Of) -> None:
    for norms in ranks(4).run(layouts.wrapped_steps_like_whole, layout):
        assert norms == 4  # one collective a step, for all tensors of the bucket


@pytest.mark.parametrize("layout", ["rows", "columns", "rows in pairs, repeated"])
def test_variance_reduce_masks_and_clips_shards_like_the_whole(layout: str, ranks: Of) -> None:
    options = {"cautious": True, "clip_over": "global"}
    for sums in ranks(4).run(
        functools.partial(layouts.wrapped_steps_like_whole, **options), layout
    ):
        assert sums == 8  # norms and shares, of all tensors at once
