"""Published comparisons of MARS-AdamW with AdamW, positive and negative."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files

NOTHING = 0.003  # nats: a smaller difference is no gain, by the most careful of the sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One published comparison.

    Args:
        who: found it, and where it stands.
        model: and data.
        parameters: of the model.
        tokens: trained on.
        batch_tokens: in one optimizer step.
        note: what to keep in mind.
        difference: final loss of MARS less AdamW's, nats per token; None where only the rank is
            known.
        outcome: "better", "no gain" or "worse", of MARS.
    """

    who: str
    model: str
    parameters: float
    tokens: float
    batch_tokens: float
    note: str
    difference: float | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A published result, and how far it is from the job.

    Args:
        result: as published.
        size_factor: its parameters over the job's.
        batch_factor: its batch over the job's.
        distance: of the two in logarithm, as the crow flies.
    """

    result: Result
    size_factor: float
    batch_factor: float
    distance: float


def published() -> tuple[Result, ...]:
    """All results of ``published.toml``."""
    text = files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
    return tuple(_result(row) for row in tomllib.loads(text)["result"])


def _result(row: dict[str, float | str]) -> Result:
    made = Result(**row)  # type: ignore[arg-type]
    if made.difference is None:
        return made
    better = "better" if made.difference < -NOTHING else "no gain"
    outcome = "worse" if made.difference > NOTHING else better
    return Result(**{**row, "outcome": outcome})  # type: ignore[arg-type]


def nearest(parameters: float, batch_tokens: float, count: int = 5) -> tuple[Match, ...]:
    """The results nearest in log parameters and log batch, nearest first.

    One without a gain is always among them, and one with: neither side is hidden by distance.
    """
    matches = []
    for result in published():
        size, batch = result.parameters / parameters, result.batch_tokens / batch_tokens
        distance = math.hypot(math.log(size), math.log(batch))
        match = Match(result=result, size_factor=size, batch_factor=batch, distance=distance)
        matches.append(match)
    matches.sort(key=lambda m: m.distance)
    chosen = matches[:count]
    for gain in (True, False):
        if all((m.result.outcome == "better") is not gain for m in chosen):
            other = next(m for m in matches if (m.result.outcome == "better") is gain)
            chosen[-1] = other
    return tuple(sorted(chosen, key=lambda m: m.distance))
