"""Snapshots: of this run alone, of healthy states, and none that could not be read back."""

from __future__ import annotations

import collections
import copy
import errno
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from mars_optim import Guard, GuardSettings, MARSAdamW
from mars_optim.guard.stores import DiskStore
from tests.support.run_to_guard import HISTORY, QUICK, Run, equal, events

Place = collections.namedtuple("Place", "epoch batch")


def guard_of(run: Run, folder: Path | str = "memory", **options: Any) -> Guard:
    given = dict(baseline=HISTORY, settings=QUICK, snapshots=folder, step=run.step)
    optimizer = options.pop("optimizer", run.optimizer)
    return Guard(run.net, optimizer, **(given | options))  # type: ignore[arg-type]


class Loader:
    """A data loader whose state the test sets."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_another_run_in_the_folder_is_never_gone_back_to(tmp_path: Path) -> None:
    run, other = Run(), Run()
    guard, second = guard_of(run, tmp_path), guard_of(other, tmp_path)
    run.guarded(guard, {}, steps=21)
    other.guarded(second, {}, steps=21)  # its switch drops what it takes for an old run's
    with pytest.raises(RuntimeError, match=r"no snapshot of it in .* can be read.*another run"):
        run.guarded(guard, {22: math.nan}, steps=60)


def test_a_run_whose_snapshots_are_gone_says_so_and_goes_on(tmp_path: Path) -> None:
    run, other = Run(), Run()
    guard, second = guard_of(run, tmp_path), guard_of(other, tmp_path)
    run.guarded(guard, {}, steps=24)
    other.guarded(second, {}, steps=11)
    with pytest.warns(UserWarning, match="all snapshots of this run in .* are gone"):
        run.guarded(guard, {}, steps=25)
    twin = Run()
    twin.train(twin.optimizer, 15)
    back = run.guarded(guard, {36: math.nan}, steps=60)  # both runs have their own from now on
    assert back is not None
    assert back.step == 30
    twin.train(twin.optimizer, 5)
    assert equal(run.weights(), twin.weights())
    assert other.guarded(second, {21: math.nan}, steps=60) is not None


def test_files_of_a_guard_from_before_runs_had_names(tmp_path: Path) -> None:
    run = Run()
    guard = guard_of(run, tmp_path)
    run.guarded(guard, {}, steps=20)
    saved = {k: v for k, v in guard.state_dict().items() if k not in ("run", "world_size")}
    for path in tmp_path.iterdir():
        path.rename(tmp_path / f"{path.name[:14]}.pt")
    resumed = guard_of(run, tmp_path)
    resumed.load_state_dict(saved)
    back = run.guarded(resumed, {21: math.nan}, steps=60)
    assert back is not None
    assert back.step == 15


@pytest.mark.parametrize("options", [dict(checkpoint_every=1), dict(checkpoint_every=5, keep=1)])
def test_a_state_that_is_nan_is_never_kept(options: Any) -> None:
    run = Run()
    settings = GuardSettings(every=10, window=10, patience=4, settle=2, **options)
    guard = guard_of(run, settings=settings)
    run.guarded(guard, {}, steps=21)
    with torch.no_grad():
        run.net[0].weight.fill_(math.nan)
    back = run.guarded(guard, {22: math.nan}, steps=60)
    assert back is not None
    assert all(w.isfinite().all() for w in run.weights())


@pytest.mark.parametrize(
    ("position", "kind"),
    [
        ({"batch": np.int64(3)}, "numpy"),
        ({"shard": PurePosixPath("a")}, "pathlib"),
        (Place(1, 2), "Place"),
        (lambda: 3, "lambda|local"),
    ],
)
def test_a_position_that_no_file_gives_back_is_refused(
    tmp_path: Path, position: Any, kind: str
) -> None:
    run = Run()
    guard = guard_of(run, tmp_path)
    run.train(run.optimizer)
    with pytest.raises(ValueError, match=f"position cannot be read back .*({kind})"):
        guard.watch(loss=1.0, position=position)


def test_an_extra_that_no_file_gives_back_is_refused_by_name(tmp_path: Path) -> None:
    loader = Loader({"rng": np.random.default_rng(0).bit_generator.state, "at": np.zeros(2)})
    with pytest.raises(ValueError, match=r"extras\['loader'\] cannot be read back"):
        guard_of(Run(), tmp_path, extras={"loader": loader})
    guard_of(Run(), "memory", extras={"loader": loader})


def test_a_state_that_no_file_gives_back_later_costs_a_snapshot(tmp_path: Path) -> None:
    run, loader = Run(), Loader({"epoch": 0})
    guard = guard_of(run, tmp_path, extras={"loader": loader})
    run.guarded(guard, {}, steps=14)
    loader.state = {"epoch": np.int64(1)}
    with pytest.warns(UserWarning, match=r"no snapshot of step 15: extras\['loader'\]"):
        run.guarded(guard, {}, steps=15)
    back = run.guarded(guard, {17: math.nan}, steps=60)
    assert back is not None
    assert (back.step, loader.state) == (10, {"epoch": 0})


def test_a_namedtuple_comes_back_from_memory_as_it_was() -> None:
    run = Run()
    guard = guard_of(run)
    for step in range(24):
        run.train(run.optimizer)
        back = guard.watch(loss=1.0 if step < 20 else math.nan, position=Place(0, run.step))
        if back:
            break
    assert back is not None
    assert back.position == Place(0, back.step)


def test_resuming_in_an_alarm_can_still_go_back() -> None:
    run = Run()
    long = GuardSettings(every=1, window=20, patience=4, settle=10)
    guard = guard_of(run, settings=long)
    assert run.guarded(guard, {11: 5.0}, steps=18) is None
    saved = copy.deepcopy(guard.state_dict())
    assert saved["on"] == ["loss"]
    resumed = guard_of(run, settings=long)
    resumed.load_state_dict(saved)
    back = run.guarded(resumed, {19: 5.0}, steps=60)
    assert back is not None
    assert (back.step, back.clean) == (18, False)


@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "No space left"), RuntimeError("writer")])
def test_a_full_disk_costs_the_snapshot_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Exception
) -> None:
    run = Run()
    guard = guard_of(run, tmp_path, log=tmp_path.with_suffix(".jsonl"))
    run.guarded(guard, {}, steps=19)

    def full(*args: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(DiskStore, "check", lambda *args: None)
        patch.setattr(torch, "save", full)
        with pytest.warns(UserWarning, match="snapshot of step 20"):
            run.guarded(guard, {}, steps=20)
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    assert (back.step, back.clean) == (15, True)
    kept = [e["step"] for e in events(tmp_path.with_suffix(".jsonl")) if e["event"] == "checkpoint"]
    assert kept == [15]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_damaged_snapshot_is_passed_over_by_its_name(tmp_path: Path) -> None:
    run = Run()
    guard = guard_of(run, tmp_path)
    run.guarded(guard, {}, steps=25)
    for path in tmp_path.glob("step-000000020*"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"step-000000020.* cannot be read"):
        back = run.guarded(guard, {26: math.nan}, steps=60)
    assert back is not None
    assert (back.step, back.clean) == (15, True)


def test_a_model_that_no_file_gives_back_is_refused(tmp_path: Path) -> None:
    class Odd(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return PurePosixPath("a")

        def set_extra_state(self, state: Any) -> None: ...

    net = Odd(2, 2)
    options: dict[str, Any] = dict(baseline=HISTORY, settings=QUICK)
    optimizer = MARSAdamW(net.parameters())
    with pytest.raises(ValueError, match=r"model cannot be read back .*pathlib.*'memory'"):
        Guard(net, optimizer, snapshots=tmp_path, **options)
    Guard(net, optimizer, **options)


def test_frozen_weights_that_are_infinite_are_no_hindrance() -> None:
    run = Run()
    mask = torch.nn.Parameter(torch.full((3,), -math.inf), requires_grad=False)
    run.net.register_parameter("mask", mask)
    run.optimizer.add_param_group({"params": [mask]})
    guard = guard_of(run)
    run.guarded(guard, {}, steps=20)
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    assert back.step == 15


def test_runs_guarded_in_memory_get_names_with_a_folder(tmp_path: Path) -> None:
    runs, files = (Run(), Run()), []
    for run in runs:
        guard = guard_of(run)
        run.guarded(guard, {}, steps=21)
        saved = guard.state_dict()
        guard.close()
        guard_of(run, tmp_path).load_state_dict(saved)
        files.append({path.name for path in tmp_path.iterdir()})
    assert len(files[0]) == 1
    assert len(files[1]) == 2


def test_any_damage_of_a_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    guard = guard_of(run, tmp_path)
    run.guarded(guard, {}, steps=25)
    load = torch.load

    def of_a_flipped_bit(path: Any, **options: Any) -> Any:
        if "step-000000020" in str(path):
            raise KeyError(3060289205)
        return load(path, **options)

    monkeypatch.setattr(torch, "load", of_a_flipped_bit)
    with pytest.warns(UserWarning, match=r"step-000000020.* cannot be read"):
        back = run.guarded(guard, {26: math.nan}, steps=60)
    assert back is not None
    assert back.step == 15


class Lookahead(torch.optim.Optimizer):
    """A wrapper with state of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__([p for g in optimizer.param_groups for p in g["params"]], {})
        self.optimizer, self.counted = optimizer, 0
        self.param_groups, self.state = optimizer.param_groups, optimizer.state

    def step(self, closure: Any = None) -> None:
        self.counted += 1
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.optimizer.state_dict(), "counted": self.counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counted = state["counted"]
        self.optimizer.load_state_dict(state["inner"])


def test_a_wrappers_own_state_comes_back_too() -> None:
    run = Run()
    ahead = Lookahead(run.optimizer)
    guard, start = guard_of(run, optimizer=ahead, in_place=True), run.step
    for step in range(30):
        run.train(ahead, 1)
        if back := guard.watch(loss=math.nan if step == 22 else 1.0):
            assert ahead.counted == back.step - start
            return
    raise AssertionError("the guard did not go back")
