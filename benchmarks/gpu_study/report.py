"""``study.json`` as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mars_optim.experiment.analysis.ladder import tokens_to_reach
from mars_optim.experiment.analysis.stats import Interval, t_interval

from .. import table
from .plan import BASE, BASES
from .state import State

CONFIDENCE = 0.95
Finals = Mapping[int, float]
"""Final losses by seed."""


def report(state: State) -> str:
    """Timing, short runs and long runs, each as far as it is there."""
    head = "# GPU study" + (" (rehearsal: the numbers mean nothing)" * state["rehearsal"])
    parts = [head, _text(state), *_timing(state), _short(state), _long(state), _said(state)]
    return "\n\n".join(part for part in parts if part)


def _text(state: State) -> str:
    runs, text = list(state["runs"].values()), state.get("text", {})
    devices = sorted({f"{call['device']}, torch {call['torch']}" for call in state["calls"]})
    model = next((f"{r['parameters']:,} parameters" for r in runs if "parameters" in r), "a model")
    package = f"{text['package']} {text['version']}" if text else "the text"
    spent = sum(call.get("seconds", 0.0) for call in state["calls"])
    return (
        f"{model} on {package}, {state['plan']['training']['precision']}; {'; '.join(devices)}; "
        f"{len(state['calls'])} calls, {spent / 60:.1f} minutes."
    )


def _timing(state: State) -> list[str]:
    """A table for each kind of device."""
    parts = []
    for device, timing in state["timing"].items():
        rows = [
            [
                name,
                table.milliseconds(row["step_seconds"]["median"]),
                f"{row['ratio']['median']:.2f}",
                f"{row['ratio']['q1']:.2f} to {row['ratio']['q3']:.2f}",
                f"{row['share']['median']:.1%}",
            ]
            for name, row in timing["rules"].items()
        ]
        header = ["step", "time", "ratio to torch's fused AdamW", "quartiles", "share"]
        title = f"## Step times, {device}, {timing['rounds']} rounds of {timing['turn']} steps"
        parts += [title, table.markdown(header, rows)]
    return parts


def _short(state: State) -> str:
    runs = [r for r in state["runs"].values() if r["length"] == _length(state, "short_steps")]
    if not runs:
        return ""
    rates = sorted({run["lr"] for run in runs})
    losses = {(run["arm"], run["lr"]): _loss(run) for run in runs}
    rows = [
        [arm, *(losses.get((arm, lr), "") for lr in rates)]
        for arm in dict.fromkeys(run["arm"] for run in runs)
    ]
    title = f"## Short runs: validation loss after {_length(state, 'short_steps'):,} steps"
    shown = table.markdown(["arm", *(f"{lr:.3g}" for lr in rates)], rows)
    ends = [arm for arm, *_ in rows if _lowest_at_an_end(runs, arm)]
    note = f"\n\nLowest at an end of its rates, so not tuned: {', '.join(ends)}." if ends else ""
    return f"{title}\n\n{shown}{note}"


def _lowest_at_an_end(runs: list[dict[str, Any]], arm: str) -> bool:
    """Whether an arm's best rate may lie beyond those that were tried."""
    losses = {r["lr"]: r["final_loss"] for r in runs if r["arm"] == arm}
    known = {lr: loss for lr, loss in losses.items() if loss is not None}
    # a run that diverged beyond the lowest is a wall, and so an end that was found
    return bool(known) and min(known, key=known.__getitem__) in (min(losses), max(losses))


def _long(state: State) -> str:
    runs = [r for r in state["runs"].values() if r["length"] == _length(state, "long_steps")]
    if not runs:
        return "Long runs: none finished yet."
    finals = {arm: final_losses(state, arm) for arm in dict.fromkeys(run["arm"] for run in runs)}
    bases = [base for base in BASES if base in finals or base == BASE]
    rows = [_long_row(state, arm, finals, bases) for arm in finals]
    header = ["arm", "rate", "seeds", "loss"]
    header += [name for base in bases for name in (f"less {base}", "95 %")]
    header += ["tokens ratio", "tokens/s", "peak memory", "diverged or failed"]
    title = f"## Long runs: validation loss after {_length(state, 'long_steps'):,} steps"
    note = (
        "Differences are paired by seed. The tokens ratio is told where their interval leaves out "
        f"0: tokens that {BASE} takes over those that the arm takes to the worse one's loss, read "
        "between the short and the long runs of the better one; a straight line there lies above "
        "a curve that flattens, so it is nearer to 1 than the truth."
    )
    return f"{title}\n\n{table.markdown(header, rows)}\n\n{note}"


