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

from ..errors import UserError

PACKED = "runs.tar.xz"  # beside where runs/ would be
Lang = Literal["en", "ja"]  # report.Lang, whose import would make --help slow


def report(
    out: Path | None = None,
    *,
    source: Annotated[
        tuple[str, ...],
        Parameter(name="--from", negative="", consume_multiple=True, show_default=False),
    ] = (),
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    lang: Lang = "en",
) -> None:
    """Analyse the runs of a pilot, of mars train, or any others, and write the report.

    No training.

    Parameters
    ----------
    out:
        Folder of the pilot (mars-pilot), or of runs that mars train made; its runs may be packed
        as runs.tar.xz. With --from, the folder to write (mars-imported).
    source:
        Runs that exist already: a TOML file that says which is which (mars init runs), a pattern
        such as "runs/{arm}-seed{seed}-steps{steps}.csv", a folder of files so named, or a chart's
        export from W&B. JSONL, CSV and TensorBoard event files are read.
    set:
        With --from: change one key of that TOML file, such as --set columns.valid_loss=eval/loss.
    lang:
        Language of the report: en, or ja for Japanese (report.ja.html, report.ja.md).
    """
    console = Console(highlight=False)
    if source:
        from .imports import import_from

        out = out or Path("mars-imported")
        console.print(import_from(source, set, out), soft_wrap=True, markup=False)
    elif set:
        raise UserError("--set goes with --from; a pilot's own keys are set by mars pilot")
    out = out or Path("mars-pilot")
    if (out / PACKED).exists() and not (out / "runs").exists():
        unpack(out)
    if (out / "plan.toml").exists():
        write(out, console, lang)
    elif (out / "runs").is_dir():
        write_runs(out, console, lang)
    else:
        raise UserError(
            f"{out} holds no pilot (no plan.toml) and no runs/; `mars pilot --out {out}` makes a "
            f"pilot, `mars train RECIPE.toml --out {out}` a run"
        )


def unpack(out: Path) -> None:
    """Make ``runs/`` from the archive in ``out``, whole or not at all.

    Raises:
        UserError: if that cannot be done.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out) as folder, tarfile.open(out / PACKED) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # nothing outside it
            archive.extractall(folder)
            os.replace(Path(folder) / "runs", out / "runs")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(
            f"{out / PACKED} cannot be unpacked: {error}; it must be an archive of the folder runs"
        ) from None


def write(out: Path, console: Console, lang: Lang) -> None:
    """Write the report of ``out`` and say the verdict."""
    from ..experiment.analysis import analyse
    from ..experiment.report import Messages, summary, write_report

    analysis, say = analyse(out), Messages(lang)
    paths = write_report(analysis, out, say)
    console.print(summary(analysis, say), soft_wrap=True)
    console.print(say("terminal.report", path=paths[0]), soft_wrap=True, markup=False)


def write_runs(out: Path, console: Console, lang: Lang) -> None:
    """Write the report of a folder of runs without a plan, and say what they show."""
    from ..experiment.analysis import survey
    from ..experiment.report import Messages, runs_summary, write_runs_report

    found, say = survey(out), Messages(lang)
    paths = write_runs_report(found, out, say)
    console.print(runs_summary(found, say), soft_wrap=True, markup=False)
    console.print(say("terminal.report", path=paths[0]), soft_wrap=True, markup=False)
