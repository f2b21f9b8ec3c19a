"""Files of stages 2 and 3 as their own writers write them, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mars_optim.experiment.canary import CanarySettings
from mars_optim.experiment.canary.canary import canary_data
from mars_optim.experiment.canary.production_checkpoint import AdamWCheckpoint
from mars_optim.experiment.canary.result import Continued, judge
from mars_optim.experiment.plan import Plan
from mars_optim.files import write_json
from mars_optim.guard import Alarm
from mars_optim.guard.log import EventLog

BETTER, WORSE, OPEN = (-0.010, -0.012, -0.011), (0.010, 0.012, 0.011), (-0.02, 0.03, 0.001)
ALARM = Alarm(step=12, signal="loss", value=3.0, limit=2.5, since=8)


def write_canary(
    path: Path,
    differences: Sequence[float] = BETTER,
    *,
    spiked: bool = False,
    step_time: float = 1.02,
    **changes: Any,
) -> Path:
    """A canary's file of the default plan.

    Args:
        path: of ``canary.json``.
        differences: final loss of MARS less that of AdamW, one a data order.
        spiked: whether MARS spikes in the first data order.
        step_time: of MARS, AdamW's as 1.
        changes: keys of the file.
    """
    seeds = [
        Continued(
            seed=seed,
            adamw_loss=2.0,
            mars_loss=2.0 + difference,
            adamw_spike=None,
            mars_spike=ALARM if spiked and seed == 1 else None,
            step_time=step_time,
        )
        for seed, difference in enumerate(differences, start=1)
    ]
    settings = CanarySettings(seeds=tuple(s.seed for s in seeds))
    result = judge(seeds, settings, {"adamw": 1.0, "mars": 2.0}, ["advice"])
    checkpoint = AdamWCheckpoint.__new__(AdamWCheckpoint)
    object.__setattr__(checkpoint, "sha256", "0" * 64)
    data = canary_data(result, settings, checkpoint, {})
    told = dict(candidate="mars-adamw", task=asdict(Plan().task), date="2026-11-24")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, data | told | changes)
    return path


def write_guard_log(path: Path, *, back: bool = False, ended: bool = False) -> Path:
    """The log of a guard that ran to step 400, or went back at step 270; and then ended."""
    log = EventLog(path)
    log.write("start", 200, loss=2.3, loss_limit=2.8, limits={"grad_norm": 3.4})
    log.write("checkpoint", 225)
    if back:
        alarm = dict(signal="loss", value=3.01176, limit=2.78075, since=262)
        log.write("warn", 268, **alarm)
        log.write("rollback", 270, **alarm, to_step=225, clean=True, optimizer="AdamW", lr=[0.001])
    else:
        log.write("checkpoint", 400)
    if ended:
        log.write("end", 410, rolled_back=back)
    return path
