"""``study.json``: all that is known of a study, and all that the next call goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mars_optim.errors import UserError as PackageError
from mars_optim.files import read_json, write_json

from ..output import UserError

FILE = "study.json"
VERSION = 1
_ASKED = ("version", "rehearsal", "plan", "data")
"""Fields that must be the same in every call."""

State = dict[str, Any]


def begin(out: Path, asked: State) -> State:
    """The state in ``out``, or a fresh one.

    Args:
        out: folder, which is made if it is not there.
        asked: ``rehearsal``, ``plan`` and ``data``, the text's fingerprint.

    Raises:
        UserError: if the folder holds another study, or something that is none.
    """
    asked = {"version": VERSION, **asked}
    path = out / FILE
    if not path.exists():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"OUT {out} cannot be made ({error.strerror}): give a folder") from None
        return {"what": "gpu_study", **asked, "calls": [], "timing": {}, "runs": {}}
    state = read(out)
    for key in _ASKED:
        if state[key] != asked[key]:
            was = state.get("text") if key == "data" else None
            begun = f", {was['package']} {was['version']}" if was else ""
            raise UserError(
                f"{path} is of another study ({key} differs): give an OUT of its own, or what it "
                f"was begun with{begun}"
            )
    return state


def read(out: Path) -> State:
    """The state in ``out``.

    Raises:
        UserError: if there is none that can be read.
    """
    path = out / FILE
    try:
        state = read_json(path)
    except PackageError as error:
        raise UserError(f"{error}; `gpu_study.sh run DATA OUT` writes it") from None
    keys = {*_ASKED, "calls", "timing", "runs"}
    if not isinstance(state, dict) or state.get("what") != "gpu_study" or not keys <= state.keys():
        raise UserError(f"{path} holds no study: give a folder that `gpu_study.sh run` wrote")
    return state


def save(out: Path, state: State) -> None:
    """Write it whole or not at all."""
    write_json(out / FILE, state)
