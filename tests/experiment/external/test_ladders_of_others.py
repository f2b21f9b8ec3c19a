"""Ladders among runs that exist already: of all seeds, or of some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.experiment.plan.plan_file import load_plan
from tests.experiment.external.test_existing_runs import loss_of, report


def of_rungs(folder: Path, seeds: tuple[int, ...], short: tuple[int, ...] = ()) -> None:
    """Four pairs, the baseline's rungs of some seeds, and the shorter one alone of others."""
    folder.mkdir()
    pairs = [(arm, s, 100) for arm in ("adamw", "mars-adamw") for s in (1, 2, 3, 4)]
    for arm, seed, n in [
        *pairs,
        *(("adamw", s, n) for s in seeds for n in (50, 200)),
        *(("adamw", s, 50) for s in short),
    ]:
        row = json.dumps({"step": n, "valid_loss": loss_of(arm, seed, n)})
        (folder / f"{arm}-seed{seed}-steps{n}.jsonl").write_text(row + "\n")


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("with_rungs", "short", "ladder_seeds", "seeds", "pairs"),
    [
        ((3, 4), (), 2, (3, 4, 1, 2), 4),
        ((3, 4), (1, 2), 2, (3, 4, 1, 2), 4),  # part of a ladder takes nothing away
        ((1, 2, 3, 4), (), 0, (1, 2, 3, 4), 4),
        ((3,), (), 1, (3, 1, 2, 4), 4),  # the pairs show the noise of one ladder
    ],
)
def test_ladders_of_some_seeds_serve_all_pairs(
    tmp_path: Path,
    with_rungs: tuple[int, ...],
    short: tuple[int, ...],
    ladder_seeds: int,
    seeds: tuple[int, ...],
    pairs: int,
):
    of_rungs(tmp_path / "runs", with_rungs, short)
    verdict = report(tmp_path / "out", "--from", str(tmp_path / "runs"))
    comparison = load_plan(tmp_path / "out" / "plan.toml").comparison
    assert (comparison.ladder_seeds, comparison.seeds) == (ladder_seeds, seeds)
    assert verdict["tokens_saved"]["pairs"] == pairs
