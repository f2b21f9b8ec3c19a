"""The verdict in a terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.markup import escape

from ..analysis import Analysis
from .causes import control_note
from .savings import saving_interval
from .way import next_step
from .words import Words, ticks


def summary(analysis: Analysis, words: Words | None = None) -> str:
    """The verdict for the terminal: a few lines, with rich's markup for colour."""
    words = words or Words()
    tint = {"go": "green", "no-go": "red", "not-enough-runs": "yellow"}[analysis.verdict.decision]
    reasons = [f"  {words.finding(reason)}" for reason in analysis.verdict.reasons]
    lines = [words.sentence(analysis), *reasons, ""]
    columns = [
        [words("arm"), *(arm.name for arm in analysis.arms)],
        [words("lr"), *(f"{a.lr:.2g}" if a.lr else "-" for a in analysis.arms)],
        [
            words("terminal.loss"),
            *("-" if a.mean_loss is None else f"{a.mean_loss:.4f}" for a in analysis.arms),
        ],
        [words("tokens-saved"), *(saving_interval(arm, words) for arm in analysis.arms)],
        [
            words("step-time"),
            *(f"{a.step_time[0]:.2f}x" if a.step_time else "-" for a in analysis.arms),
        ],
    ]
    widths = [max(map(cell_len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = (set_cell_size(c, width) for c, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    lines += [following] if (following := next_step(analysis, words)) else []
    lines += [note] if (note := control_note(analysis, words)) else []
    title = f"[bold {tint}]{escape(words.title(analysis).upper())}[/]"
    return "\n".join(["", title, *(escape(ticks(line)) for line in lines), ""])
