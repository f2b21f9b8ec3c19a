"""A ladder of the first seeds only: which runs are made, what they cost, how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import Run
from tests.support.pretend import Valley, carry_out, small_plan
from tests.support.results import baseline_with, candidate_with

WHOLE = small_plan(seeds=(1, 2, 3, 4))
FEW = replace(WHOLE, comparison=replace(WHOLE.comparison, ladder_seeds=2))


def noisy(plan: Plan, spec: RunSpec) -> float:
    """A valley, with a level of each seed and something that repeats of each run."""
    loss = Valley(plan)(spec)
    assert loss is not None
    own = hash((spec.arm_name == "adamw", spec.seed, spec.steps)) % 1000 / 1000 - 0.5
    better = 0.03 if spec.arm_name == "mars-adamw" else 0.0
    return loss + 0.1 * spec.seed + 0.005 * own - better


def result(plan: Plan, loss=None, changed: Callable[[Run], Run] = lambda run: run):
    runs = map(changed, carry_out(plan, loss or (lambda spec: noisy(plan, spec))).runs)
    at = comparison(plan, plan.sizes()[0], runs)
    assert at.missing == 0
    return arm_results(at, {})["mars-adamw"]


def test_only_the_first_seeds_have_rungs() -> None:
    ladder = carry_out(FEW, Valley(FEW)).purpose("ladder")
    assert {spec.seed for spec in ladder} == {1, 2}
    assert len(ladder) == 2 * len(FEW.ladder)
    assert len(carry_out(FEW, Valley(FEW)).purpose("compare")) == 4 * len(FEW.arms)


def test_the_price_counts_the_rungs_of_the_first_seeds_only() -> None:
    rungs = [
        [item.runs for item in price(plan, None, workers=1).items if item.purpose == "ladder"]
        for plan in (WHOLE, FEW)
    ]
    assert rungs == [[(8, 8)], [(4, 4)]]


def test_seeds_with_levels_are_read_as_on_their_own_ladders() -> None:
    whole, few = (result(plan, Valley(plan, {"mars-adamw": 0.3})) for plan in (WHOLE, FEW))
    assert [s.log_ratio for s in few.seeds] == pytest.approx([s.log_ratio for s in whole.seeds])
    assert few.slope == pytest.approx(whole.slope)
    assert few.ladder_error == pytest.approx(0.0, abs=1e-9)


def test_the_ladders_error_is_in_the_interval_and_only_there() -> None:
    whole, few = result(WHOLE), result(FEW)
    assert whole.ladder_error == 0.0
    assert few.ladder_error > 0.0
    assert few.log_ratio is not None
    assert few.log_ratio_here is not None
    assert few.log_ratio_here.mean == pytest.approx(fmean(s.log_ratio for s in few.seeds))
    assert few.log_ratio.rates >= 0.9 * few.ladder_error


@pytest.mark.parametrize(("ladder_error", "share"), [(0.0, 0.8), (0.1, 0.6), (0.2, None)])
def test_the_ladders_error_is_not_blamed_on_the_rates(
    ladder_error: float, share: float | None
) -> None:
    found = candidate_with([0.1, 0.3, 0.2, 0.2])
    assert found.log_ratio is not None
    interval = replace(found.log_ratio, sd=0.2, rates=0.2)
    candidate = replace(found, log_ratio=interval, ladder_error=ladder_error)
    reasons = {f.code: f.values for f in decide(FEW, baseline_with(), candidate, 0).reasons}
    told = reasons.get("reason.rates-dominate", {"share": None})["share"]
    assert told == (share and pytest.approx(share))


def test_a_seed_whose_baseline_diverged_is_not_read() -> None:
    def loss(spec: RunSpec) -> float | None:
        lost = spec.purpose == "compare" and (spec.arm_name, spec.seed) == ("adamw", 4)
        return None if lost else Valley(FEW)(spec)

    found = result(FEW, loss)
    assert [s.reading is None for s in found.seeds] == [False, False, False, True]


def test_no_pair_is_added_where_all_ladders_were_lost() -> None:
    plan = replace(FEW, decision=replace(FEW.decision, looks="every-pair"))

    def loss(spec: RunSpec) -> float | None:
        lost = (spec.purpose, spec.arm_name) == ("compare", "adamw") and spec.seed < 3
        return None if lost else noisy(plan, spec)

    compared = carry_out(plan, loss).purpose("compare")
    assert {spec.seed for spec in compared} == {1, 2, 3}


@pytest.mark.parametrize(
    "tokens",
    [
        lambda spec: spec.steps * (2 if spec.arm_name == "mars-adamw" else 1),
        lambda spec: 512 * spec.steps + spec.seed,
    ],
    ids=["by arm", "by seed"],
)
def test_tokens_that_differ_are_read_as_on_own_ladders(
    tokens: Callable[[RunSpec], int],
) -> None:
    def counted(run: Run) -> Run:
        assert run.outcome is not None
        return replace(run, outcome=replace(run.outcome, tokens=tokens(run.spec)))

    whole, few = (result(plan, Valley(plan, {"mars-adamw": 0.3}), counted) for plan in (WHOLE, FEW))
    ratios = [[s.log_ratio for s in found.seeds] for found in (whole, few)]
    assert ratios[1] == pytest.approx(ratios[0], abs=1e-3)
    assert few.slope == pytest.approx(whole.slope, rel=0.01)


def test_more_ladder_seeds_than_seeds_are_refused() -> None:
    with pytest.raises(UserError, match=r"ladder_seeds = 5 must .* from 1 to 4, the"):
        make_plan({"comparison": {"ladder_seeds": 5, "seeds": [1, 2, 3, 4]}})


def test_the_noise_of_one_ladder_is_taken_from_the_pairs() -> None:
    one = replace(WHOLE, comparison=replace(WHOLE.comparison, ladder_seeds=1))
    assert result(one).ladder_error > 0.0


def test_trunks_do_not_go_with_a_ladder_of_some_seeds() -> None:
    with pytest.raises(UserError, match=r"ladder_seeds = 2 does not go with training.trunk"):
        make_plan({"comparison": {"ladder_seeds": 2}, "training": {"trunk": True, "decay": "wsd"}})
