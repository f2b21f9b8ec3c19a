"""The parts of the study on a GPU: its plan, order, rates, batches, text and tables."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_study import text
from benchmarks.gpu_study.agenda import fitted_rate, long_rates, next_run, wanted_rates
from benchmarks.gpu_study.plan import BASE, load
from benchmarks.gpu_study.report import paired, report, tokens_ratio
from benchmarks.gpu_study.task import DeviceText
from benchmarks.output import UserError
from mars_optim.experiment.analysis.ladder import BEND
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.tasks import GPT, TextTask, load_corpus
from tests.support.gpu_studies import tiny_plan, tiny_text

ROOT = Path(__file__).parents[2]


def rows_of(plan: Any, losses: dict[str, dict[float, float | None]]) -> dict[str, Any]:
    """Settled short runs."""
    steps = plan.design.short_steps
    return {
        plan.spec(arm, lr, 0, steps, "data").run_id: row(arm, lr, 0, steps, loss)
        for arm, found in losses.items()
        for lr, loss in found.items()
    }


def row(arm: str, lr: float, seed: int, length: int, loss: float | None) -> dict[str, Any]:
    status = "diverged" if loss is None else "finished"
    known = {"arm": arm, "lr": lr, "seed": seed, "length": length, "parameters": 5}
    return {**known, "final_loss": loss, "status": status, "tries": 1}


def test_plan_is_of_the_size_that_was_asked_for() -> None:
    plan = load()
    task = plan.task
    with torch.device("meta"):
        model = GPT(
            vocabulary=task.vocabulary,
            context=task.context,
            layers=task.layers,
            width=task.width,
            heads=task.heads,
        )
    assert sum(p.numel() for p in model.parameters()) == 33_825_280
    assert plan.design.long_steps * task.batch * task.context >= 100e6
    assert plan.design.short_steps == round(plan.design.long_steps / 5)
    first = "adamw nadamw nadamw-auto mars-adamw muon muon-auto".split()
    assert list(plan.arms) == [*first, *plan.design.late]
    assert plan.arms["adamw-90-99"] == replace(plan.arms["adamw"], betas=(0.9, 0.99))
    assert plan.arms["auto-95-99"] == replace(plan.arms["nadamw-auto"], betas=(0.95, 0.99))
    assert plan.arms["muon-auto"] == replace(plan.arms["muon"], gamma_schedule="auto")
    assert plan.training.precision == "bf16"
    assert plan.execution.compile


def test_rehearsal_has_the_arms_and_the_grid_of_the_study() -> None:
    whole, tiny = load(), load(rehearse=True)
    assert tiny.arms == whole.arms
    assert tiny.design.rates == whole.design.rates
    assert tiny.design.timed == whole.design.timed
    assert tiny.training.precision == whole.training.precision


@pytest.mark.parametrize("rates", ["[1e-3]", "[1e-3, 2e-3, 3e-3]", "[2e-3, 1e-3]", "[0.0, 1e-3]"])
def test_uneven_grid_of_rates_is_refused(rates: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    given = (ROOT / "benchmarks/gpu_study/plan.toml").read_text()
    path.write_text(given.replace("[1e-3, 2e-3, 4e-3]", rates))
    with pytest.raises(UserError, match="must rise by one constant factor"):
        load(path=path)


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({}, [1e-3, 2e-3, 4e-3]),
        ({1e-3: 3.0, 2e-3: 2.0}, [1e-3, 2e-3, 4e-3]),
        ({1e-3: 3.0, 2e-3: 2.0, 4e-3: 2.5}, [1e-3, 2e-3, 4e-3]),
        ({1e-3: 3.0, 2e-3: 2.0, 4e-3: 1.0}, [1e-3, 2e-3, 4e-3, 8e-3]),
        ({1e-3: 1.0, 2e-3: 2.0, 4e-3: None}, [5e-4, 1e-3, 2e-3, 4e-3]),
        ({1e-3: 3.0, 2e-3: 2.0, 4e-3: 1.0, 8e-3: 0.5}, [1e-3, 2e-3, 4e-3, 8e-3]),
    ],
)
def test_lowest_loss_at_an_end_asks_for_one_rate_more(
    losses: dict[float, float | None], wanted: list[float]
) -> None:
    assert wanted_rates(tiny_plan(most_rates=4), losses) == wanted


def test_rate_of_a_parabola_is_its_lowest_point() -> None:
    losses: dict[float, float | None] = {
        lr: 3.0 + 0.1 * math.log2(lr / 2.4e-3) ** 2 for lr in (1e-3, 2e-3, 4e-3)
    }
    found = fitted_rate(losses, 2.0)
    assert found is not None
    assert abs(math.log2(found / 2.4e-3)) < 0.12
    assert fitted_rate({1e-3: None, 2e-3: 3.0, 4e-3: None}, 2.0) is None


def test_long_rates_are_scaled_by_one_factor_for_all() -> None:
    plan = tiny_plan()
    some = {
        "adamw": {1e-3: 3.0, 2e-3: 2.0, 4e-3: 3.0},
        "nadamw-auto": {1e-3: 3.1, 2e-3: 2.1, 4e-3: 2.6},
    }
    rates = long_rates(plan, "data", rows_of(plan, some))
    for arm, losses in some.items():
        best = fitted_rate(losses, 2.0)
        assert best is not None
        assert rates[arm] == pytest.approx(best * 2**-0.32, rel=5e-3)


def test_order_depends_on_what_is_finished_only() -> None:
    plan = tiny_plan(seeds=2)
    rows: dict[str, Any] = {}
    order = []
    while (spec := next_run(plan, "data", rows)) is not None:
        loss = abs(math.log2(spec.lr / 1.5e-3))
        rows[spec.run_id] = row(spec.arm_name, spec.lr, spec.seed, spec.steps, loss)
        order.append((spec.steps, spec.seed, spec.arm_name))
    assert order[6:] == [(20, s, arm) for s in (1, 2) for arm in ("adamw", "nadamw-auto")]
    shuffled = dict(sorted(rows.items()))
    del shuffled[list(rows)[7]], shuffled[list(rows)[9]]
    spec = next_run(plan, "data", shuffled)
    assert spec is not None
    assert spec.run_id == list(rows)[7]


def test_late_arms_begin_after_the_early_seeds_of_the_others() -> None:
    late = ("adamw-90-99",)
    plan = tiny_plan("adamw", "muon", *late, seeds=3, late=late, early_seeds=2)
    rows: dict[str, Any] = {}
    order = []
    while (spec := next_run(plan, "data", rows)) is not None:
        loss = abs(math.log2(spec.lr / 2e-3))
        rows[spec.run_id] = row(spec.arm_name, spec.lr, spec.seed, spec.steps, loss)
        order.append((spec.seed, spec.arm_name))
    short = [(0, arm) for arm in ("adamw", "muon") for _ in range(3)]
    early = [(seed, arm) for seed in (1, 2) for arm in ("adamw", "muon")]
    after = [*([(0, *late)] * 3), (1, *late), (2, *late)]
    assert order == [*short, *early, *after, (3, "adamw"), (3, "muon"), (3, *late)]


def test_late_arm_that_the_plan_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    given = (ROOT / "benchmarks/gpu_study/plan.toml").read_text()
    path.write_text(given.replace('"adamw-90-99", "auto-95-99"]', '"adamw-99"]'))
    with pytest.raises(UserError, match="no arms of the plan: adamw-99"):
        load(path=path)


def test_batches_and_losses_are_the_text_tasks(tmp_path: Path) -> None:
    data = tiny_text(tmp_path) / "tokens"
    shape = dict(context=16, layers=2, width=32, heads=2, batch=4)
    ours = DeviceText(data, GptPlan(**shape), torch.device("cpu"))
    theirs = TextTask(load_corpus(str(data)), **shape)  # type: ignore[arg-type]
    assert torch.equal(ours.batch(3, 5, 0), theirs.batch(3, 5, 0))
    models = ours.build_model(7), theirs.build_model(7)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    batch = ours.batch(3, 6, 0)
    assert torch.equal(ours.loss(models[0], batch), theirs.loss(models[1], batch))
    # 16 windows: whole batches for both
    expected = theirs.evaluate(models[1].double(), 256)
    assert ours.evaluate(models[0].double(), 256) == pytest.approx(expected, rel=1e-12)


def state_with(*runs: dict[str, Any]) -> dict[str, Any]:
    plan = tiny_plan()
    return {
        "rehearsal": False,
        "plan": plan.to_dict(),
        "calls": [{"device": "cpu", "torch": "2", "seconds": 60.0, "said": []}],
        "timing": {},
        "runs": {str(i): run for i, run in enumerate(runs)},
    }


def long_runs(arm: str, *losses: float | None) -> list[dict[str, Any]]:
    return [row(arm, 1e-3, seed, 20, loss) for seed, loss in enumerate(losses, 1)]


def test_difference_is_paired_by_seed_with_its_interval() -> None:
    state = state_with(*long_runs(BASE, 3.0, 3.5, 3.2), *long_runs("muon", 2.9, 3.38, None))
    shown = report(state)
    # -0.1 and -0.12: mean -0.11, Student's t of 12.706 times 0.01
    assert "| muon | 0.001 | 2 | 3.1400 | -0.1100 | -0.2371 to +0.0171 | - |" in shown
    assert "| adamw | 0.001 | 3 | 3.2333 | - | - | - |" in shown
    assert shown.splitlines()[-3].endswith("| 1 |")  # diverged


def test_other_beta2_of_adamw_is_a_base_of_its_own() -> None:
    other = long_runs("adamw-90-99", 2.95, 3.41)
    shown = report(state_with(*long_runs(BASE, 3.0, 3.5), *other, *long_runs("muon", 2.9, 3.38)))
    assert "| less adamw | 95 % | less adamw-90-99 | 95 % |" in shown
    muon = next(line for line in shown.splitlines() if line.startswith("| muon"))
    assert "| -0.1100 | -0.2371 to +0.0171 | -0.0400 | -0.1671 to +0.0871 |" in muon


def test_arm_whose_lowest_loss_is_at_an_end_is_named() -> None:
    losses = {
        "adamw": {1e-3: 3.0, 2e-3: 2.0, 4e-3: None},
        "muon": {1e-3: 3.0, 2e-3: 2.0, 4e-3: 1.9},
    }
    runs = [row(arm, lr, 0, 10, loss) for arm, of in losses.items() for lr, loss in of.items()]
    shown = report(state_with(*runs))
    assert "| adamw | 3.0000 | 2.0000 | diverged |" in shown
    assert "Lowest at an end of its rates, so not tuned: muon." in shown


def test_single_seed_gives_a_difference_without_interval() -> None:
    shown = report(state_with(*long_runs(BASE, 3.0), *long_runs("muon", 2.9)))
    assert "| muon | 0.001 | 1 | 2.9000 | -0.1000 | - | - |" in shown


def test_tokens_ratio_is_read_off_the_better_arms_lengths() -> None:
    base, mine = {1: 3.0, 2: 3.5}, {1: 2.9, 2: 3.4001}
    short = [row("muon", 1e-3, 0, 10, 3.65), row("muon", 2e-3, 0, 10, 3.55)]
    state = state_with(*long_runs(BASE, *base.values()), *long_runs("muon", *mine.values()), *short)
    ratio = tokens_ratio(state, "muon", paired(mine, base))
    # from 3.55 at half of the tokens to 3.15005: 3.25 lies 0.7499 of the way in tokens^-BEND
    way = (3.55 - 3.25) / (3.55 - 3.15005)
    tokens = (2.0**BEND + way * (1.0 - 2.0**BEND)) ** (-1 / BEND)
    assert ratio == pytest.approx(1 / tokens, rel=1e-9)
    assert tokens_ratio(state, "muon", paired({1: 2.9, 2: 3.6}, base)) is None
    assert (
        tokens_ratio(
            state_with(*long_runs(BASE, 3.0), *long_runs("muon", 2.9)), "muon", paired(mine, base)
        )
        is None
    )


def debian_package(folder: Path, files: dict[str, str]) -> Path:
    """A package with Linux's source as Debian packs it."""
    inside = folder / "root" / "usr" / "src"
    control = folder / "root" / "DEBIAN"
    inside.mkdir(parents=True)
    control.mkdir()
    fields = "Package: linux-source-0.1\nVersion: 0.1-2\nArchitecture: all\n"
    (control / "control").write_text(f"{fields}Maintainer: n <n@n.n>\nDescription: n\n")
    with tarfile.open(inside / "linux-source-0.1.tar.xz", "w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"linux-source-0.1/{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    deb = folder / "linux-source.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(folder / "root"), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    return deb


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb: not Debian")
def test_text_of_a_package_is_prepared_to_the_same_bytes(tmp_path: Path) -> None:
    files = {f"kernel/file{i}.c": f"int number_{i} = {i};\n" * 40 for i in range(80)}
    files |= {"drivers/large.c": "never read\n", "kernel/image.png": "never read"}
    (tmp_path / "deb").mkdir()
    deb = debian_package(tmp_path / "deb", files)
    seen = []
    for name in ("one", "two"):
        data = tmp_path / name
        text.prepare(data, 300, package="", deb=deb, wheels=False, most_text=60_000)
        seen.append({p.name: p.read_bytes() for p in data.rglob("*.bin")})
    assert seen[0] == seen[1]
    facts = json.loads((tmp_path / "one" / "text.json").read_text())
    assert (facts["package"], facts["version"]) == ("linux-source-0.1", "0.1-2")
    assert 60_000 <= facts["bytes"] < 61_200
    assert facts["tokens"]["train"] > 10 * facts["tokens"]["valid"] > 0
    written = b"".join(seen[0].values())
    assert len(written) == 2 * sum(facts["tokens"].values())


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb: not Debian")
def test_package_without_linux_is_refused(tmp_path: Path) -> None:
    deb = debian_package(tmp_path, {"README.md": "nothing"})
    with pytest.raises(UserError, match="holds no source of Linux: give a linux-source package"):
        text.prepare(tmp_path / "data", 300, package="", deb=deb, wheels=False)
    with pytest.raises(UserError, match="is no Debian package"):
        text.prepare(tmp_path / "data", 300, package="", deb=Path(__file__), wheels=False)


@pytest.mark.slow
def test_wheels_hold_all_that_is_imported_beside_torch() -> None:
    code = (
        "import sys, torch, torch._dynamo, numpy, scipy.special, scipy.interpolate, scipy.optimize;"
    )
    code += "before = set(sys.modules); import benchmarks.gpu_study.__main__;"
    code += "print(*{m.partition('.')[0] for m in set(sys.modules) - before})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    known = packages_distributions()
    own = {"mars-optim", "torch", "numpy", "scipy"}
    needed = {d.replace("_", "-") for m in done.stdout.split() for d in known.get(m, [])} - own
    assert "pydantic" in needed
    assert needed <= set(text.PACKAGES)
