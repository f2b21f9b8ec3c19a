"""One call: goes on where the last one stopped, until its minutes are up or all is done.

The order is fixed by what is finished (see `agenda`): the timing, once for each kind of GPU; the
short runs; the long runs. ``study.json`` is written whole after each. A run that the limit cuts
leaves a checkpoint in the scratch folder, some 400 MB, which is gone on from to the same bits if
that folder is still there (on a CPU; on a GPU sums by atomic additions may round otherwise). Else
it begins anew: what is lost is one long run at the most, about 90 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from mars_optim.experiment.executors.runnable import environment
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.training import Gradients, alone, build_optimizer, parallelize
from mars_optim.files import read_json

from . import state as states
from .agenda import next_run
from .plan import BASE, StudyPlan
from .runs import Limit, TimeUp, carry_out, device_answers, failed_row, reason
from .task import TEXT, DeviceText, load_text
from .timing import time_rules

RESERVE = 8.0
"""Seconds before the limit at which a run is cut, for its checkpoint and the state."""
GRAPHS = 1
"""That torch.compile makes of all runs together: forward and backward of one step."""
MOST_GRAPHS = 64


@dataclass
class Call:
    """Inputs of one call.

    Args:
        plan: of the study.
        task: the text and the model.
        out: folder of the state.
        scratch: folder of checkpoints.
        limit: of time.
        state: gone on from.
        echo: takes a line for the user.
        device: of the runs.
    """

    plan: StudyPlan
    task: DeviceText
    out: Path
    scratch: Path
    limit: Limit
    state: states.State
    echo: Callable[[str], None]
    device: torch.device
    log: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """A line for the user, kept with the call."""
        self.log["said"].append(line)
        self.echo(line)

    def save(self) -> None:
        """Write the state, this call's time in it."""
        self.log["seconds"] = round(time.monotonic() - self.began, 1)
        self.log["graphs"] = counters["stats"]["unique_graphs"]
        states.save(self.out, self.state)


def go_on(
    plan: StudyPlan,
    data: Path,
    out: Path,
    *,
    scratch: Path,
    limit: Limit,
    rehearsal: bool,
    echo: Callable[[str], None] = print,
) -> bool:
    """Work until the limit; whether all is done.

    Args:
        plan: of the study.
        data: folder that ``prepare`` wrote.
        out: folder of ``study.json``.
        scratch: folder for the checkpoint of a run that is cut.
        limit: of the call.
        rehearsal: whether the plan is the tiny one.
        echo: takes each line for the user.

    Raises:
        UserError: if data or state cannot be used.
    """
    device = alone().device
    task = load_text(data, plan.task, device)
    asked = {"rehearsal": rehearsal, "plan": plan.to_dict(), "data": task.fingerprint}
    state = states.begin(out, asked)
    if (data / TEXT).exists():
        state["text"] = read_json(data / TEXT)
    call = Call(plan, task, out, scratch, limit, state, echo, device)
    call.log = {**environment(torch.get_num_threads()), "said": []}
    state["calls"].append(call.log)
    counters.clear()
    # should a model be compiled anew after all: at eight torch would silently compile no more
    with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
        _compile(call)
        _time(call)
        return _train(call)


def _compile(call: Call) -> None:
    """One step, so that what torch.compile takes is known; without it where it does not work."""
    if not call.plan.execution.compile:
        return
    began = time.monotonic()
    try:
        ranks = alone()
        model = parallelize(call.task.build_model(0), ranks, call.plan.execution)
        optimizer = build_optimizer(model.bare, call.plan.arms[BASE], lr=0.0)
        Gradients(call.task, model, optimizer, call.plan.training, ranks, 0).make(0)
    except Exception as error:
        call.say(f"torch.compile does not work here, so it is left out: {reason(error)}")
        call.plan = replace(call.plan, execution=replace(call.plan.execution, compile=False))
    call.log["compiled"] = call.plan.execution.compile
    call.log["compile_seconds"] = round(time.monotonic() - began, 1)


def _time(call: Call) -> None:
    """The timing, unless it is known of this kind of device."""
    name, timing = call.log["device"], call.state["timing"]
    if name in timing:
        return
    try:
        timing[name] = {
            "torch": torch.__version__,
            "compiled": call.plan.execution.compile,
            **time_rules(call.plan, call.task, call.say),
        }
    except Exception as error:
        call.say(f"the steps could not be timed: {reason(error)}")
    call.save()


def _train(call: Call) -> bool:
    """Runs in their order; whether none is left."""
    rows = call.state["runs"]
    while (spec := next_run(call.plan, call.task.fingerprint, rows)) is not None:
        if call.limit.left <= 0 or not _run(call, spec):
            _tell(call, spec)
            return False
    call.say("all runs are done")
    call.save()
    return True


def _run(call: Call, spec: RunSpec) -> bool:
    """One run into the state; False where the call must end."""
    rows, healthy = call.state["runs"], True
    tries = rows.get(spec.run_id, {}).get("tries", 0) + 1
    try:
        row = carry_out(spec, call.task, call.plan.execution, call.scratch, call.limit)
    except TimeUp as cut:
        call.say(f"{spec.run_id} is cut after step {cut}: it goes on if {call.scratch} stays")
        return False
    except Exception as error:
        row, healthy = failed_row(error), device_answers(call.device)
    told = {"arm": spec.arm_name, "lr": spec.lr, "seed": spec.seed, "length": spec.steps}
    where = {"device": call.log["device"], "torch": call.log["torch"], "tries": tries}
    rows[spec.run_id] = {**told, **row, **where, "compiled": call.plan.execution.compile}
    end = row["reason"] if row["final_loss"] is None else f"{row['final_loss']:.4f}"
    call.say(f"{spec.run_id} {row['status']}: {end}")
    call.save()
    if not healthy:
        call.say("the device no longer computes in this process: the next call begins a new one")
    return healthy


def _tell(call: Call, spec: RunSpec) -> None:
    """Print the runs that are left, and the failures."""
    graphs = counters["stats"]["unique_graphs"]
    if graphs > GRAPHS:
        call.say(f"torch.compile made {graphs} graphs where {GRAPHS} was expected: time is lost")
    done = len(call.state["runs"])
    call.say(f"{done} runs so far, next {spec.run_id}: the same command goes on")
    call.save()
