"""Findings of the contract check in arms that name a class of optimizers."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_json

CHECKS = "optimizers.json"  # in the folder of a pilot


@dataclass(frozen=True, slots=True)
class ArmCheck:
    """Check of one arm.

    Args:
        optimizer: as the plan names it.
        source: module, package, version and hash of its code.
        found: name and sentence of each thing that is to be told beside the arm's result.
        of: hash of what was tried.
    """

    optimizer: str
    source: str
    found: tuple[tuple[str, str], ...]
    of: str

    @classmethod
    def from_dict(cls, data: Any) -> ArmCheck:
        """Read back from JSON."""
        found = tuple((str(name), str(text)) for name, text in data["found"])
        return cls(str(data["optimizer"]), str(data["source"]), found, str(data["of"]))

    @property
    def version(self) -> str:
        """The package with its version, or the file's module, with the hash's first digits."""
        *what, digest = self.source.split(", ")
        return f"{what[-1]}, {digest[: len('sha256 ') + 8]}" if what else self.source


def read_checks(out: Path, arms: Container[str]) -> dict[str, ArmCheck]:
    """Checks of those ``arms`` that name a class; empty before they were checked.

    Args:
        out: folder of the pilot.
        arms: names.
    """
    try:
        rows = read_json(out / CHECKS).items()
        return {name: ArmCheck.from_dict(row) for name, row in rows if name in arms}
    except (UserError, AttributeError, TypeError, KeyError, ValueError):
        return {}  # not there yet, or damaged: a few seconds make it again
