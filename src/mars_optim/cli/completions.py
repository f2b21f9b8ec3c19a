"""Words that TAB offers where they are known only then; torch is not imported."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

MOST = 200
"""Words that are offered."""


def python_files(context: CompletionContext) -> list[str]:
    """Python files of this folder, or of the one that is typed."""
    folder = Path(context.incomplete).parent
    found = sorted(path for path in folder.glob("*.py") if path.is_file())
    return [str(path) for path in found[:MOST]]


def arms(context: CompletionContext) -> list[str]:
    """Names of the optimizers of the plan on the command line, or else all that are known."""
    for name in ("recipe", "run_dir"):
        with contextlib.suppress(KeyError, UserError, TypeError, OSError):
            given = Path(context[name].value)
            if found := _arms_of(given / "plan.toml" if given.is_dir() else given):
                return found
    return known_arms(context)


def known_arms(context: CompletionContext) -> list[str]:
    """Names of all built-in optimizers."""
    from ..experiment.plan.arms import ARMS

    return list(ARMS)


def named_optimizers(context: CompletionContext) -> list[str]:
    """Names that ``mars_optim.create`` knows."""
    from ..optimizer_options import NAMED

    return list(NAMED)


def jobs(context: CompletionContext) -> list[str]:
    """Kinds of ``mars pilot --init``."""
    from .init import JOBS

    return ["plan", *JOBS]


def _arms_of(plan: Path) -> list[str]:
    from ..toml import read_toml

    names = read_toml(plan, "").get("arms", [])
    return [name for name in names if isinstance(name, str)]
