"""A transfer sheet and a coordinate check as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...optim.transfer import TOKENS
from .coordinates import Layer, broken
from .sheet import SMALL_RUNS, Row, Sheet

HEADER = ("arm", "group", "lr", "decay", "eps", "betas", "gamma", "start x")
NOTES = (
    "The rules: arXiv 2203.03466 (width), 2505.01618 (depth), 2409.19913 and 2603.28743 (tokens), "
    "2205.10287 (batch), 2512.05620 (decay). lr is the peak; keep the shape of the schedule.",
    "Attention keeps its 1/sqrt(head width): keep the base's head width and take more heads.",
    "gamma has no published rule: a fixed one stays as it was tuned, auto chooses it in the run.",
)


def lines(sheet: Sheet) -> list[str]:
    """The sheet for a reader."""
    changed = [
        f"{name} {sheet.base[name]:,.0f} -> {sheet.target[name]:,.0f}" for name in sheet.base
    ]
    told = ["Settings for " + ", ".join(changed) + " (batch in tokens)", ""]
    told += _table([HEADER, *map(_cells, sheet.rows)])
    told += [
        "",
        f"In the model: logits x {sheet.logits:.4g}, residual branches x {sheet.branches:.4g}; "
        '"start x" is of a weight\'s initial standard deviation.',
    ]
    if sheet.ratios.noise_scale is None and sheet.ratios.batch > 1.0:
        told.append(
            "A larger batch raises the rates only up to the noise scale: measure it with mars "
            "noise and give it as --noise-scale."
        )
    if sheet.factor_of_small_runs is not None:
        told.append(
            f"Tokens x {sheet.ratios.tokens:,.3g}: the exponent {TOKENS:g} was found from "
            "25 billion tokens on. AdamW's best rates in runs of 0.15 to 10 million tokens had "
            f"{SMALL_RUNS:g}, which would make every lr {sheet.factor_of_small_runs:.3g} times "
            "what stands above. Tune the rate at two longer lengths of the job, and give their "
            "slope as --tokens-exponent."
        )
    if sheet.falls_too_far:
        told.append(
            f"The largest embedding has {sheet.vocabulary:,} rows, fewer than the width of "
            f"{sheet.target['width']:,.0f}: without --large-vocabulary its lr stays."
        )
    told += [f"{name}: left out, {why}" for name, why in sheet.refused.items()]
    return [*told, *NOTES]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.arm,
        row.kind,
        f"{row.lr:.4g}",
        f"{row.weight_decay:.4g}",
        "-" if row.eps is None else f"{row.eps:.3g}",
        " ".join(f"{beta:.4g}" for beta in row.betas),
        f"{row.gamma:g}" if isinstance(row.gamma, float) else row.gamma,
        f"{row.start:.4g}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def check_lines(arm: str, layers: Sequence[Layer]) -> list[str]:
    """Lines on the coordinate check of an arm."""
    if not (bad := broken(layers)):
        return [f"Coordinates of {arm}: passed, {len(layers)} layers keep their size over widths"]
    named = [f"  {layer.name or 'the model'} {layer.why_not}" for layer in bad[:5]]
    return [f"Coordinates of {arm}: {len(bad)} of {len(layers)} layers break, the first", *named]


def edge_line(arm: str, *, searched: bool) -> str:
    """Line on an arm whose best rate has no worse one beside it.

    Args:
        arm: name in the plan.
        searched: by trials that go on until the best is bracketed; else by trials all over a range.
    """
    way = "raise tuning.max_trials" if searched else "widen tuning.range.lr"
    return (
        f"The best learning rate of {arm} in the pilot lies at the edge of those tried, so a "
        f"better one may lie beyond: {way}, in another --out."
    )


def as_json(
    sheet: Sheet, checks: Mapping[str, Sequence[Layer]], at_edge: Sequence[str] = ()
) -> dict[str, Any]:
    """Plain data: base, target, multipliers of the model, rows, and checks if any were made.

    Args:
        sheet: that is told.
        checks: of coordinates, by arm.
        at_edge: arms whose best rate lies at the edge of those tried.
    """
    told = {
        "base": dict(sheet.base),
        "target": dict(sheet.target),
        "logit_multiplier": sheet.logits,
        "residual_multiplier": sheet.branches,
        "tokens_exponent": sheet.ratios.tokens_exponent,
        "groups": [asdict(row) for row in sheet.rows],
        "at_edge": list(at_edge),
        "refused": dict(sheet.refused),
    }
    if checks:
        told["check"] = {
            arm: {
                "passed": not broken(layers),
                "layers": [
                    {"name": x.name, "start": _number(x.start), "change": _number(x.change)}
                    for x in layers
                ],
            }
            for arm, layers in checks.items()
        }
    return told


def _number(value: float) -> float | None:
    return None if value != value else value
