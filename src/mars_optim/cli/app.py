"""The command ``mars``: arguments in, one clear line out when they are wrong."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

try:
    from cyclopts import App, CycloptsError, Parameter
    from rich.console import Console
except ImportError:  # the optimizers need torch only
    sys.exit("mars: error: the command line needs more packages: pip install 'mars-optim[pilot]'")

from .._version import __version__
from ..errors import UserError, check_text
from .canary import canary
from .export import export
from .forecast import forecast
from .noise import noise
from .pilot import pilot, plan_command
from .prepare import prepare
from .report import Lang, report
from .train import train
from .transfer import transfer

app = App(
    name="mars",
    help="Does MARS pay on your training job? Optimizers for PyTorch, and a fair experiment.",
    version=__version__,
    help_format="rst",
    help_on_error=False,
)


Kind = Literal["plan", "task", "command", "finetune", "sft", "bandit", "runs"]


@app.command
def init(kind: Kind, folder: Path = Path(), /) -> None:
    """Write a plan, or an example of each way to bring a job of your own, to start from.

    Parameters
    ----------
    kind:
        plan (every key with its comment), task (a Task in Python and its plan), command (a
        training script and its plan) or runs (which of your files is which run). Jobs that are not
        pretraining: finetune (a transformers checkpoint, by LoRA or in full), sft (trl's
        SFTTrainer) or bandit (a policy gradient).
    folder:
        Folder to write into.
    """
    from .init import write_example

    print(write_example(kind, folder))


@app.command
def watch(
    out: Path = Path("mars-pilot"),
    /,
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    every: Annotated[float | None, Parameter(show_default=False)] = None,
    serve: Annotated[bool, Parameter(negative="")] = False,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(show_default=False)] = 0,
    token: Annotated[bool, Parameter(negative="")] = False,
    lang: Lang = "en",
) -> None:
    """Show a pilot that runs in another process, until it ends. Ctrl-C ends the watching only.

    With --serve the pilot is a page in the browser that keeps itself up to date.

    Parameters
    ----------
    out:
        Folder of the pilot.
    once:
        Show how it stands and stop.
    every:
        Seconds between looks (1; 5 with --serve).
    serve:
        Serve the page and print its address, until Ctrl-C.
    host:
        With --serve, the address to listen on. By default only this machine can read the page;
        with another address, such as 0.0.0.0, whoever has the token that is printed.
    port:
        With --serve, the port (default: a free one).
    token:
        With --serve, ask for a token on this machine too, where it has other users.
    lang:
        Language of the page: en, or ja for Japanese.
    """
    seconds = (5.0 if serve else 1.0) if every is None else every
    if not 0.1 <= seconds <= 3600:
        raise UserError(f"--every {seconds:g} must be from 0.1 to 3600 seconds")
    if not serve and (host, port, token, lang) != ("127.0.0.1", 0, False, "en"):
        raise UserError("--host, --port, --token and --lang are of --serve: add it")
    if serve and once:
        raise UserError("--once shows the pilot and stops: it does not go with --serve")
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} must be from 1 to 65535, or left out for a free one")
    from .watch import serve as serve_pilot
    from .watch import watch as watch_pilot

    console = Console(highlight=False)
    if serve:
        serve_pilot(out, console, host=host, port=port, token=token, every=seconds, lang=lang)
    else:
        watch_pilot(out, console, once=once, every=seconds)


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


app.command(train)
app.command(pilot)
app.command(plan_command, name="plan")
app.command(report)
app.command(export)
app.command(forecast)
app.command(transfer)
app.command(canary)
app.command(noise)
app.command(prepare)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name (default: the process's own).

    Returns:
        The exit status: 0, 1 for a run that diverged, 2 for the user's mistakes, 3 if runs of a
        pilot are missing at its end, 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a terminal that cannot show all characters
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        for argument in sys.argv[1:] if arguments is None else arguments:
            check_text(argument)
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
