"""The command ``mars``. Each command's world is imported only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; without arguments, say what to do next in this folder.

    Args:
        arguments: without the program's name (default: the process's own).

    Returns:
        The exit status, as of :func:`mars_optim.cli.app.main`.
    """
    if not (sys.argv[1:] if arguments is None else arguments):
        from .next_step import print_next_step

        print_next_step()
        return 0
    from .app import main as run

    return run(arguments)
