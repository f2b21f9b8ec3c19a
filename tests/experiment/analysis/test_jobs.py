"""Several pilots: jobs that an arm loses count, and bounds are said as what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import ArmResult
from mars_optim.experiment.analysis.arm_model import TargetResult
from mars_optim.experiment.analysis.jobs import Job, Jobs, jobs_of, together
from mars_optim.experiment.analysis.profiles import Profile, comparable
from mars_optim.experiment.report.messages import LANGS, Messages
from tests.experiment.analysis.test_stages import CLEAR, LOSS, analysis_of
from tests.support.results import Bound, baseline_with, candidate_at, candidate_with
from tests.support.written_pilot import write_pilot

ABOVE = candidate_with([-0.7, -0.7, -0.7], ["at most"] * 3)
DIVERGED = candidate_with([0.1, 0.2, 0.3], diverged=1)


def jobs_with(*candidates: ArmResult) -> Jobs:
    """Jobs 0, 1 and so on, each with the baseline and one of these."""
    made = [Job(str(i), Path(str(i)), analysis_of(arm)) for i, arm in enumerate(candidates)]
    return together(tuple(made))


def profile_of(found: Jobs, name: str) -> Profile:
    return next(p for p in found.profiles if p.arm == name)


def to_target(kind: str, bound: Bound) -> ArmResult:
    """The candidate with times to a target that one arm missed."""
    told = TargetResult(
        runs=3,
        reached=3,
        kind=kind,
        tokens=1.0,
        steps=1.0,
        seconds=None,
        curve=(),
        missed=(),
    )
    return replace(candidate_with([0.2] * 3, [bound] * 3), target=told)


@pytest.mark.parametrize("loser", [ABOVE, DIVERGED])
def test_a_job_that_the_candidate_loses_counts(loser: ArmResult) -> None:
    found = jobs_with(candidate_at(*CLEAR), candidate_at(*LOSS), loser)
    mine, base = (profile_of(found, name) for name in ("mars-adamw", "adamw"))
    assert mine.over == base.over == ("0", "1", "2")
    assert (mine.share(1.05), *mine.ends(1.05)) == (1 / 3, 1 / 3, 1 / 3)
    assert (base.share(1.05), *base.ends(1.05)) == (2 / 3, 2 / 3, 2 / 3)
    alone = base.at("2")
    assert alone is not None
    assert (alone.tau, alone.limits(0.95)) == (1.0, (1.0, 1.0))


def test_an_arm_that_runs_alone_is_no_jobs_best() -> None:
    one = candidate_with([0.3])  # one pair has no interval
    assert not comparable((baseline_with(), one))
    assert not comparable((replace(baseline_with(), diverged=1), DIVERGED))
    assert comparable((replace(baseline_with(), diverged=1), candidate_at(*CLEAR)))


def test_a_pilot_with_all_seeds_above_its_ladder_counts(tmp_path: Path) -> None:
    write_pilot(tmp_path / "won", speedup=1.3)
    write_pilot(tmp_path / "lost", speedup=0.2, arms="['adamw', 'mars-adamw']")
    found = jobs_of([tmp_path / "won", tmp_path / "lost"])
    assert not found.left_out
    mine = profile_of(found, "mars-adamw")
    assert (len(mine.jobs), mine.share(1.05)) == (2, 0.5)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("kind", ["at least", "at most"])
def test_a_bound_of_a_target_does_not_speak_of_a_ladder(lang: str, kind: Bound) -> None:
    say = Messages(lang)  # type: ignore[arg-type]
    ladder = {"en": "ladder", "ja": "ラダー"}[lang]
    for arm, said in ((to_target(kind, kind), False), (candidate_with([0.2] * 3, [kind]), True)):
        (note,) = jobs_with(candidate_at(*CLEAR), arm).notes
        assert (ladder in say.finding(note)) == said
