"""The command ``mars``: arguments in, one clear line out when they are wrong."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

try:
    from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError
    from rich.console import Console
except ImportError:  # the optimizers need torch only
    sys.exit("mars: error: the command line needs more packages: pip install 'mars-optim[pilot]'")

from .._version import __version__
from ..errors import UserError, check_text
from .canary import canary
from .completions import python_files
from .export import export
from .forecast import forecast
from .noise import noise
from .pilot import pilot, plan_command
from .prepare import prepare
from .report import Lang, report
from .train import train
from .transfer import transfer

START, DECIDE, SWITCH, OTHER = (
    Group.create_ordered(title)
    for title in ("First steps", "Compare and decide", "After the answer", "Other")
)

app = App(
    name="mars",
    help="Does a MARS optimizer pay on your training job? Measure it before you switch.\n\n"
    "`mars` without arguments names the next step for this folder.",
    version=__version__,
    help_format="rst",
    help_on_error=False,
    group_commands=OTHER,
)
app.register_install_completion_command(
    help="Let TAB complete commands and options in this shell (bash, zsh or fish).", group=OTHER
)

Kind = Literal["plan", "task", "command", "finetune", "sft", "bandit", "runs"]


def init(
    kind: Kind | None = None,
    folder: Path = Path(),
    /,
    *,
    script: Annotated[str | None, Parameter(completer=python_files)] = None,
    no_input: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Ask what you train, and write a plan for the comparison.

    If you name the kind of job, it asks nothing; without a terminal you must name it.

    Parameters
    ----------
    kind:
        Kind of job. plan: the built-in small model, with a comment on every setting. command:
        a training script of yours. task: model, data and loss as Python functions. finetune: a
        transformers checkpoint. sft: trl's SFTTrainer. bandit: a policy gradient. runs: training
        runs that have finished already.
    folder:
        Folder to write into.
    script:
        With command: your training script, in the folder or else in the current one. It stays
        unchanged; only a plan is written.
    no_input:
        Never ask; without a kind, stop with an error.
    """
    from .init import ask_and_write, write_example

    if kind is None and no_input:
        raise UserError(f"--no-input needs KIND, one of {', '.join(get_args(Kind))}")
    if kind is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            f"KIND is needed where there is no terminal: give one of {', '.join(get_args(Kind))}"
        )
    if script is not None and kind not in (None, "command"):
        raise UserError(
            f"--script {script} works only with the kind command, not with {kind}: leave it out"
        )
    if kind is None:
        print(ask_and_write(Console(highlight=False), folder, script))
    else:
        print(write_example(kind, folder, script))


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
    """Show the progress of a comparison (a pilot) that runs in another process.

    Ctrl-C ends only this command; the comparison goes on.

    With --serve, show it as a page in the browser that updates itself.

    Parameters
    ----------
    out:
        Folder of the pilot.
    once:
        Show the progress once and stop.
    every:
        Seconds between updates (1; 5 with --serve).
    serve:
        Serve the page and print its address, until Ctrl-C.
    host:
        With --serve, the address to listen on. By default only this machine can read the page.
        With another address, such as 0.0.0.0, anybody with the printed token can read it.
    port:
        With --serve, the port (default: a free one).
    token:
        With --serve, ask for a token on this machine too, for machines with other users.
    lang:
        Language of the page: en, or ja for Japanese.
    """
    seconds = (5.0 if serve else 1.0) if every is None else every
    if not 0.1 <= seconds <= 3600:
        raise UserError(f"--every {seconds:g} must be from 0.1 to 3600 seconds")
    if not serve and (host, port, token, lang) != ("127.0.0.1", 0, False, "en"):
        raise UserError("--host, --port, --token and --lang work only with --serve: add --serve")
    if serve and once:
        raise UserError("--once prints the pilot once and exits: leave out --once or --serve")
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} must be from 1 to 65535; leave it out to take a free port")
    from .watch import serve as serve_pilot
    from .watch import watch as watch_pilot

    console = Console(highlight=False)
    if serve:
        serve_pilot(out, console, host=host, port=port, token=token, every=seconds, lang=lang)
    else:
        watch_pilot(out, console, once=once, every=seconds)


def doctor(
    target: Annotated[str, Parameter(completer=python_files)],
    /,
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    rule: str = "adamw",
) -> None:
    """Show what MARS does with each parameter of your model, and what would not work.

    Parameters
    ----------
    target:
        Your training script, such as train.py, which runs up to its first optimizer step and no
        further. Or MODULE:FUNCTION in this folder, such as train:make_model: a function without
        arguments that returns an optimizer or a model.
    arguments:
        Arguments of the script.
    rule:
        Rule of MARS for a model, or for an optimizer that is not MARS: adamw, lion, shampoo or
        muon.
    """
    from .doctor import examine

    print(examine(target, rule, arguments))


COMMANDS: dict[Group, tuple[Callable[..., None], ...]] = {
    START: (doctor, init, plan_command),
    DECIDE: (pilot, watch, report),
    SWITCH: (forecast, transfer, canary, export),
    OTHER: (prepare, train, noise),
}
for group, commands in COMMANDS.items():
    for order, command in enumerate(commands):
        name = command.__name__.removesuffix("_command")
        app.command(command, name, group=group, sort_key=order)


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
    except UnusedCliTokensError as error:
        command = " ".join(("mars", *(error.command_chain or ())))
        left = " ".join(error.unused_tokens or ())
        print(f"mars: error: {command} takes no {left!r}: see {command} --help", file=sys.stderr)
        return 2
    except (UserError, CycloptsError) as error:
        print(f"mars: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        from ..experiment.executors.worker import NO_ROOM, describe

        if error.errno not in {*NO_ROOM, errno.EACCES}:
            raise
        print(f"mars: error: {describe(error, 'the output')}", file=sys.stderr)
        return 2
    return 0
