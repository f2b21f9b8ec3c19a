"""The page of several pilots: verdicts and savings job by job, performance profiles."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..._version import __version__
from ..analysis.arm_model import ArmResult
from ..analysis.jobs import Job, Jobs, withheld
from ..analysis.profiles import TAUS, Profile, counted
from ..analysis.stats import saved
from .document import Cell, Page, Picture, Section, Table, Text, Tile
from .figures.draw import legend, svg_element
from .figures.theme import colour, pictured
from .messages import Messages, ticks
from .savings import ends, saving
from .verdict_json import saved_data

JOBS_FORMAT = 1
NEAR = 1.05
"""The factor that the first lines speak of."""


def build_jobs_page(found: Jobs, say: Messages) -> Page:
    """The page in the language of ``say``."""
    jobs = len(found.jobs)
    return Page(
        lang=say.lang,
        question=say("jobs.question", jobs=jobs),
        decision="runs",
        title=say("jobs.title", jobs=jobs, arms=len(found.arms)),
        lead=jobs_lead(found, say),
        tiles=_tiles(found, say),
        reasons=tuple(say.finding(f) for f in (*found.left_out, *found.notes)),
        reasons_title=say("runs.keep-in-mind"),
        following="",
        sections=(
            Section("evidence", say("jobs.section.jobs"), (jobs_table(found, say),)),
            Section(
                "profiles",
                say("jobs.section.profiles"),
                (_picture(found, say), _ratios(found, say), Text(say("jobs.how"))),
            ),
            Section(
                "repeat",
                say("section.repeat"),
                (Text(say("jobs.repeat", folders=_folders(found))),),
            ),
        ),
        footer=say("jobs.footer", version=__version__),
    )


def jobs_lead(found: Jobs, say: Messages) -> str:
    """How often each of the two arms that are near the best most often is."""
    order = _nearest(found)[:2]
    codes = ("jobs.lead", "jobs.lead.second")
    return say.prose(
        *(
            say(code, arm=p.arm, tau=NEAR - 1, confidence=found.confidence, **_within(p))
            for code, p in zip(codes, order, strict=False)
        )
    )


def _nearest(found: Jobs) -> list[Profile]:
    """The arms over the most jobs first, and of these the one that is near the best most often."""
    return sorted(found.profiles, key=lambda p: (-len(p.jobs), -p.share(NEAR)))


def _within(profile: Profile, tau: float = NEAR) -> dict[str, int]:
    jobs = len(profile.jobs)
    low, high = profile.ends(tau)
    return dict(
        n=round(profile.share(tau) * jobs),
        jobs=jobs,
        low=round(low * jobs),
        high=round(high * jobs),
    )


def _tiles(found: Jobs, say: Messages) -> tuple[Tile, ...]:
    decisions = [job.analysis.verdict.decision for job in found.jobs]
    counts = {key: decisions.count(key) for key in ("go", "no-go", "not-enough-runs")}
    verdicts = Tile(
        say("jobs.tile.verdicts"), say("jobs.tile.value", **counts), say("jobs.tile.detail")
    )
    near = _nearest(found)[:3]
    return (
        verdicts,
        *(
            Tile(
                say("jobs.tile.within", arm=p.arm, tau=NEAR - 1),
                say("jobs.of", **at),
                say("jobs.ends", **at),
            )
            for p, at in ((p, _within(p)) for p in near)
        ),
    )


def jobs_table(found: Jobs, say: Messages) -> Table:
    """A row per job: the verdict, and what each arm saves."""
    return Table(
        say("jobs.table"),
        (*say.each("jobs.job", "jobs.verdict"), *found.names),
        tuple(
            (
                Cell(job.name),
                Cell(say.title(job.analysis), job.analysis.candidate.name),
                *(_saving(job, name, say) for name in found.names),
            )
            for job in found.jobs
        ),
    )


def _saving(job: Job, name: str, say: Messages) -> Cell:
    arm = _arm(job, name)
    if arm is None:
        waits = name in withheld(job.analysis)
        return Cell(say("jobs.not-run-here"), say("jobs.waits") if waits else "")
    if arm.role == "baseline":
        return Cell(say("none"), say("jobs.baseline"))
    if arm.diverged:
        return Cell(say("diverged"))
    share = arm.log_ratio and arm.log_ratio.map(saved)
    return Cell(saving(arm, say), "" if arm.all_bounds else ends(share, say, arm.bounds))


def _arm(job: Job, name: str) -> ArmResult | None:
    return next((a for a in job.analysis.arms if a.name == name), None)


def _ratios(found: Jobs, say: Messages) -> Table:
    """Tau of every arm in every job."""
    return Table(
        say("jobs.ratios"),
        (say("jobs.job"), *(p.arm for p in found.profiles)),
        tuple((Cell(job.name), *(_tau(p, job, say) for p in found.profiles)) for job in found.jobs),
    )


def _tau(profile: Profile, job: Job, say: Messages) -> Cell:
    if job.name not in profile.over:
        return Cell(say("none"))
    known = profile.at(job.name)
    if known is None:
        return Cell(say("jobs.never"))
    low, high = (f"{end:.3f}" for end in known.limits(profile.confidence))
    return Cell(f"{known.tau:.3f}", say("between", low=low, high=high))


def _picture(found: Jobs, say: Messages) -> Picture:
    def cell(profile: Profile, tau: float) -> Cell:
        at = _within(profile, tau)
        return Cell(say("jobs.of", **at), say("jobs.ends", **at))

    data = Table(
        say("jobs.figure.data"),
        (say("arm"), *(say("jobs.times", tau=tau) for tau in TAUS)),
        tuple((Cell(p.arm, arm=p.arm), *(cell(p, tau) for tau in TAUS)) for p in found.profiles),
    )
    return Picture(
        "profiles",
        say("jobs.figure.text"),
        say("jobs.figure.caption", jobs=len(found.jobs), confidence=found.confidence),
        data,
        svg_element("profiles", lambda ax: _draw(ax, found, say), height=3.6),
    )


def _draw(ax: Axes, found: Jobs, say: Messages) -> None:
    taus = np.linspace(1.0, found.top, 200)
    profiles = {p.arm: p for p in found.profiles}
    shown = [arm for arm in pictured(found) if arm.name in profiles]
    for i, arm in enumerate(shown):
        profile, tint = profiles[arm.name], colour(found, arm)
        apart = 1.2 * (i - (len(shown) - 1) / 2)  # lines that coincide stay apart
        bands = np.array([profile.ends(tau) for tau in taus.tolist()])
        low, high = 100 * bands.T + apart
        ax.fill_between(taus, low, high, step="post", color=tint, alpha=0.1, lw=0)
        shares = [100 * profile.share(tau) + apart for tau in taus.tolist()]
        ax.step(taus, shares, where="post", color=tint, lw=2, label=_label(profile, found, say))
    ax.set_xlim(1.0, found.top)
    ax.set_ylim(-5, 106)
    ax.set_xlabel(say("jobs.figure.x"))
    ax.set_ylabel(say("jobs.figure.y"))
    legend(ax)


def _label(profile: Profile, found: Jobs, say: Messages) -> str:
    """Name of an arm; with its jobs, where these are not all."""
    n, jobs = len(profile.jobs), len(found.jobs)
    return profile.arm if n == jobs else say("jobs.figure.some", arm=profile.arm, n=n, jobs=jobs)


def _folders(found: Jobs) -> str:
    return " ".join(shlex.quote(str(job.path)) for job in found.jobs)


def jobs_data(found: Jobs) -> dict[str, Any]:
    """jobs.json: the numbers, for programs; null for a tau that is never reached or not told."""
    english = Messages()
    return {
        "format": JOBS_FORMAT,
        "mars_optim": __version__,
        "confidence": found.confidence,
        "jobs": {job.name: _job_data(job, found) for job in found.jobs},
        "profiles": {
            p.arm: [
                {"tau": tau, "jobs": len(p.jobs), "share": p.share(tau), "low": low, "high": high}
                for tau in TAUS
                for low, high in [p.ends(tau)]
            ]
            for p in found.profiles
        },
        "left_out": [ticks(english.finding(f)) for f in found.left_out],
        "notes": [ticks(english.finding(f)) for f in found.notes],
    }


def _job_data(job: Job, found: Jobs) -> dict[str, Any]:
    analysis = job.analysis
    taus = {p.arm: _tau_data(p, job.name) for p in found.profiles}
    return {
        "folder": str(job.path),
        "verdict": analysis.verdict.decision,
        "baseline": analysis.baseline.name,
        "candidate": analysis.candidate.name,
        "arms": {
            arm.name: {
                "tokens_saved": saved_data(arm.log_ratio, arm.bounds),
                "tau": taus.get(arm.name),
                "counted": counted(arm),
            }
            for arm in analysis.arms
        },
        "withheld": list(withheld(analysis)),
    }


def _tau_data(profile: Profile, job: str) -> dict[str, float] | None:
    known = profile.at(job)
    if known is None:
        return None
    low, high = known.limits(profile.confidence)
    return {"mean": known.tau, "low": low, "high": high}
