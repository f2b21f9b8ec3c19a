"""How much of the effect is MARS: the control, the ablations, the other comparisons."""

from __future__ import annotations

import math

from ..analysis import Analysis
from ..analysis.model import Contrast, Part
from ..analysis.stats import saved
from .document import Block, Cell, Section, Table, Text
from .messages import Messages
from .savings import BOUNDS, ends, saving_interval


def section(analysis: Analysis, words: Messages) -> Section:
    """A note on the control; tables of the parts and of the other comparisons, if there are."""
    blocks: list[Block] = []
    if note := control_note(analysis, words):
        blocks.append(Text(note))
    names = dict(baseline=analysis.baseline.name, candidate=analysis.candidate.name)
    if analysis.parts:
        head = (words("part.step"), words("tokens-saved"), words("part.seeds"))
        rows = tuple(_part(part, words) for part in analysis.parts)
        blocks.append(Table(words("table.parts", **names), head, rows))
    if analysis.contrasts:
        head = (words("contrast.comparison"), words("tokens-saved"), words("contrast.p"))
        rows = tuple(_contrast(contrast, words) for contrast in analysis.contrasts)
        blocks.append(Table(words("table.contrasts"), head, rows))
    return Section("cause", words("section.cause"), tuple(blocks))


def _part(part: Part, words: Messages) -> tuple[Cell, ...]:
    share = part.log_ratio.map(saved)
    arms = words("part.arms", before=part.before, after=part.after)
    return (
        Cell(words(f"part.{part.cause}"), arms),
        Cell(words.percent(share.mean), ends(share, words)),
        Cell(str(part.log_ratio.n)),
    )


def _contrast(contrast: Contrast, words: Messages) -> tuple[Cell, ...]:
    pair = Cell(words("contrast.pair", arm=contrast.arm, against=contrast.against))
    share, p = contrast.log_ratio.map(saved), contrast.p_holm
    if p is None:
        known = contrast.bound in BOUNDS
        sign = BOUNDS.get(contrast.bound, "")
        return pair, Cell(sign + words.percent(share.mean) if known else words("none")), Cell("")
    return (
        pair,
        Cell(words.percent(share.mean), ends(share, words)),
        Cell("< 0.001" if p < 0.001 else f"{p:.3f}"),
    )


def control_note(analysis: Analysis, words: Messages) -> str:
    """What the control arm says about the effect's cause."""
    control, candidate = analysis.control, analysis.candidate
    if control is None:
        return ""
    names = dict(control=control.name, candidate=candidate.name)
    parts = [words("control.what", **names)]
    if analysis.control_share is not None:
        parts.append(words("control.share", **names, share=analysis.control_share))
    elif candidate.log_ratio is not None:
        parts.append(words("control.none", **names, saving=saving_interval(control, words)))
    difference = analysis.against_control
    if difference is not None:
        parts.append(
            words(
                "control.lower" if difference.mean < 0 else "control.higher",
                **names,
                size=abs(difference.mean),
                ends=words("control.ends", low=difference.low, high=difference.high)
                if math.isfinite(difference.low)
                else words("one-pair"),
            )
        )
        if not (difference.low > 0 or difference.high < 0):
            parts.append(words("control.holds-zero"))
    return ("" if words.lang == "ja" else " ").join(parts)
