"""TelemetryLog: noise and correction of any loop, to a file or to TensorBoard."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM
from mars_optim.files import check_appendable
from mars_optim.integrations.telemetry_log import TelemetryLog


def made(**options: Any) -> tuple[list[nn.Parameter], MARS]:
    params = [nn.Parameter(torch.ones(6, 4)), nn.Parameter(torch.ones(5))]
    return params, MARS(params, **options)


def train(params: list[nn.Parameter], optimizer: MARS, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_telemetry_log_has_a_line_every_n_steps_with_all_groups(tmp_path: Path) -> None:
    params, optimizer = made(gamma=0.1)
    log = TelemetryLog(optimizer, tmp_path / "noise.jsonl", every=3, step=100)
    train(params, optimizer, 8)
    rows = read(tmp_path / "noise.jsonl")
    assert [row["step"] for row in rows] == [102, 105, 108]
    noise = rows[1]["noise"]
    assert {"signal/matrix", "noise/matrix", "clip_rate/matrix", "gradient/vector"} <= noise.keys()
    assert "noise/vector" not in noise  # no history there
    assert noise["gamma/matrix"] == 0.1
    log.remove()
    train(params, optimizer, 9)
    assert len(read(tmp_path / "noise.jsonl")) == 3


def test_groups_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    params = [nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(3, 4))]
    optimizer = MARSM([{"params": [p]} for p in params])
    TelemetryLog(optimizer, tmp_path / "noise.jsonl", every=2)
    train(params, optimizer, 2)
    (row,) = read(tmp_path / "noise.jsonl")
    assert {"noise/matrix 0", "noise/matrix 1"} <= row["noise"].keys()


def test_it_goes_on_after_a_state_was_loaded(tmp_path: Path) -> None:
    params, optimizer = made()
    TelemetryLog(optimizer, tmp_path / "noise.jsonl", every=2)
    train(params, optimizer, 2)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(params, optimizer, 4)
    assert [row["step"] for row in read(tmp_path / "noise.jsonl")] == [2, 4, 6]


def test_tensorboard_reads_what_a_summary_writer_was_given(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    params, optimizer = made()
    writer = SummaryWriter(str(tmp_path))
    TelemetryLog(optimizer, writer, every=2)
    train(params, optimizer, 6)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = events.Scalars("noise/noise/matrix")
    assert [s.step for s in scalars] == [2, 4, 6]
    assert all(s.value > 0 for s in scalars)


def test_only_the_process_that_is_to_write_writes(tmp_path: Path) -> None:
    params, optimizer = made()
    TelemetryLog(optimizer, tmp_path / "noise.jsonl", every=1, write=False)
    train(params, optimizer, 3)
    assert not (tmp_path / "noise.jsonl").exists()


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_a_bad_number_of_steps_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match=r"every=.* must be a whole number"):
        TelemetryLog(made()[1], "noise.jsonl", every=every)


def test_another_optimizer_is_refused_with_the_way_out() -> None:
    adamw = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    with pytest.raises(
        TypeError, match=r"takes a MARS optimizer, not AdamW: .*optimizer.optimizer"
    ):
        TelemetryLog(adamw, "noise.jsonl")  # type: ignore[arg-type]


def test_its_folder_is_made_and_a_path_of_no_file_refused(tmp_path: Path) -> None:
    params, optimizer = made(gamma=0.1)
    log = TelemetryLog(optimizer, tmp_path / "logs" / "noise.jsonl", every=1)
    train(params, optimizer, 1)
    assert len(read(tmp_path / "logs" / "noise.jsonl")) == 1
    log.remove()
    with pytest.raises(ValueError, match=r"to=.* cannot be written"):
        TelemetryLog(optimizer, tmp_path / "logs")
    TelemetryLog(optimizer, tmp_path / "logs", write=False)


def test_a_link_to_a_file_that_is_not_there_yet_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "log.jsonl"
    link.symlink_to(tmp_path / "far" / "log.jsonl")
    check_appendable(link, "log")
    assert link.is_symlink()
