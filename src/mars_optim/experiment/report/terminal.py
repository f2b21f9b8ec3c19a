"""The verdict, or what runs show, in a terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.markup import escape

from ..analysis import Analysis, Survey
from .causes import control_note
from .messages import Messages, ticks
from .rollout import next_step_line
from .runs import lead
from .savings import saving_interval


def summary(analysis: Analysis, words: Messages | None = None) -> str:
    """The verdict for the terminal: a few lines, with rich's markup for colour."""
    words = words or Messages()
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
    lines += _aligned(columns)
    lines += [following] if (following := next_step_line(analysis, words)) else []
    lines += [note] if (note := control_note(analysis, words)) else []
    title = f"[bold {tint}]{escape(words.title(analysis).upper())}[/]"
    return "\n".join(["", title, *(escape(ticks(line)) for line in lines), ""])


def runs_summary(found: Survey, words: Messages | None = None) -> str:
    """What a folder of runs shows, for the terminal: plain lines."""
    words = words or Messages()
    lines = []
    for experiment in found.experiments:
        code, values = lead(experiment)
        arms = experiment.arms
        title = experiment.title or words("runs.of", task=experiment.task)
        lines += ["", title, words(code, **values)]
        published = (experiment.published.get(a.name) for a in arms)
        columns = [
            [words("arm"), *(a.name for a in arms)],
            [words("lr"), *(f"{a.lr:.3g}" for a in arms)],
            [
                words("terminal.loss"),
                *("-" if a.mean_loss is None else f"{a.mean_loss:.4f}" for a in arms),
            ],
            [words("seed"), *(str(len(a.seeds)) for a in arms)],
            [
                words("runs.published"),
                *(f"{p.loss:g}" if p and p.loss is not None else "-" for p in published),
            ],
        ]
        lines += _aligned(columns)
        if experiment.changed:
            lines.append(words("runs.note.changed", changes="; ".join(experiment.changed)))
    return "\n".join(ticks(line) for line in [*lines, ""])


def _aligned(columns: list[list[str]]) -> list[str]:
    """Rows of columns of equal width."""
    widths = [max(map(cell_len, column)) for column in columns]
    return [
        "  ".join(set_cell_size(c, w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
