"""Options of a queue's jobs as they are typed: numbers, times and names."""

from __future__ import annotations

from typing import Any

import pytest

from mars_optim.experiment.executors.slurm_submission import parse_options


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("account=00123", {"account": "00123"}),
        ("qos=07", {"qos": "07"}),
        ("account=123", {"account": 123}),
        ("reservation=0", {"reservation": 0}),
        ("gpus-per-node=02", {"gpus_per_node": 2}),
        ("time=0090", {"timeout_min": 90}),
        ("timeout_min=010", {"timeout_min": 10}),
        ("partition=gpu=a", {"partition": "gpu=a"}),
    ],
)
def test_names_of_digits_keep_their_leading_zeros(text: str, option: dict[str, Any]):
    assert parse_options([text]) == option
