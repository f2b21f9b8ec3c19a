"""``mars report``: what there is, for readers."""

from __future__ import annotations

import lzma
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError, check_folder

PACKED = "runs.tar.xz"  # beside where runs/ would be
Lang = Literal["en", "ja"]  # report.Lang, whose import would make --help slow


def report(
    out: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = (),
    *,
    source: Annotated[
        tuple[str, ...],
        Parameter(name="--from", negative="", consume_multiple=True, show_default=False),
    ] = (),
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    to: Path | None = None,
    lang: Lang = "en",
    canary: Path | None = None,
    guard: Path | None = None,
    pdf: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Analyse the runs of a pilot, of mars train, or any others, and write the report.

    Train nothing. From several pilots, write one page: verdict and saving of each, and
    performance profiles of their arms.

    Parameters
    ----------
    out:
        Folder of the pilot (default: mars-pilot), or of runs that mars train made; its runs can be
        packed as runs.tar.xz. Several pilots: their folders. With --from, the folder to write
        (default: mars-imported).
    source:
        Runs that exist already: a TOML file that maps files to runs (mars init runs), a pattern
        such as "runs/{arm}-seed{seed}-steps{steps}.csv", a folder of files with such names, or the
        export of a W&B chart. Formats: JSONL, CSV and TensorBoard event files.
    set:
        With --from: change one key of that TOML file, such as --set columns.valid_loss=eval/loss.
    to:
        With several pilots, the folder for their page (default: mars-jobs).
    lang:
        Language of the report: en, or ja for Japanese (report.ja.html, report.ja.md).
    canary:
        Result of mars canary: canary.json or its folder (default: the pilot's folder, its canary/
        or its mars-canary/).
    guard:
        Log of a guarded run, as Guard(log=...) writes it (default: guard.jsonl in the pilot's
        folder).
    pdf:
        Also write report.pdf, one page for a meeting, with a Chromium, Chrome or Edge on this
        machine (the environment variable CHROME names another).
    """
    console = Console(highlight=False)
    of_pilot = {"--canary": canary, "--guard": guard, "--pdf": pdf or None}
    given = next((option for option, value in of_pilot.items() if value is not None), None)
    if len(out) > 1:
        if given:
            raise UserError(f"{given} works with one pilot, and {len(out)} are given")
        if source or set:
            option = "--from" if source else "--set"
            raise UserError(f"{option} works with one folder, and {len(out)} are given")
        return write_jobs(out, to or Path("mars-jobs"), console, lang)
    if to is not None:
        raise UserError(
            "--to works only with several pilots; the report of one pilot stands in its own folder"
        )
    folder = out[0] if out else Path("mars-imported" if source else "mars-pilot")
    if source:
        from .imports import import_from

        console.print(import_from(source, set, folder), soft_wrap=True, markup=False)
    elif set:
        raise UserError("--set works only with --from; `mars pilot` sets the keys of a pilot")
    unpack(folder)
    if (folder / "plan.toml").exists():
        return write(folder, console, lang, canary=canary, guard=guard, pdf=pdf)
    if given:
        raise UserError(
            f"{given} works only with a pilot, and {folder} has no plan.toml: leave it out"
        )
    if (folder / "runs").is_dir():
        return write_runs(folder, console, lang)
    check_folder(folder)
    raise UserError(
        f"{folder} holds neither a pilot (plan.toml) nor runs (runs/): `mars pilot --out "
        f"{folder}` makes a pilot, `mars train RECIPE.toml --out {folder}` makes a run"
    )


def unpack(out: Path) -> None:
    """Make ``runs/`` from the archive in ``out``, whole or not at all, where only that is there.

    Raises:
        UserError: if that cannot be done.
    """
    if (out / "runs").exists() or not (out / PACKED).exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=out) as folder, tarfile.open(out / PACKED) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # nothing outside it
            archive.extractall(folder)
            os.replace(Path(folder) / "runs", out / "runs")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(
            f"{out / PACKED} cannot be unpacked: {error}; it must be an archive of the folder runs"
        ) from None


def write(
    out: Path,
    console: Console,
    lang: Lang,
    *,
    canary: Path | None = None,
    guard: Path | None = None,
    pdf: bool = False,
) -> None:
    """Write the report of ``out`` and say the verdict.

    Args:
        out: folder of the pilot.
        console: to say it to.
        lang: of the report.
        canary: result of stage 2 (default: None, looked for in ``out``).
        guard: log of stage 3 (default: None, looked for in ``out``).
        pdf: whether to write the page for a meeting too (default: False).

    Raises:
        UserError: if there is nothing to report, or no browser for the PDF.
    """
    from ..experiment.analysis import analyse
    from ..experiment.export.optuna_journal import write_journal
    from ..experiment.report import Messages, summary, write_brief, write_report

    analysis, say = analyse(out, canary=canary, guard=guard), Messages(lang)
    paths = write_report(analysis, out, say)
    write_journal(analysis, out)
    console.print(summary(analysis, say), soft_wrap=True)
    console.print(say("terminal.report", path=paths[0]), soft_wrap=True, markup=False)
    if pdf:
        made = write_brief(analysis, out, say)
        console.print(say("terminal.pdf", path=made), soft_wrap=True, markup=False)


def write_runs(out: Path, console: Console, lang: Lang) -> None:
    """Write the report of a folder of runs without a plan, and say what they show."""
    from ..experiment.analysis import survey
    from ..experiment.report import Messages, runs_summary, write_runs_report

    found, say = survey(out), Messages(lang)
    paths = write_runs_report(found, out, say)
    console.print(runs_summary(found, say), soft_wrap=True, markup=False)
    console.print(say("terminal.report", path=paths[0]), soft_wrap=True, markup=False)


def write_jobs(folders: tuple[Path, ...], out: Path, console: Console, lang: Lang) -> None:
    """Write the page of several pilots into ``out``, and say what they show."""
    from ..experiment.analysis.jobs import jobs_of
    from ..experiment.report import Messages, jobs_summary, write_jobs_report

    if out.resolve() in {folder.resolve() for folder in folders}:
        raise UserError(
            f"--to {out} is the folder of one of the pilots, whose own report is there: name "
            "another folder"
        )
    for folder in folders:
        unpack(folder)
    found, say = jobs_of(folders), Messages(lang)
    paths = write_jobs_report(found, out, say)
    console.print(jobs_summary(found, say), soft_wrap=True, markup=False)
    console.print(say("terminal.report", path=paths[0]), soft_wrap=True, markup=False)
