"""``mars pilot``, ``mars report``: arguments in, one clear line out when they are wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

try:
    from cyclopts import App, CycloptsError, Parameter
    from rich.console import Console
except ImportError:  # the optimizers need torch only
    sys.exit("mars: error: the command line needs more packages: pip install 'mars-optim[pilot]'")

from .._version import __version__
from ..records import UserError
from ..records.plan import load_plan, make_plan, plan_toml
from ..records.run import write_text
from .canary import canary

app = App(
    name="mars",
    help="Does MARS pay on your training job? Optimizers for PyTorch, and a fair experiment.",
    version=__version__,
    help_format="rst",
    help_on_error=False,
)


@app.command
def pilot(
    *,
    out: Path = Path("mars-pilot"),
    plan: Path | None = None,
    init: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    workers: int = 0,
) -> None:
    """Train arm against arm and end with a verdict and a report.

    Without arguments: a small GPT on this Python's own sources, AdamW against MARS-AdamW, with
    NAdamW as control. Stop it whenever you like; the same command goes on where it was.

    Parameters
    ----------
    out:
        Folder for the plan, the runs, report.html, report.md and verdict.json.
    plan:
        Plan in TOML. Without it, the one in --out, or else the built-in plan.
    init:
        Write the plan with comments to --plan (else to --out/plan.toml) and stop.
    set:
        Change one key of the plan, such as --set training.steps=400. May be repeated.
    workers:
        Runs at a time; 0 for one per core, four at the most (one with an accelerator).
    """
    target = plan or out / "plan.toml"
    if init:
        _init_plan(target, set)
        option = f"--plan {plan}" if plan else f"--out {out}"
        print(f"Wrote {target}. Edit it, then run: mars pilot {option}")
        return
    source = target if plan or target.exists() else None
    chosen = load_plan(source, set) if source else make_plan({}, set)
    if not 0 <= workers <= 1024:
        raise UserError(f"--workers {workers} must be from 0 (choose) to 1024")

    from ..pilot import run_pilot
    from ..pilot.run import default_workers

    console = Console(highlight=False)
    try:
        run_pilot(chosen, out, console, workers=workers or default_workers())
    except KeyboardInterrupt:
        console.print("Stopped. Finished runs are kept: the same command goes on.")
        raise SystemExit(130) from None
    _report(out, console)


@app.command
def report(out: Path = Path("mars-pilot"), /) -> None:
    """Analyse the runs of a pilot and write its report again, without training.

    Parameters
    ----------
    out:
        Folder of the pilot.
    """
    if not (out / "plan.toml").exists():
        raise UserError(f"{out} holds no pilot (no plan.toml); `mars pilot --out {out}` makes one")
    _report(out, Console(highlight=False))


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
        The exit status: 0, 2 for the user's mistakes, 130 for Ctrl-C.
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


def _init_plan(target: Path, overrides: tuple[str, ...]) -> None:
    if target.exists():
        raise UserError(f"{target} exists already; name another with --plan, or delete it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, plan_toml(make_plan({}, overrides)))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from None


def _report(out: Path, console: Console) -> None:
    from ..analysis import analyse
    from ..report import summary, write_report

    analysis = analyse(out)
    paths = write_report(analysis, out)
    console.print(summary(analysis), soft_wrap=True)
    console.print(f"Report: {paths[0]}", soft_wrap=True)
