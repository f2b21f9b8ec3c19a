"""A pilot that asks for everything on top, in real processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mars_optim.experiment.analysis import analyse
from tests.support.small_pilot import Pilot


@pytest.mark.slow
def test_sizes_ablations_and_sensitivity_end_in_one_analysis(
    new_pilot: Callable[[], Pilot],
) -> None:
    pilot = new_pilot()
    done = pilot.run(
        **{
            "tuning.trials": "1",
            "tuning.max_trials": "1",
            "comparison.ablations": "true",
            "scale.wide.width": "32",
            "sensitivity.gammas": "[0.05]",
            "sensitivity.factors": "[0.5, 1.0]",
            "cost.price_per_hour": "2",
        }
    )
    assert done.returncode == 0, done.stderr
    assert "In all: 34 to 42 runs" in done.stdout
    found = analyse(pilot.out)
    assert found.totals.missing == 0
    assert [s.name for s in found.sizes] == ["main", "wide"]
    assert found.sizes[0].parameters < found.sizes[1].parameters
    assert found.trend is not None
    assert found.trend.between is None
    assert [p.cause for p in found.parts] == ["settings", "correction", "clip"]
    lines = {(line.arm, line.gamma): len(line.points) for line in found.sensitivity}
    assert lines["mars-adamw", 0.05] == lines["mars-adamw", 0.025] == lines["adamw", 0.0] == 2
    assert found.money is not None
    again = pilot.finished()
    assert pilot.run(**{"sensitivity.gammas": "[0.05, 0.1]"}).returncode == 2  # other keys differ
    assert pilot.finished() == again
