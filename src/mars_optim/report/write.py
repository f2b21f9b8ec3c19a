"""report.html, report.md and verdict.json."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .._version import __version__
from ..analysis import Analysis, Interval, Stage, next_stage, stages
from ..analysis.verdict import percent, saved
from ..records import UserError
from ..records.plan import plan_toml
from ..records.run import write_json, write_text
from . import figures, text

VERDICT_FORMAT = 1
FIGURES = ("saving", "ladder", "sweep", "curves")
TITLES = {"go": "Go", "no-go": "No-go", "not-enough-runs": "Not enough runs to tell"}


def write_report(analysis: Analysis, out: Path) -> tuple[Path, Path, Path]:
    """Write the three files, and the figures of report.md, into ``out``.

    Returns:
        Paths of report.html, report.md and verdict.json.

    Raises:
        UserError: if ``out`` cannot be written to.
    """
    paths = (out / "report.html", out / "report.md", out / "verdict.json")
    pictures = {name: getattr(figures, name)(analysis) for name in FIGURES}
    try:
        (out / "figures").mkdir(exist_ok=True)
        for name, svg in pictures.items():
            write_text(out / "figures" / f"{name}.svg", figures.standalone(svg))
        write_text(paths[0], render(analysis, "report.html.j2", pictures, out))
        write_text(paths[1], render(analysis, "report.md.j2", pictures, out))
        write_json(paths[2], verdict_data(analysis))
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written: {error.strerror}") from None
    return paths


def render(analysis: Analysis, template: str, pictures: dict[str, str], out: Path) -> str:
    """Fill a template: ``report.html.j2`` or ``report.md.j2``."""
    environment = Environment(
        loader=PackageLoader("mars_optim.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        a=analysis,
        t=text,
        percent=percent,
        title=TITLES[analysis.verdict.decision],
        # our own SVG, escaped where it was made
        figures={name: Markup(svg) for name, svg in pictures.items()},
        colour=lambda arm: figures.colour(analysis, arm),
        hours=text.hours_saved(analysis),
        stages=stages(analysis),
        plan_toml=plan_toml(analysis.plan),
        out=out.as_posix(),
        version=__version__,
    )


def verdict_data(analysis: Analysis) -> dict[str, Any]:
    """verdict.json: the decision, the numbers behind it, and the rule, for programs."""
    candidate, baseline = analysis.candidate, analysis.baseline
    hours = text.hours_saved(analysis)
    following = next_stage(analysis)
    return {
        "format": VERDICT_FORMAT,
        "mars_optim": __version__,
        "verdict": analysis.verdict.decision,
        "sentence": analysis.verdict.sentence,
        "reasons": list(analysis.verdict.reasons),
        "pairs_needed": analysis.verdict.pairs_needed,
        "baseline": baseline.name,
        "candidate": candidate.name,
        "rule": dataclasses.asdict(analysis.plan.decision),
        "tokens_saved": _interval(candidate.log_ratio.map(saved) if candidate.log_ratio else None),
        "hours_saved": _interval(hours),
        "control_share": analysis.control_share,
        "arms": {
            arm.name: {
                "role": arm.role,
                "lr": arm.lr,
                "lr_at_edge": arm.at_edge,
                "final_losses": {str(s.seed): s.loss for s in arm.seeds},
                "mean_loss": arm.mean_loss,
                "loss_difference": _interval(arm.loss_difference),
                "tokens_saved": _interval(arm.log_ratio.map(saved) if arm.log_ratio else None),
                "outside_ladder": sorted(arm.bounds),
                "diverged": arm.diverged,
                "step_time_ratio": arm.step_time[0] if arm.step_time else None,
                "state_bytes_per_parameter": arm.bytes_per_parameter,
            }
            for arm in analysis.arms
        },
        "next_stage": _stage(following) if following else None,
        "stages": [_stage(stage) for stage in stages(analysis)],
        "pilot": dataclasses.asdict(analysis.totals),
        "parameters": analysis.parameters,
        "tokens_per_run": analysis.unit_tokens,
        "amendments": list(analysis.amendments),
        "environment": analysis.environment,
    }


def _stage(stage: Stage) -> dict[str, Any]:
    """A stage, each condition with its text."""
    lists = {
        kind: [{**dataclasses.asdict(c), "text": c.text} for c in getattr(stage, kind)]
        for kind in ("entry", "exit", "rollback")
    }
    return {**dataclasses.asdict(stage), **lists}


def _interval(value: Interval | None) -> dict[str, Any] | None:
    if value is None:
        return None
    data = {"mean": value.mean, "low": value.low, "high": value.high, "pairs": value.n}
    return {key: end if math.isfinite(end) else None for key, end in data.items()}


def summary(analysis: Analysis) -> str:
    """The verdict for the terminal: a few lines, with rich's markup for colour."""
    tint = {"go": "green", "no-go": "red", "not-enough-runs": "yellow"}[analysis.verdict.decision]
    lines = [
        "",
        f"[bold {tint}]{TITLES[analysis.verdict.decision].upper()}[/]",
        analysis.verdict.sentence,
    ]
    lines += [f"  {reason}" for reason in analysis.verdict.reasons]
    lines.append("")
    width = max(len(a.name) for a in analysis.arms)
    head = f"{'arm':<{width}}  {'lr':>8}  {'loss':>8}  {'tokens saved':<28}  {'step time':>9}"
    lines.append(f"[bold]{head}[/]")
    for arm in analysis.arms:
        lr = f"{arm.lr:.2g}" if arm.lr else "-"
        mean = f"{arm.mean_loss:.4f}" if arm.mean_loss is not None else "-"
        step = f"{arm.step_time[0]:.2f}x" if arm.step_time else "-"
        lines.append(f"{arm.name:<{width}}  {lr:>8}  {mean:>8}  {text.saving(arm):<28}  {step:>9}")
    note = text.control_note(analysis)
    return "\n".join([*lines, *([note] if note else []), ""])
