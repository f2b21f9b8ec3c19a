"""The study of run lengths: its search, and how it reads an arm's best loss."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.length_report import table, valley
from benchmarks.length_search import Losses, Settings, Trial, wanted
from benchmarks.output import UserError
from benchmarks.rate_search import UNIT
from benchmarks.run_lengths import Model, chosen, losses_of, row_of
from benchmarks.study_runs import append, read
from mars_optim.experiment.plan.plan_file import load_plan
from tests.support.paths import ROOT

PLAN = load_plan(Path(ROOT / "docs/studies/next/lengths-gpt.toml"))
SETTINGS = Settings((1, 4), (1, 2, 3), PLAN.arms)
BEST = {arm: 1.6 + 0.3 * i for i, arm in enumerate(PLAN.arms)}


def loss_of(trial: Trial) -> float:
    """A parabola whose place moves with the length, under a level of each seed."""
    place = BEST[trial.arm] - 0.32 * math.log2(trial.length)
    return 2.0 + 0.1 * trial.seed + 0.02 * (trial.octave - place) ** 2


@pytest.fixture(scope="module")
def losses() -> Losses:
    found: Losses = {}
    while due := wanted(PLAN, SETTINGS, found):
        assert not set(due) & set(found)
        found |= {trial: loss_of(trial) for trial in due}
    return found


@pytest.mark.parametrize("length", SETTINGS.lengths)
@pytest.mark.parametrize("arm", PLAN.arms)
def test_fitted_rate_and_loss_of_a_parabola_are_exact(
    losses: Losses, arm: str, length: int
) -> None:
    found = valley(losses, SETTINGS, length, arm)
    assert found is not None
    assert math.log2(found.rate / UNIT) == pytest.approx(
        BEST[arm] - 0.32 * math.log2(length), abs=1e-9
    )
    assert found.lowest == pytest.approx({s: 2.0 + 0.1 * s for s in SETTINGS.seeds}, abs=1e-12)


@pytest.mark.parametrize("level", [2.0, -2.0])
def test_one_flat_seed_does_not_set_the_range(level: float) -> None:
    bends = {1: 0.02, 2: 1e-5, 3: 0.02}
    flat = {
        Trial(1, "adamw", octave, seed): level + bend * octave**2
        for seed, bend in bends.items()
        for octave in (-1, 0, 1)
    }
    found = valley(flat, SETTINGS, 1, "adamw")
    assert found is not None
    bend = (0.02 + 1e-5 + 0.02) / 3
    assert found.width == pytest.approx(2 * (0.01 * 2.0 / bend) ** 0.5)


@pytest.mark.parametrize("wall", [3.9, math.inf])
def test_a_wall_beside_the_best_rate_makes_no_valley(wall: float) -> None:
    three = {-1: 3.11, 0: 3.08, 1: wall}
    losses = {Trial(1, "adamw", o, s): y + 0.01 * s for o, y in three.items() for s in (1, 2, 3)}
    found = valley(losses, SETTINGS, 1, "adamw")
    assert found is not None
    assert found.lowest == pytest.approx({1: 3.09, 2: 3.10, 3: 3.11})  # not 2.99, below all runs
    assert found.rate == UNIT
    assert math.isnan(found.width)


def test_every_arm_has_the_baselines_best_rate_at_all_seeds(losses: Losses) -> None:
    for length in SETTINGS.lengths:
        base = {t for t in losses if t[:2] == (length, "adamw")}
        octave = min((t for t in base if t.seed == 1), key=losses.__getitem__).octave
        assert all(
            Trial(length, arm, octave, seed) in losses
            for arm in PLAN.arms
            for seed in SETTINGS.seeds
        )


def test_other_seeds_get_the_best_rate_before_its_neighbours() -> None:
    found: Losses = {}
    while due := wanted(PLAN, SETTINGS, found):
        if any(trial.seed != 1 for trial in due):
            break
        found |= {trial: loss_of(trial) for trial in due}
    for arm in PLAN.arms:
        best = min((t for t in found if t.arm == arm), key=found.__getitem__).octave
        assert {t.octave for t in due if t.arm == arm and t.seed != 1} <= {best}


def test_all_arms_have_the_rates_around_the_baselines_best() -> None:
    around = SETTINGS._replace(octaves=(-1, 0, 1, 2))
    found: Losses = {}
    while due := wanted(PLAN, around, found):
        found |= {trial: loss_of(trial) for trial in due}
    for length in around.lengths:
        base = [t for t in found if t[:2] == (length, "adamw") and t.seed == 1]
        best = min(base, key=found.__getitem__).octave
        for arm, octave in itertools.product(PLAN.arms, (best - 1, best, best + 1, best + 2)):
            assert all(Trial(length, arm, octave, seed) in found for seed in around.seeds)
    told = table(PLAN, around, found)
    assert "at x0.5 of adamw's rate | at x1 of" in told
    rows = [line.split("|")[6:-1] for line in told.splitlines() if line.startswith("| auto |")]
    assert len(rows) == 2
    assert all(cell.strip().endswith("n=3") for row in rows for cell in row)


def test_diverged_rates_are_no_valley_and_end_the_search() -> None:
    found: Losses = {}
    while due := wanted(PLAN, SETTINGS, found):
        found |= {t: loss_of(t) if t.octave < BEST[t.arm] + 1 else math.inf for t in due}
    assert all(valley(found, SETTINGS, n, arm) for n in SETTINGS.lengths for arm in PLAN.arms)
    assert "nan" not in table(PLAN, SETTINGS, found).replace("| nan |", "")


def test_differences_at_one_rate_are_of_each_seed_by_itself(losses: Losses) -> None:
    lower = {t: y - 0.1 * t.seed * (t.arm == "auto") for t, y in losses.items()}
    before, after = (table(PLAN, SETTINGS, found).splitlines() for found in (losses, lower))
    row = next(i for i, line in enumerate(after) if line.startswith("| auto |"))
    ends = [line.split("|")[-2].strip().split()[0] for line in (before[row], after[row])]
    assert float(ends[1]) - float(ends[0]) == pytest.approx(-0.2, abs=2e-4)
    assert "(-0.4514 to" in after[row]  # that of -0.1, -0.2, -0.3, and -0.003 off the best


def test_a_lost_machines_runs_come_back_from_the_table(losses: Losses, tmp_path: Path) -> None:
    known = Model(parameters=119_104, unit=614_400, data="text")
    some = dict(list(losses.items())[:40]) | {Trial(4, "auto", 7, 1): math.inf}
    for trial, loss in some.items():
        append(tmp_path / "lengths.csv", row_of(PLAN, trial, loss, known))
    found = losses_of(read(tmp_path / "lengths.csv"), PLAN, known.unit)
    assert found == some
    assert set(wanted(PLAN, SETTINGS, found)).isdisjoint(some)


def test_only_the_named_arms_are_searched() -> None:
    some = SETTINGS._replace(arms=chosen(PLAN, ["adamw", "auto"]))
    assert {t.arm for t in wanted(PLAN, some, {})} == {"adamw", "auto"}
    assert chosen(PLAN, None) == PLAN.arms


@pytest.mark.parametrize(("arms", "names"), [(["adamw", "outo"], "outo"), (["auto"], "adamw")])
def test_arms_that_cannot_be_compared_are_refused(arms: list[str], names: str) -> None:
    with pytest.raises(UserError, match=names):
        chosen(PLAN, arms)


def test_facts_of_a_task_that_reads_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        dedent(
            """
            import torch

            class Task:
                fingerprint, batch_tokens = "0123456789abcdef", 8

                def build_model(self, seed):
                    torch.manual_seed(seed)
                    if torch.ones(1).is_meta:
                        raise RuntimeError("a checkpoint cannot be read on the meta device")
                    return torch.nn.Linear(3, 2)

                def batch(self, seed, step, micro):
                    generator = torch.Generator().manual_seed(seed + step)
                    return torch.randn(8, 3, generator=generator)

                def loss(self, model, batch):
                    return model(batch).square().mean()

                def evaluate(self, model, tokens):
                    return self.loss(model, torch.ones(8, 3)).item()
            """
        )
    )
    plan = tmp_path / "plan.toml"
    plan.write_text('[task]\nkind = "python"\nsource = "tasks.py:Task"\n[training]\nsteps = 10\n')
    assert Model.of(str(plan), str(tmp_path / "out"))[:2] == (8, 80)
