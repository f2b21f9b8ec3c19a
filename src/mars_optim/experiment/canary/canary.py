"""Stage 2: AdamW continued against MARS continued, from the team's own checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import write_json
from ..plan.task import GptPlan, TaskPlan
from ..records import Run
from ..records.lock import pilot_lock
from ..records.production import CANARY_FORMAT
from ..tasks import Task
from .continued import ADAMW, HISTORY, MARS, Continuations
from .production_checkpoint import AdamWCheckpoint
from .result import CanaryResult, Continued, continued, judge
from .settings import CanarySettings


def canary(
    task: Task,
    checkpoint: AdamWCheckpoint,
    out: Path,
    settings: CanarySettings | None = None,
    *,
    plan: TaskPlan | None = None,
    candidate: str = "",
    environment: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> CanaryResult:
    """Continue the checkpoint under AdamW and under MARS, and say whether to go on.

    For each data order AdamW trains ``settings.history`` steps from the checkpoint, by which the
    guard's limits are known; from the state it has then, AdamW goes on in one branch and MARS, by
    ``migrate``, in the other, both on the same batches and decayed to zero. Finished runs are
    found again in ``out``.

    Args:
        task: model, batches and loss.
        checkpoint: read by :func:`read_checkpoint`.
        out: folder; gets ``runs/`` and ``canary.json``.
        settings: default: None, the defaults.
        plan: of the task, for the records (default: None, the built-in task's defaults).
        candidate: name of the arm in its plan, for the records (default: "", not known).
        environment: for the records.
        say: told of each run.

    Raises:
        UserError: if the checkpoint does not fit the task, AdamW's history has a loss that is not
            finite, or another canary or pilot runs in ``out``.
    """
    settings = settings or CanarySettings()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be used: {error.strerror}") from None
    with pilot_lock(out):
        runs = Continuations(
            task, checkpoint, settings, out, plan or GptPlan(), dict(environment or {})
        )
        scales, trials = _tune(runs, settings, say)
        seeds: list[Continued] = []
        for seed in settings.seeds:
            made = runs.pair(seed, scales)
            _check_history(made[HISTORY])
            seeds.append(continued(seed, made[HISTORY], made[ADAMW], made[MARS], settings))
            say(_line(seeds[-1]))
        edges = [n.split("-")[0] for n, x in trials.items() if scales[n] in (min(x), max(x))]
        result = judge(seeds, settings, scales, _advice(runs, scales, trials), edges)
        data = canary_data(result, settings, checkpoint, trials)
        told = dict(
            candidate=candidate,
            task=dataclasses.asdict(plan) if plan else {},
            date=str(made[MARS].environment.get("date", "")),
        )
        write_json(out / "canary.json", data | told)
        return result


def _tune(
    runs: Continuations, settings: CanarySettings, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, dict[float, float | None]]]:
    """The best scale of each arm, from equally many trials, and the trials' losses."""
    if len(settings.lr_scales) == 1:
        return dict.fromkeys((ADAMW, MARS), settings.lr_scales[0]), {}
    trials: dict[str, dict[float, float | None]] = {ADAMW: {}, MARS: {}}
    for scale in sorted(settings.lr_scales):
        made = runs.pair(settings.tuning_seed, dict.fromkeys(trials, scale))
        _check_history(made[HISTORY])
        for name in trials:
            trials[name][scale] = made[name].final_loss
            say(f"{name} at {scale:g} times the learning rate: {_loss(made[name].final_loss)}")

    def best(losses: dict[float, float | None]) -> float:
        return min(losses, key=lambda s: math.inf if (x := losses[s]) is None else x)

    return {name: best(losses) for name, losses in trials.items()}, trials


def _check_history(history: Run) -> None:
    if history.outcome is None or history.outcome.status == "diverged":
        raise UserError(
            f"the loss of AdamW itself is not finite in the history ({history.path}): check "
            "the checkpoint and its task"
        )


def _advice(
    runs: Continuations,
    scales: Mapping[str, float],
    trials: Mapping[str, Mapping[float, float | None]],
) -> list[str]:
    decay, scale = runs.group["weight_decay"], scales[MARS]
    advice = [
        f"Start MARS at {scale:g} times AdamW's learning rate ({runs.lr * scale:.3g} now) and "
        f"weight decay {decay / scale:.3g}, so that weights decay as before."
    ]
    if scale != 1.0:
        advice.append(
            f"Get there by a ramp of {runs.whole_ramp} steps, 2 / (1 - beta2): in each of them "
            "divide the weight decay by the multiple reached."
        )
        if runs.ramp < runs.whole_ramp:
            advice.append(
                f"This canary's ramp had {runs.ramp} steps, half of those before its decay: "
                "more steps try the whole one."
            )
    if not trials:
        advice.append(
            "Other learning rates were not tried: at the same one MARS takes smaller steps. "
            "lr_scales 1, 2, 4 tries them for both arms. Raise by a ramp of "
            f"{runs.whole_ramp} steps, 2 / (1 - beta2)."
        )
    advice.append(
        "Ten times the learning rate with a tenth of the decay is for runs that use MARS "
        "from their first step."
    )
    return advice


def _line(s: Continued) -> str:
    spike = f", {s.mars_spike.signal} at step {s.mars_spike.step}" if s.mars_spike else ""
    return f"data order {s.seed}: AdamW {_loss(s.adamw_loss)}, MARS {_loss(s.mars_loss)}{spike}"


def _loss(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


def canary_data(
    result: CanaryResult,
    settings: CanarySettings,
    checkpoint: AdamWCheckpoint,
    trials: Mapping[str, Mapping[float, float | None]],
) -> dict[str, Any]:
    """canary.json: what it says, with the numbers and the rule behind it, for programs."""
    data = dataclasses.asdict(result)
    data["difference"] = None
    if result.difference is not None:
        ends = dataclasses.asdict(result.difference)
        del ends["law"]  # of an interval that is none of a mean
        data["difference"] = {k: v if math.isfinite(v) else None for k, v in ends.items()}
    for row, seed in zip(data["seeds"], result.seeds, strict=True):
        row["difference"] = seed.difference
        for arm in ("adamw_spike", "mars_spike"):
            if row[arm]:
                row[arm] = {k: _plain(v) for k, v in row[arm].items()}
    return {
        "format": CANARY_FORMAT,
        "checkpoint": checkpoint.sha256,
        **data,
        "lr_trials": {name: {f"{s:g}": x for s, x in t.items()} for name, t in trials.items()},
        "settings": dataclasses.asdict(settings),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
