"""Parts of the effect, and its growth with the model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, t

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.analysis.size_trend import line_slope, trend
from mars_optim.experiment.analysis.sizes import SizeResult
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.plan.sizes import SizePlan
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.report import Messages
from mars_optim.experiment.report.sections import cause
from mars_optim.files import write_text
from tests.support.designed_pilot import designed_plan, write_designed
from tests.support.runs_by_hand import PLAN, comparison_losses, law, write_comparison, write_run
from tests.support.written_pilot import write_pilot

ABLATED = replace(PLAN, comparison=replace(PLAN.comparison, ablations=True))
GAINS = {  # log tokens over adamw, by seed 1, 2, 3
    "mars-adamw-plain": (0.02, -0.01, 0.05),
    "mars-adamw-no-clip": (0.12, 0.12, 0.15),
    "mars-adamw-clip-only": (0.05, 0.05, 0.06),
    "mars-adamw-baseline-betas": (0.1, 0.1, 0.2),
}


@pytest.fixture
def ablated(tmp_path: Path) -> Path:
    write_comparison(tmp_path, comparison_losses())
    write_text(tmp_path / "plan.toml", plan_toml(ABLATED))
    for arm, gains in GAINS.items():
        for seed, gain in zip((1, 2, 3), gains, strict=True):
            write_run(tmp_path, arm, law(seed, gain), seed=seed, plan=ABLATED)
    return tmp_path


def test_the_parts_sum_to_the_candidates_effect(ablated: Path):
    found = analyse(ablated)
    assert [p.cause for p in found.parts] == ["settings", "correction", "clip"]
    means = [p.log_ratio.mean for p in found.parts]
    assert means == pytest.approx([0.02, 0.11, 0.12])
    assert found.candidate.log_ratio is not None
    assert sum(means) == pytest.approx(found.candidate.log_ratio.mean)


def test_each_part_is_paired_over_seeds(ablated: Path):
    correction = analyse(ablated).parts[1]
    assert (correction.before, correction.after) == ("mars-adamw-plain", "mars-adamw-no-clip")
    expected = t_interval([0.10, 0.13, 0.10], 0.95)
    assert correction.log_ratio.low == pytest.approx(expected.low)
    assert correction.log_ratio.n == 3


def test_a_part_whose_arm_is_missing_is_left_out(tmp_path: Path):
    write_comparison(tmp_path, comparison_losses())
    assert analyse(tmp_path).parts == ()


def test_holm_adjustment_covers_all_contrasts_but_the_verdicts(ablated: Path):
    found = analyse(ablated).contrasts
    names = [a for a in ABLATED.arms if a not in ("adamw", "mars-adamw")]
    assert [(c.arm, c.against) for c in found] == [(a, "adamw") for a in names] + [
        ("mars-adamw", a) for a in names
    ]
    judged = [(c.p, c.p_holm) for c in found if c.p is not None and c.p_holm is not None]
    assert len(judged) == len(found)
    assert all(p_holm >= p for p, p_holm in judged)
    assert min(p for _, p in judged) == pytest.approx(len(found) * min(p for p, _ in judged))


def test_contrast_resting_on_bounds_is_a_bound_without_p_value(ablated: Path):
    for seed in (1, 2, 3):  # all beyond the ladder: equal bounds, which do not spread
        write_run(ablated, "mars-adamw-no-clip", law(seed, 3.0), seed=seed, plan=ABLATED)
    found = {(c.arm, c.against): c for c in analyse(ablated).contrasts}
    beyond = found["mars-adamw-no-clip", "adamw"]
    assert (beyond.bound, beyond.p, beyond.p_holm) == ("at least", None, None)
    assert found["mars-adamw", "mars-adamw-no-clip"].bound == "at most"
    assert found["mars-adamw", "mars-adamw-plain"].p is not None
    shown = cause.section(analyse(ablated), Messages("en"))
    (table,) = [block for block in shown.blocks if "p, adjusted" in str(block)]
    row = next(row for row in table.rows if row[0].text.startswith("mars-adamw-no-clip against"))
    assert row[1].text.startswith("≥ ")
    assert (row[1].detail, row[2].text) == ("", "")


def size(parameters: int, ratios: list[float], name: str = "x") -> SizeResult:
    return SizeResult(
        name=name,
        parameters=parameters,
        tokens=1,
        log_ratio=t_interval(ratios, 0.95),
        ratios=tuple(ratios),
        control=None,
        at_edge=(),
        diverged=0,
        bounds=frozenset(),
        missing=0,
    )


def test_another_length_of_a_size_does_not_bend_the_trend():
    sizes = [size(10**5, [0.1, 0.12]), size(10**6, [0.2, 0.21])]
    longer = size(10**5, [0.4, 0.5], "long")
    assert trend([*sizes, longer], 0.95) == trend(sizes, 0.95)


def test_the_slope_and_its_interval_are_scipys_regression():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=12), rng.normal(size=12)
    ours, theirs = line_slope(list(zip(x, y, strict=True)), 0.95), linregress(x, y)
    half = t.ppf(0.975, 10) * theirs.stderr
    assert ours.mean == pytest.approx(theirs.slope)
    assert (ours.low, ours.high) == pytest.approx((theirs.slope - half, theirs.slope + half))


@pytest.mark.slow
def test_slope_interval_over_sizes_covers_truth_at_its_level():
    rng, hits, repeats = np.random.default_rng(1), 0, 2000
    sizes = (10**5, 4 * 10**5, 16 * 10**5)
    for _ in range(repeats):
        found = trend(
            [size(p, list(0.1 - 0.03 * math.log(p) + rng.normal(0, 0.05, 3))) for p in sizes], 0.95
        )
        assert found is not None
        assert found.between is not None
        hits += found.slope.low <= -0.03 <= found.slope.high
    assert abs(hits / repeats - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / repeats)


def test_lr_choice_at_one_size_shifts_and_widens_the_slope():
    small, large = size(100, [0.1, 0.2]), size(400, [0.3, 0.4])
    at_these_rates, better = trend([small, large], 0.95), trend([small, moved(large, 0.1)], 0.95)
    assert at_these_rates is not None
    assert better is not None
    per_e = 0.1 / math.log(4)
    assert better.slope.mean == pytest.approx(at_these_rates.slope.mean + per_e)
    open_ = trend([small, replace(large, choice=(-0.5, 0.5))], 0.95)
    assert open_ is not None
    assert open_.slope.high - open_.slope.low > at_these_rates.slope.high - at_these_rates.slope.low
    three = [size(100 * 4**i, [0.1 * i, 0.1 * i + 0.02]) for i in range(3)]
    found = trend([*three[:2], moved(three[2], 0.1)], 0.95)
    assert found is not None
    assert found.between is not None
    assert found.between.mean == pytest.approx(found.slope.mean)


def moved(result: SizeResult, by: float) -> SizeResult:
    return replace(result, choice=(by,))


def test_a_doubling_is_log_two_of_the_slope():
    found = trend([size(100, [0.1, 0.2]), size(400, [0.3, 0.4])], 0.95)
    assert found is not None
    assert found.per_doubling().mean == pytest.approx(0.1)


def test_two_sizes_give_no_between_size_slope_and_one_no_trend():
    found = trend([size(100, [0.1, 0.2]), size(400, [0.3, 0.4])], 0.95)
    assert found is not None
    assert found.between is None
    assert trend([size(100, [0.1, 0.2, 0.3])], 0.95) is None
    assert trend([], 0.95) is None
    assert trend([size(100, [0.1]), size(200, [0.2])], 0.95) is None


def test_three_sizes_show_how_far_they_are_from_a_line():
    straight = trend([size(100 * 4**i, [0.1 * i, 0.1 * i + 0.02]) for i in range(3)], 0.95)
    bent = trend([size(100 * 4**i, [0.1 * i**3, 0.1 * i**3 + 0.02]) for i in range(3)], 0.95)
    assert straight is not None
    assert bent is not None
    assert straight.between is not None
    assert bent.between is not None
    assert straight.between.low == pytest.approx(straight.between.high)
    assert bent.between.high - bent.between.low > 1


def test_a_folder_with_sizes_gives_the_effect_at_each(tmp_path: Path):
    write_comparison(tmp_path, comparison_losses())
    plan = replace(PLAN, scale={"wide": SizePlan(width=128)})
    write_text(tmp_path / "plan.toml", plan_toml(plan))
    wide = replace(plan, task=plan.sizes()[1].task, scale={})
    for (arm, seed, budget), loss in comparison_losses().items():
        doubled = law(seed, 0.1) if arm == "mars-adamw" else loss
        write_run(tmp_path, arm, doubled, seed=seed, budget=budget, plan=wide)
    found = analyse(tmp_path)
    assert [s.name for s in found.sizes] == ["main", "wide"]
    assert [s.log_ratio.mean for s in found.sizes] == pytest.approx([0.25, 0.1])
    assert found.sizes[1].control is not None
    assert found.candidate.log_ratio is not None
    assert found.candidate.log_ratio.mean == pytest.approx(0.25)  # the verdict is the plan's own
    assert found.totals.missing == 0
    assert found.trend is None  # one number of parameters only: these runs say 1000 each


def test_runs_missing_at_another_size_do_not_delay_the_verdict(tmp_path: Path):
    write_comparison(tmp_path, comparison_losses())
    plan = replace(PLAN, scale={"wide": SizePlan(width=128)})
    write_text(tmp_path / "plan.toml", plan_toml(plan))
    found = analyse(tmp_path)
    assert found.totals.missing == 15
    assert found.verdict.decision == "go"


def settings_told(out: Path, **overrides: str) -> str:
    """The report's words on the candidate's other settings, after a sure saving."""
    write_pilot(out, speedup=1.3, **overrides)
    analysis = analyse(out)
    assert analysis.verdict.decision == "go"
    return cause.settings_note(analysis, Messages("en"))


def test_a_go_names_the_candidates_other_settings(tmp_path: Path):
    told = settings_told(tmp_path / "published")
    assert "betas (0.95, 0.99) for (0.9, 0.95); weight decay 0.01 for 0.1." in told
    assert "--ablations" in told
    decay = settings_told(tmp_path / "decay", **{"arm__mars-adamw__betas": "[0.9, 0.95]"})
    assert "than adamw: weight decay 0.01 for 0.1." in decay


@pytest.mark.parametrize(
    "overrides",
    [
        {"comparison__candidate": '"nadamw"'},  # AdamW's own settings
        {  # AdamW itself with the candidate's
            "arms": '["adamw", "long", "mars-adamw"]',
            "arm__long__optimizer": '"torch-adamw"',
            "arm__long__betas": "[0.95, 0.99]",
            "arm__long__weight_decay": "0.01",
            "arm__long__gamma": "0.0",
            "arm__long__clip": "0.0",
        },
        {"comparison__ablations": "true"},  # runs that tell
    ],
)
def test_no_settings_are_named_where_none_differ_or_runs_tell(
    tmp_path: Path, overrides: dict[str, str]
):
    assert settings_told(tmp_path, **overrides) == ""


def test_tuned_settings_are_told_as_they_were_compared(tmp_path: Path):
    write_designed(tmp_path, designed_plan(over='["lr", "weight_decay"]'), speedup=1.5)
    analysis = analyse(tmp_path)
    decays = {
        run.spec.arm_name: run.spec.arm.weight_decay
        for run in read_runs(tmp_path / "runs")
        if run.spec.purpose == "compare"
    }
    for name, decay in decays.items():
        assert analysis.arm(name).settings.weight_decay == decay
        assert analysis.arm(name).arm.weight_decay != decay  # the plan's
    told = cause.settings_note(analysis, Messages("en"))
    assert f"weight decay {decays['mars-adamw']:g} for {decays['adamw']:g}" in told


def test_no_settings_are_named_without_a_go(tmp_path: Path):
    write_pilot(tmp_path, speedup=0.8)
    assert cause.settings_note(analyse(tmp_path), Messages("en")) == ""
