"""Parts that the commands share: options, errors of one line, a JSON file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from . import machine
from .shapes import SETS


class UserError(Exception):
    """A mistake in what was asked for, in words that name the way out."""


def parser(
    module: str, description: str | None, *, tensors: bool = True
) -> argparse.ArgumentParser:
    """With the options that all benchmarks take."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    if tensors:
        made.add_argument("--tensors", choices=SETS, default="gpt2", help="(default: %(default)s)")
    made.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    made.add_argument("--json", type=Path, metavar="OUT", help="write everything here, too")
    return made


def start(args: argparse.Namespace, what: str) -> dict[str, Any]:
    """Set the threads; the head of the result."""
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads {args.threads} must be at least 1")
        torch.set_num_threads(args.threads)
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.resolve().parent}")
    head: dict[str, Any] = {"what": what, "machine": machine.describe()}
    print(machine.sentence(head["machine"]), flush=True)
    return head


def write(result: dict[str, Any], path: Path | None) -> None:
    """The result as JSON, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n")


def between_markers(page: str, parts: Mapping[str, str]) -> str:
    """The page with the text between each pair of markers made anew.

    Raises:
        UserError: if a part has no markers in the page.
    """
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise UserError(f"the page has no markers {begin.strip()} ... {end}")
        page = f"{before}{begin}{part}\n{end}{after}"
    return page


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that hold one of the pieces in ``only`` (any case), or all.

    Raises:
        UserError: if a piece is in none of them.
    """
    for piece in only:
        if not any(piece.lower() in name.lower() for name in names):
            raise UserError(f"--only {piece!r} is in none of: {'; '.join(names)}")
    return [n for n in names if not only or any(piece.lower() in n.lower() for piece in only)]


def run(main: Callable[[list[str]], None]) -> None:
    """Call ``main`` with the command's arguments; a user's mistake is one line and exit code 2."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
