"""A script of the user's, run up to its first optimizer step and no further."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError


class _Reached(BaseException):
    """Carries the optimizer out of the script; not an Exception, which scripts may catch."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer


def run_to_first_step(path: Path, arguments: Sequence[str]) -> Any:
    """The optimizer that is about to take the first step of a script.

    Args:
        path: of the script; it runs as a program does, in this process.
        arguments: of the script.

    Raises:
        UserError: if there is no script, it fails, or it ends before a step.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the file name of your training script")
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def reached(optimizer: Any, *_: object) -> None:
        raise _Reached(optimizer)

    hook = register_optimizer_step_pre_hook(reached)
    argv, search = sys.argv, sys.path[:]
    sys.argv, sys.path[:0] = [str(path), *arguments], [str(path.resolve().parent)]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except _Reached as end:
        return end.optimizer
    except SystemExit as error:
        raise UserError(f"{path} ended before an optimizer step{_status(error)}") from None
    except Exception as error:
        raise UserError(
            f"{path}{_line_of(error, path)} failed before its first optimizer step: "
            f"{type(error).__name__}: {error}"
        ) from None
    finally:
        hook.remove()
        sys.argv, sys.path[:] = argv, search
    raise UserError(f"{path} ended without an optimizer step: the script must train when it is run")


def _status(error: SystemExit) -> str:
    if error.code in (None, 0):
        return ""
    return f" (exit {error.code}); its arguments follow its name: mars doctor train.py --lr 0.1"


def _line_of(error: Exception, path: Path) -> str:
    """The last line of the script itself that was at work."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f.lineno for f in frames if Path(f.filename).name == path.name]
    return f", line {own[-1]}," if own else ""
