"""How much of the effect is MARS: the control, the ablations, the other comparisons."""

from __future__ import annotations

import math

from ...analysis import Analysis
from ...analysis.model import Contrast, Part
from ...analysis.stats import saved
from ...plan.any_arm import is_any
from ..document import Block, Cell, Section, Table, Text
from ..messages import Messages
from ..savings import BOUNDS, ends, saving_interval


def section(analysis: Analysis, say: Messages) -> Section:
    """A note on the control; tables of the parts and of the other comparisons, if there are."""
    blocks: list[Block] = []
    if note := control_note(analysis, say):
        blocks.append(Text(note))
    if note := settings_note(analysis, say):
        blocks.append(Text(note))
    names = dict(baseline=analysis.baseline.name, candidate=analysis.candidate.name)
    if analysis.parts:
        head = say.each("part.step", "tokens-saved", "part.seeds")
        rows = tuple(_part(part, say) for part in analysis.parts)
        blocks.append(Table(say("table.parts", **names), head, rows))
    if analysis.contrasts:
        head = say.each("contrast.comparison", "tokens-saved", "contrast.p")
        rows = tuple(_contrast(contrast, say) for contrast in analysis.contrasts)
        blocks.append(Table(say("table.contrasts"), head, rows))
    return Section("cause", say("section.cause"), tuple(blocks))


def _part(part: Part, say: Messages) -> tuple[Cell, ...]:
    share = part.log_ratio.map(saved)
    arms = say("part.arms", before=part.before, after=part.after)
    return (
        Cell(say(f"part.{part.cause}"), arms),
        Cell(say.percent(share.mean), ends(share, say)),
        Cell(str(part.log_ratio.n)),
    )


def _contrast(contrast: Contrast, say: Messages) -> tuple[Cell, ...]:
    pair = Cell(say("contrast.pair", arm=contrast.arm, against=contrast.against))
    share, p = contrast.log_ratio.map(saved), contrast.p_holm
    if p is None:
        known = contrast.bound in BOUNDS
        sign = BOUNDS.get(contrast.bound, "")
        return pair, Cell(sign + say.percent(share.mean) if known else say("none")), Cell("")
    return (
        pair,
        Cell(say.percent(share.mean), ends(share, say)),
        Cell("< 0.001" if p < 0.001 else f"{p:.3f}"),
    )


def settings_note(analysis: Analysis, say: Messages) -> str:
    """Which settings differ between a candidate that saves and the baseline, if no arm tells why.

    They may make much of the effect, and the baseline can have them for nothing.
    """
    candidate, baseline = analysis.candidate.settings, analysis.baseline.settings
    unknown = is_any(candidate.optimizer) or is_any(baseline.optimizer)
    in_python = analysis.plan.task.kind in ("gpt", "images", "python")
    told = analysis.parts or analysis.plan.comparison.ablations
    if told or unknown or not in_python or analysis.verdict.decision != "go":
        return ""
    given = candidate.betas, candidate.weight_decay
    for other in (arm.settings for arm in analysis.arms):
        alike = (other.optimizer, other.rule) == (baseline.optimizer, baseline.rule)
        if alike and (other.betas, other.weight_decay) == given:
            return ""  # the baseline's own optimizer with these settings
    pairs = [
        ("settings.betas", str(candidate.betas), str(baseline.betas)),
        ("settings.decay", f"{candidate.weight_decay:g}", f"{baseline.weight_decay:g}"),
    ]
    changes = [say(key, its=a, others=b) for key, a, b in pairs if a != b]
    if not changes or candidate.rule != baseline.rule:
        return ""
    names = dict(candidate=analysis.candidate.name, baseline=analysis.baseline.name)
    return say("settings.differ", **names, changes=say.listed(changes))


def control_note(analysis: Analysis, say: Messages) -> str:
    """The control arm's evidence about the effect's cause."""
    control, candidate = analysis.control, analysis.candidate
    if control is None:
        return ""
    names = dict(control=control.name, candidate=candidate.name)
    parts = [say("control.what", **names)]
    if analysis.control_share is not None:
        parts.append(say("control.share", **names, share=analysis.control_share))
    elif candidate.log_ratio is not None:
        parts.append(say("control.none", **names, saving=saving_interval(control, say)))
    difference = analysis.against_control
    if difference is not None:
        parts.append(
            say(
                "control.lower" if difference.mean < 0 else "control.higher",
                **names,
                size=abs(difference.mean),
                ends=say("control.ends", low=difference.low, high=difference.high)
                if math.isfinite(difference.low)
                else say("one-pair"),
            )
        )
        if not (difference.low > 0 or difference.high < 0):
            parts.append(say("control.holds-zero"))
    return say.prose(*parts)
