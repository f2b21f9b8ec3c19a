"""Stages and their conditions, as plain data, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["done", "next", "later", "closed"]

TEXTS = {
    "plan-fixed": "The plan, with its rule, was fixed before the first run.",
    "plan-amended": "The plan was changed {changes} times after the first run: see the report.",
    "runs-complete": "All runs of the comparison are there: {missing} are missing.",
    "saving-sure": (
        "The whole {level} interval of the tokens saved lies above {worth}: measured {low} to "
        "{high}, {pairs} paired seeds."
    ),
    "saving-unknown": (
        "The whole {level} interval of the tokens saved lies above {worth}: no interval yet."
    ),
    "rates-tuned": "No best learning rate lies at the edge of those tried{edges}.",
    "none-diverged": "No run of {candidate} diverges at its tuned rate: {diverged} of {runs} did.",
    "pilot-untouched": "Nothing to take back: the pilot touches no production run.",
    "pilot-no-go": "The whole interval lies below {worth}, or a run diverges: {baseline} stays.",
    "pilot-go": "The pilot says go: it says {decision}.",
    "checkpoint": (
        "A checkpoint of the {baseline} run with its moments, from before its learning rate decays."
    ),
    "same-moments": "The moments can be carried: {candidate} keeps those of AdamW.",
    "other-moments": (
        "Rule {rule} of {candidate} keeps other moments than AdamW's: there is nothing to migrate "
        "and no way back by the guard. Switch only at the start of a run."
    ),
    "memory": (
        "Memory for the optimizer's state: {bytes} bytes per parameter instead of {baseline_bytes}."
    ),
    "step-time": (
        "A step of the real job takes at most {limit} times {baseline}'s: beyond, the tokens "
        "surely saved ({low}) cost more hours than they save. In the pilot: {ratio} times."
    ),
    "no-spike": (
        "No spike at the switch, in any seed: the guard's loss signals stay off wherever they do "
        "for {baseline} continued."
    ),
    "continued-better": (
        "The whole {level} interval of the paired difference in final loss, {candidate} less "
        "{baseline} continued, lies below zero. Start with {pairs} data orders."
    ),
    "canary-spike": "A spike or a loss that is not finite in any seed.",
    "canary-worse": "The whole interval of the paired difference lies above zero.",
    "canary-copy": (
        "To go back is to end the canary: it is a copy, the real run went on under {baseline}."
    ),
    "canary-go": "The canary says go on.",
    "history": (
        "A history of at least {steps} steps of {baseline} was recorded: loss, gradient norm, step "
        "time."
    ),
    "drill": "Going back was rehearsed on this job with a learning rate multiplied by 30.",
    "planned-end": (
        "The run ends at {share} of {baseline}'s tokens ({share_low} to {share_high}), at a loss "
        "no higher than {baseline} would have had."
    ),
    "guard-nonfinite": "At once: a loss that is not finite.",
    "guard-loss": (
        "More than half of {patience} losses in a row lie above the running median of {window} by "
        "more than {sigmas} deviations of such a median in the history, and {rise}."
    ),
    "guard-drift": "The running median itself lies {rise} above its lowest.",
    "guard-warns": (
        "Only warned of: gradient norm above {grad_norm} times the history's 99 % quantile, share "
        "of clipped tensors {clip_share} above the history's, steps {step_time} times as long."
    ),
    "guard-action": (
        "Going back is to the newest snapshot from before the trouble, as AdamW with its moments: "
        "about {lost} steps are lost, at {every} steps between snapshots."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of the checklist.

    Args:
        key: in :data:`TEXTS`.
        numbers: what stands in the text, as text.
        met: whether it holds; None if the pilot cannot know.
    """

    key: str
    numbers: dict[str, str]
    met: bool | None = None

    @property
    def text(self) -> str:
        """In English, with its numbers."""
        return TEXTS[self.key].format(**self.numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage with what must hold to enter it, to leave it upwards, and what sends it back.

    Args:
        number: 1, 2 or 3.
        key: "pilot", "canary" or "production".
        title: for a reader.
        status: "done", "next", "later", or "closed": not to be entered.
        command: what carries it out.
        entry: all must hold.
        exit: all must hold to go on to the next stage.
        rollback: any one ends the stage; with what ending it means.
    """

    number: int
    key: Literal["pilot", "canary", "production"]
    title: str
    status: Status
    command: str
    entry: tuple[Condition, ...]
    exit: tuple[Condition, ...]
    rollback: tuple[Condition, ...]