def _long_row(
    state: State, arm: str, finals: Mapping[str, Finals], bases: Sequence[str]
) -> list[str]:
    runs = _runs(state, arm, "long_steps")
    mine = finals[arm]
    difference = paired(mine, finals.get(BASE, {}))
    two = arm != BASE and difference.n > 1
    speeds = [run["tokens_per_second"] for run in runs if run.get("tokens_per_second")]
    peaks = [run["peak_memory_bytes"] for run in runs if run.get("peak_memory_bytes")]
    ratio = tokens_ratio(state, arm, difference) if two else None
    return [
        arm,
        f"{runs[0]['lr']:.3g}",
        str(len(mine)),
        f"{statistics.fmean(mine.values()):.4f}" if mine else "-",
        *(cell for base in bases for cell in _less(arm, base, finals)),
        table.number(ratio),
        f"{statistics.median(speeds):,.0f}" if speeds else "-",
        f"{max(peaks) / 2**30:.1f} GiB" if peaks else "-",
        str(len(runs) - len(mine)),
    ]


def _less(arm: str, base: str, finals: Mapping[str, Finals]) -> tuple[str, str]:
    """Difference to a base and its interval, as far as there are seeds."""
    difference = paired(finals[arm], finals.get(base, {}))
    if arm == base or not difference.n:
        return "-", "-"
    ends = f"{difference.low:+.4f} to {difference.high:+.4f}" if difference.n > 1 else "-"
    return f"{difference.mean:+.4f}", ends


def final_losses(state: State, arm: str) -> dict[int, float]:
    """Final losses of an arm's long runs, where they have one."""
    runs = _runs(state, arm, "long_steps")
    return {run["seed"]: run["final_loss"] for run in runs if run["final_loss"] is not None}


def paired(mine: Finals, base: Finals) -> Interval:
    """The difference to the base, by the seeds that both have."""
    return t_interval(
        [mine[seed] - base[seed] for seed in sorted(mine) if seed in base], CONFIDENCE
    )


def tokens_ratio(state: State, arm: str, difference: Interval) -> float | None:
    """Above 1 where the arm takes fewer tokens than the base; None where it cannot be told."""
    if difference.low <= 0 <= difference.high:
        return None
    better, worse = (arm, BASE) if difference.mean < 0 else (BASE, arm)
    short = [r["final_loss"] for r in _runs(state, better, "short_steps") if r["final_loss"]]
    tokens = [_tokens(state, length) for length in ("short_steps", "long_steps")]
    finals = [final_losses(state, name) for name in (better, worse)]
    ends = [
        statistics.fmean(f[seed] for seed in finals[0].keys() & finals[1].keys()) for f in finals
    ]
    if not short:
        return None
    reading = tokens_to_reach([(tokens[0], min(short)), (tokens[1], ends[0])], ends[1])
    if reading.bound:
        return None
    taken = reading.tokens / tokens[1]
    return 1 / taken if better == arm else taken


def _runs(state: State, arm: str, length: str) -> list[dict[str, Any]]:
    steps = _length(state, length)
    return [r for r in state["runs"].values() if (r["arm"], r["length"]) == (arm, steps)]


def _tokens(state: State, length: str) -> int:
    task = state["plan"]["task"]
    return int(_length(state, length) * task["batch"] * task["context"])


def _length(state: State, length: str) -> int:
    return int(state["plan"]["design"][length])


def _loss(run: Mapping[str, Any]) -> str:
    loss = run["final_loss"]
    return run["status"] if loss is None or not math.isfinite(loss) else f"{loss:.4f}"


def _said(state: State) -> str:
    """Words of the calls that are not in the runs."""
    lines = [line for call in state["calls"] for line in call["said"] if "torch.compile" in line]
    return "\n".join(f"- {line}" for line in dict.fromkeys(lines))
