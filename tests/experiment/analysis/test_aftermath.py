"""Stages 2 and 3 are ticked by what happened, and by nothing that is not of the pilot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis import Analysis, next_step, rollout_steps
from mars_optim.experiment.analysis.aftermath import CANARY_PLACES, aftermath
from mars_optim.experiment.plan import Plan
from tests.experiment.analysis.test_stages import CLEAR, LOSS, UNSURE, analysis_of
from tests.support.results import candidate_at
from tests.support.rollout_files import BETTER, OPEN, WORSE, write_canary, write_guard_log

Make = Callable[..., Analysis]


@pytest.fixture
def after(tmp_path: Path) -> Make:
    """An analysis with files of stages 2 and 3 beside the pilot."""

    def make(
        differences: tuple[float, ...] | None = None,
        *,
        ends: tuple[float, float] = CLEAR,
        log: str = "",
        **about: float,
    ) -> Analysis:
        if differences:
            write_canary(tmp_path / "canary.json", differences, **about)
        if log:
            write_guard_log(tmp_path / "guard.jsonl", back="back" in log, ended="ended" in log)
        return replace(analysis_of(candidate_at(*ends)), aftermath=aftermath(Plan(), tmp_path))

    return make


@pytest.mark.parametrize(
    ("differences", "log", "ends", "statuses", "following"),
    [
        (BETTER, "", CLEAR, ["done", "done", "next"], "production"),
        (WORSE, "", CLEAR, ["done", "failed", "closed"], None),
        (OPEN, "", CLEAR, ["done", "next", "later"], "canary"),
        (BETTER, "runs", CLEAR, ["done", "done", "under-way"], None),
        (BETTER, "ended", CLEAR, ["done", "done", "done"], None),
        (BETTER, "back", CLEAR, ["done", "done", "failed"], None),
        (BETTER, "back, ended", CLEAR, ["done", "done", "failed"], None),
        (None, "runs", CLEAR, ["done", "next", "under-way"], "canary"),
        (BETTER, "", UNSURE, ["next", "done", "next"], "pilot"),
        (BETTER, "", LOSS, ["done", "done", "closed"], None),
    ],
)
def test_where_the_stages_stand_follows_from_what_happened(
    after: Make,
    differences: tuple[float, ...] | None,
    log: str,
    ends: tuple[float, float],
    statuses: list[str],
    following: str | None,
) -> None:
    analysis = after(differences, log=log, ends=ends)
    assert [step.status for step in rollout_steps(analysis)] == statuses
    stage = next_step(analysis)
    assert (stage.key if stage else None) == following


@pytest.mark.parametrize(
    ("differences", "about", "met"),
    [
        (BETTER, {}, (True, True, True)),
        (WORSE, {}, (True, False, True)),
        (BETTER, dict(spiked=True), (False, True, True)),
        (BETTER, dict(step_time=1.5), (True, True, False)),
    ],
)
def test_a_canary_ticks_what_it_measured(
    after: Make,
    differences: tuple[float, ...],
    about: dict[str, float],
    met: tuple[bool, bool, bool],
) -> None:
    canary, production = rollout_steps(after(differences, **about))[1:]
    assert tuple(condition.met for condition in canary.exit) == met
    go = next(c for c in production.entry if c.key == "canary-go")
    assert go.met is (differences == BETTER and "spiked" not in about)


def test_without_files_nothing_is_ticked_or_told(after: Make) -> None:
    canary, production = rollout_steps(after())[1:]
    assert {c.met for c in canary.exit} == {None}
    assert canary.happened == production.happened == ()


@pytest.mark.parametrize("place", CANARY_PLACES)
def test_a_canary_is_found_beside_the_pilot(tmp_path: Path, place: str) -> None:
    write_canary(tmp_path / place)
    found = aftermath(Plan(), tmp_path).canary
    assert found is not None
    assert found.path == tmp_path / place


FOREIGN = [
    (dict(candidate="nadamw"), "its candidate is 'nadamw'"),
    (dict(task={"kind": "images"}), "its kind is 'images'"),
    (dict(task={"kind": "gpt", "corpus": "other.txt"}), "its corpus is 'other.txt'"),
    (dict(settings=dict(steps=1, margin=0, confidence=0.9, gamma=0.5, clip=1)), "gamma is 0.5"),
]


@pytest.mark.parametrize(("changes", "word"), FOREIGN, ids=lambda v: str(v)[:24])
def test_a_canary_of_another_pilot_is_refused(
    tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    file = write_canary(tmp_path / "elsewhere" / "canary.json", **changes)
    with pytest.raises(UserError, match="belongs to another pilot: its"):
        aftermath(Plan(), tmp_path, file)
    write_canary(tmp_path / "canary.json", **changes)
    found = aftermath(Plan(), tmp_path)
    assert found.canary is None
    assert word in found.refused[0]


def test_a_larger_model_in_the_canary_is_told(tmp_path: Path) -> None:
    write_canary(tmp_path / "canary.json", task={"kind": "gpt", "corpus": "stdlib", "width": 128})
    assert aftermath(Plan(), tmp_path).canary_size == ("width 64 → 128",)


def test_damaged_files_beside_the_pilot_are_told_not_raised(tmp_path: Path) -> None:
    (tmp_path / "canary.json").write_text("{")
    (tmp_path / "guard.jsonl").write_text("x\n")
    found = aftermath(Plan(), tmp_path)
    assert (found.canary, found.guard) == (None, None)
    assert [Path(why.split(" ")[0]).name for why in found.refused] == [
        "canary.json",
        "guard.jsonl",
    ]
    for named in (dict(canary=tmp_path / "canary.json"), dict(guard=tmp_path / "guard.jsonl")):
        with pytest.raises(UserError):
            aftermath(Plan(), tmp_path / "none", **named)
