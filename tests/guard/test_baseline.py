"""The AdamW history: recorded, written, read back, refused when it cannot serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import Baseline, BaselineRecorder, GuardSettings

LOSSES = [2.0 + 0.1 * (i % 7) for i in range(150)]


def test_a_baseline_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = Baseline(LOSSES, [1.0, 2.0], [0.5], [0.1, 0.2])
    made.save(tmp_path / "baseline.json")
    assert Baseline.load(tmp_path / "baseline.json") == made
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]


def test_rows_of_a_log_make_a_baseline() -> None:
    rows: list[dict[str, Any]] = [{"loss": loss, "step": i} for i, loss in enumerate(LOSSES)]
    rows[3]["grad_norm"] = 1.5
    made = Baseline.from_rows(rows)
    assert made.losses == tuple(LOSSES)
    assert made.grad_norms == (1.5,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "not a baseline of format 1"),
        ('{"format": 9}', "not a baseline of format 1"),
        (json.dumps({"format": 1, "losses": [1.0] * 99}), "holds 99 losses; at least 100"),
        (json.dumps({"format": 1, "losses": [1.0] * 99 + [float("nan")]}), "not finite"),
        (json.dumps({"format": 1, "losses": 3}), "not iterable"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_by_name(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        Baseline.load(path)
    assert "baseline.json" in str(error.value)


def test_the_recorder_keeps_the_last_steps_of_a_real_loop() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    adamw = torch.optim.AdamW(net.parameters(), lr=1e-3)
    recorder = BaselineRecorder(adamw, keep=120, every=10)
    losses = []
    for _ in range(135):
        adamw.zero_grad()
        loss = 100.0 * net(torch.randn(8, 4)).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1e9)
        adamw.step()
        recorder.watch(loss=loss, grad_norm=norm)
        losses.append(loss.item())
    made = recorder.baseline()
    assert made.losses == pytest.approx(losses[-120:])
    assert len(made.grad_norms) == 120
    assert len(made.step_seconds) == 120
    assert set(made.clip_shares) == {1.0}  # the one matrix, its gradient far above 1
    recorder.close()
    assert not adamw._optimizer_step_pre_hooks


def test_too_short_a_recording_is_refused() -> None:
    net = nn.Linear(2, 2)
    recorder = BaselineRecorder(torch.optim.AdamW(net.parameters()))
    recorder.watch(loss=1.0)
    with pytest.raises(ValueError, match="holds 1 losses"):
        recorder.baseline()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "every = 0 must be at least 1"),
        (dict(every=2.5), "every = 2.5 must be a whole number"),
        (dict(loss_sigmas=-1.0), r"loss_sigmas = -1\.0 must be above 0"),
        (dict(loss_sigmas="3"), "loss_sigmas = '3' must be a number"),
        (dict(settle=30), "settle = 30 must be at most half of window = 50"),
        (dict(patience=30), "patience = 30 must be at most half of window"),
        (dict(rollback_on=("los",)), "rollback_on = 'los' must be one of .*did you mean 'loss'"),
        (dict(rollback_on="loss"), "must be a tuple"),
        (dict(keep=True), "keep = True must be a whole number"),
    ],
)
def test_a_setting_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuardSettings(**options)
