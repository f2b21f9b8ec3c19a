"""A machine divided among workers: every accelerator in use, none twice while others idle."""

from __future__ import annotations

import os

import pytest

from mars_optim.experiment.executors import resources as module
from mars_optim.experiment.executors.resources import (
    Resources,
    accelerators,
    automatic_workers,
    cores,
    divided,
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*module.VISIBLE, "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def visible(count: int) -> list[str]:
    return [dict(share.environment).get("CUDA_VISIBLE_DEVICES", "all") for share in divided(count)]


@pytest.mark.parametrize(
    ("devices", "workers", "expected"),
    [
        ("0,1,2,3", 4, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("0,1", 3, ["0", "1", "0"]),
        ("5", 2, ["5", "5"]),
        ("GPU-aa, GPU-bb", 2, ["GPU-aa", "GPU-bb"]),
        ("0,1", 1, ["all"]),
        ("", 2, ["all", "all"]),
        ("-1", 2, ["all", "all"]),
    ],
)
def test_accelerators_are_dealt_out_in_turn(
    monkeypatch: pytest.MonkeyPatch, devices: str, workers: int, expected: list[str]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert visible(workers) == expected


def test_on_rocm_the_same_goes_for_its_own_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    given = [share.environment for share in divided(2)]
    assert given == [(("HIP_VISIBLE_DEVICES", "2"),), (("HIP_VISIBLE_DEVICES", "3"),)]


def test_accelerators_are_counted_if_no_variable_names_them(
    monkeypatch: pytest.MonkeyPatch,
):
    import torch

    monkeypatch.setattr(module, "DEVICES", ("/dev/null",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert accelerators({}) == ("CUDA_VISIBLE_DEVICES", ["0", "1", "2"])
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert accelerators({}) == ("HIP_VISIBLE_DEVICES", ["0", "1", "2"])


def test_cores_are_divided_and_everyone_has_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "cores", lambda: 8)
    assert [s.threads for s in divided(3)] == [2, 2, 2]
    assert [s.threads for s in divided(1)] == [8]
    assert [s.threads for s in divided(9)] == [1] * 9


def test_no_more_cores_are_taken_than_the_user_allows(monkeypatch: pytest.MonkeyPatch):
    everything = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    )
    assert cores() == len(everything)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1


def test_a_share_is_seen_by_the_process_and_by_what_it_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    Resources(3, (("CUDA_VISIBLE_DEVICES", "1"),)).take()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("3", "1")


@pytest.mark.parametrize(
    ("devices", "count", "expected"), [("0,1,2", 64, 3), ("", 64, 4), ("", 2, 2)]
)
def test_automatic_workers_are_one_per_device_or_core_up_to_four(
    monkeypatch: pytest.MonkeyPatch, devices: str, count: int, expected: int
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr(module, "cores", lambda: count)
    assert automatic_workers() == expected
