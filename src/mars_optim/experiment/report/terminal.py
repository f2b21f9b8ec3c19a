"""The verdict, or what runs show, in a terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.markup import escape

from ..analysis import Analysis, Survey, went_back
from ..analysis.action import action
from ..analysis.jobs import Jobs
from ..records.checks import ArmCheck
from .messages import Messages, ticks
from .savings import saving_interval
from .sections.action_line import action_line
from .sections.cause import control_note, settings_note
from .sections.rollout import next_step_line


def summary(analysis: Analysis, say: Messages | None = None) -> str:
    """The verdict for the terminal: a few lines, with rich's markup for colour."""
    say = (say or Messages()).about(analysis.plan.decision)
    tint = {"go": "green", "no-go": "red", "not-enough-runs": "yellow"}[
        "no-go" if went_back(analysis.aftermath) else analysis.verdict.decision
    ]
    reasons = [f"  {say.finding(reason)}" for reason in analysis.verdict.reasons]
    told = action_line(analysis, action(analysis), say)
    lines = [told, say.sentence(analysis), *reasons, ""]
    columns = [
        [say("arm"), *(arm.name for arm in analysis.arms)],
        [say("lr"), *(f"{a.lr:.2g}" if a.lr else "-" for a in analysis.arms)],
        [
            say("terminal.loss"),
            *("-" if a.mean_loss is None else f"{a.mean_loss:.4f}" for a in analysis.arms),
        ],
        [say("tokens-saved"), *(saving_interval(arm, say) for arm in analysis.arms)],
        [
            say("step-time"),
            *(f"{a.step_time[0]:.2f}x" if a.step_time else "-" for a in analysis.arms),
        ],
    ]
    lines += _aligned(columns)
    lines += [_checked(name, check, say) for name, check in analysis.checks.items()]
    lines += [say("happened.refused", why=why) for why in analysis.aftermath.refused]
    lines += [following] if (following := next_step_line(analysis, say)) else []
    lines += [note for told in (control_note, settings_note) if (note := told(analysis, say))]
    title = f"[bold {tint}]{escape(say.title(analysis).upper())}[/]"
    return "\n".join(["", title, *(escape(ticks(line)) for line in lines), ""])


def _checked(name: str, check: ArmCheck, say: Messages) -> str:
    found = say.listed(what for what, _ in check.found) or say("optimizers.nothing")
    about = dict(arm=name, optimizer=check.optimizer, version=check.version)
    return say("terminal.optimizer", **about, found=found)


def runs_summary(found: Survey, say: Messages | None = None) -> str:
    """Summary of a folder of runs, for the terminal: plain lines."""
    from .runs_page import lead  # which draws, too: matplotlib is slow to import

    say = say or Messages()
    lines = []
    for experiment in found.experiments:
        code, values = lead(experiment)
        arms = experiment.arms
        title = experiment.title or say("runs.of", task=experiment.task)
        lines += ["", title, say(code, **values)]
        published = (experiment.published.get(a.name) for a in arms)
        columns = [
            [say("arm"), *(a.name for a in arms)],
            [say("lr"), *(f"{a.lr:.3g}" for a in arms)],
            [
                say("terminal.loss"),
                *("-" if a.mean_loss is None else f"{a.mean_loss:.4f}" for a in arms),
            ],
            [say("seed"), *(str(len(a.seeds)) for a in arms)],
            [
                say("runs.published"),
                *(f"{p.loss:g}" if p and p.loss is not None else "-" for p in published),
            ],
        ]
        lines += _aligned(columns)
        if experiment.changed:
            lines.append(say("runs.note.changed", changes="; ".join(experiment.changed)))
    return "\n".join(ticks(line) for line in [*lines, ""])


def jobs_summary(found: Jobs, say: Messages | None = None) -> str:
    """Verdicts and savings job by job, for the terminal: plain lines."""
    from .jobs_page import jobs_lead, jobs_table

    say = say or Messages()
    table = jobs_table(found, say)
    rows = [[f"{c.text} ({c.detail})" if c.detail else c.text for c in row] for row in table.rows]
    columns = [list(column) for column in zip(table.head, *rows, strict=True)]
    notes = [f"  {say.finding(f)}" for f in (*found.left_out, *found.notes)]
    lines = [
        "",
        jobs_lead(found, say),
        *notes,
        "",
        table.caption + say("colon"),
        *_aligned(columns),
        "",
    ]
    return "\n".join(ticks(line) for line in lines)


def _aligned(columns: list[list[str]]) -> list[str]:
    """Rows of columns of equal width."""
    widths = [max(map(cell_len, column)) for column in columns]
    return [
        "  ".join(set_cell_size(c, w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
