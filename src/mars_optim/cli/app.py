"""``mars pilot``, ``mars report``: arguments in, one clear line out when they are wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    from cyclopts import App, CycloptsError, Parameter
    from rich.console import Console
except ImportError:  # the optimizers need torch only
    sys.exit("mars: error: the command line needs more packages: pip install 'mars-optim[pilot]'")

from .._version import __version__
from ..records import UserError
from ..records.plan_file import load_plan, make_plan
from .canary import canary

Lang = Literal["en", "ja"]  # report.Lang, whose import would make --help slow
MISSING = 3  # exit status of a pilot that has done what it could, with runs missing

app = App(
    name="mars",
    help="Does MARS pay on your training job? Optimizers for PyTorch, and a fair experiment.",
    version=__version__,
    help_format="rst",
    help_on_error=False,
)


@app.command
def pilot(
    what: str | None = None,
    /,
    *,
    out: Path = Path("mars-pilot"),
    plan: Path | None = None,
    init: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    ablations: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    workers: int | Literal["auto"] = 1,
    engine: Literal["local", "slurm"] = "local",
    engine_option: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    lang: Lang = "en",
) -> None:
    """Train arm against arm and end with a verdict and a report.

    Without arguments: a small GPT on this Python's own sources, AdamW against MARS-AdamW, with
    NAdamW as control. Stop it whenever you like; the same command goes on where it was.

    Parameters
    ----------
    what:
        After --init: task, command or plan (see mars init).
    out:
        Folder for the plan, the runs, report.html, report.md and verdict.json.
    plan:
        Plan in TOML. Without it, the one in --out, or else the built-in plan.
    init:
        Write the plan with comments to --plan (else to --out/plan.toml) and stop.
    set:
        Change one key of the plan, such as --set training.steps=400. May be repeated.
    ablations:
        Add arms that tell how much of the effect is the betas', the correction's and the clip's;
        short for --set comparison.ablations=true.
    workers:
        Runs at a time on this machine, which share its cores and accelerators; "auto" for one
        per accelerator or, without any, one per core and four at the most. With --engine slurm:
        jobs in the queue at a time.
    engine:
        "local" for processes on this machine; "slurm" for jobs in a SLURM queue, with --out on a
        file system that all its machines share.
    engine_option:
        One option of a job, such as --engine-option partition=gpu. May be repeated.
    lang:
        Language of the report: en, or ja for Japanese (report.ja.html, report.ja.md).
    """
    set += ("comparison.ablations=true",) * ablations
    target = plan or out / "plan.toml"
    if what and not init:
        raise UserError(f"mars pilot takes no argument {what!r}; after --init it would")
    if init:
        from .init import init_pilot

        print(init_pilot(what or "plan", plan, out, set))
        return
    source = target if plan or target.exists() else None
    chosen = load_plan(source, set) if source else make_plan({}, set)
    _check_workers(workers)

    from ..pilot import run_pilot
    from ..pilot.shares import automatic_workers
    from ..pilot.slurm import Slurm, parse_options
    from ..pilot.workers import Workers

    console = Console(highlight=False)
    if engine == "slurm":
        if workers == "auto":
            raise UserError("--workers auto counts this machine's devices: with --engine slurm, N")
        make_pool: Any = partial(Slurm, count=workers, options=parse_options(engine_option))
    elif engine_option:
        raise UserError("--engine-option is for --engine slurm")
    else:
        count = automatic_workers() if workers == "auto" else workers
        make_pool = partial(Workers, count=count)
    try:
        missing = run_pilot(chosen, out, console, make_pool)
    except KeyboardInterrupt:
        console.print("Stopped. Finished runs are kept: the same command goes on.")
        raise SystemExit(130) from None
    _report(out, console, lang)
    if missing:
        raise SystemExit(MISSING)


@app.command(name="plan")
def plan_command(
    *,
    out: Path = Path("mars-pilot"),
    plan: Path | None = None,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    workers: int | Literal["auto"] = 1,
    effect: float | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Price a pilot before anything is spent, from a few seconds of measurement.

    Runs, hours and money; the seeds that an effect needs; what MARS costs in time and memory
    here; what others found at such a size. Nothing is written.

    Parameters
    ----------
    out:
        Folder of the pilot; pairs that are finished there tell the noise.
    plan:
        Plan in TOML. Without it, the one in --out, or else the built-in plan.
    set:
        Change one key of the plan, such as --set training.steps=400. May be repeated.
    workers:
        Runs at a time, as for the pilot.
    effect:
        Share of tokens saved that is to be seen (default: decision.worth).
    json:
        Print all numbers as JSON.
    """
    target = plan or out / "plan.toml"
    source = target if plan or target.exists() else None
    chosen = load_plan(source, set) if source else make_plan({}, set)
    _check_workers(workers)
    wanted = effect if effect is not None else max(chosen.decision.worth, 0.01)

    from ..pilot.forecast import forecast
    from ..pilot.shares import automatic_workers
    from .plan import as_json, show

    console = Console(highlight=False)
    count = automatic_workers() if workers == "auto" else workers
    threads = max(1, (os.cpu_count() or 1) // count)
    found = forecast(
        chosen,
        out,
        workers=count,
        threads=threads,
        effect=wanted,
        say=Console(stderr=True, highlight=False).print,
    )
    if json:
        print(as_json(chosen, found))
    else:
        show(chosen, found, console, count)


@app.command
def init(kind: Literal["plan", "task", "command", "runs"], folder: Path = Path(), /) -> None:
    """Write a plan, or an example of each way to bring a job of your own, to start from.

    Parameters
    ----------
    kind:
        plan (every key with its comment), task (a Task in Python and its plan), command (a
        training script and its plan) or runs (which of your files is which run).
    folder:
        To write into.
    """
    from .init import write_example

    print(write_example(kind, folder))


@app.command
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
    """Analyse the runs of a pilot, or runs that exist already, and write the report. No training.

    Parameters
    ----------
    out:
        Folder of the pilot (mars-pilot); with --from, the folder to write (mars-imported).
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
    if not (out / "plan.toml").exists():
        raise UserError(f"{out} holds no pilot (no plan.toml); `mars pilot --out {out}` makes one")
    _report(out, console, lang)


@app.command
def watch(
    out: Path = Path("mars-pilot"),
    /,
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    every: float = 1.0,
) -> None:
    """Show a pilot that runs in another process, until it ends. Ctrl-C ends the watching only.

    Parameters
    ----------
    out:
        Folder of the pilot.
    once:
        Show how it stands and stop.
    every:
        Seconds between looks.
    """
    if not 0.1 <= every <= 3600:
        raise UserError(f"--every {every:g} must be from 0.1 to 3600 seconds")
    from .watch import watch as watch_pilot

    watch_pilot(out, Console(highlight=False), once=once, every=every)


@app.command
def export(
    run_dir: Path = Path("mars-pilot"),
    /,
    *,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
) -> None:
    """Write the runs of a pilot for another program; while it runs, again whenever you like.

    Parameters
    ----------
    run_dir:
        Folder of the pilot.
    tensorboard:
        As event files, for tensorboard --logdir.
    out:
        Folder to write to (default: tensorboard, in the pilot's folder).
    """
    if not tensorboard:
        raise UserError(f"say for which program: mars export --tensorboard {run_dir}")
    if not (run_dir / "plan.toml").exists():
        raise UserError(
            f"{run_dir} holds no pilot (no plan.toml); `mars pilot --out {run_dir}` makes one"
        )
    from ..report.tensorboard import export_events

    logdir = out or run_dir / "tensorboard"
    written, kept = export_events(run_dir, logdir)
    already = f", {kept} were there already" if kept else ""
    print(f"{written} runs written{already}. Look: tensorboard --logdir {logdir}")


@app.command
def doctor(target: str, /, *, rule: str = "adamw") -> None:
    """Show which parameter of your optimizer or model gets what, and what would not work.

    Parameters
    ----------
    target:
        MODULE:FUNCTION in this folder, called without arguments; it returns a MARS optimizer, or
        a model that is sorted as param_groups does.
    rule:
        For a model: adamw, lion, shampoo or muon.
    """
    from .doctor import examine

    print(examine(target, rule))


app.command(canary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name (default: the process's own).

    Returns:
        The exit status: 0, 2 for the user's mistakes, 3 if runs of a pilot are missing at its end,
        130 for Ctrl-C.
    """
    try:
        app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except (UserError, CycloptsError) as error:
        print(f"mars: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _check_workers(workers: int | str) -> None:
    if isinstance(workers, int) and not 1 <= workers <= 1024:
        raise UserError(f"--workers {workers} must be from 1 to 1024, or auto")


def _report(out: Path, console: Console, lang: Lang) -> None:
    from ..analysis import analyse
    from ..report import Words, summary, write_report

    analysis, words = analyse(out), Words(lang)
    paths = write_report(analysis, out, words)
    console.print(summary(analysis, words), soft_wrap=True)
    console.print(words("terminal.report", path=paths[0]), soft_wrap=True, markup=False)
