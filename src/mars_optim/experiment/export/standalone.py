"""``mars export --standalone NAME OUT.py``: an optimizer of ours as one file that needs torch only.

Its arithmetic is the source of ``optim/``, cut down to what the optimizer uses (``arithmetic.py``)
and put together (``inline.py``); the class around it comes from ``standalone_parts/``. That both
together are the library, bit for bit, the tests hold.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ..._version import __version__
from ...errors import UserError, did_you_mean
from ...files import write_text
from ...optim.gamma.criteria import NextGradient
from ...optim.hyperparameters import resolve
from ...optimizer_options import IN_GROUPS, MATRIX_RULES, NAMED
from .arithmetic import arithmetic
from .inline import inlined

Form = Literal["optimizer", "speedrun", "algoperf-self", "algoperf-external"]
FORMS: tuple[Form, ...] = ("optimizer", "speedrun", "algoperf-self", "algoperf-external")

SEARCH_SPACE = """{
    "learning_rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
    "one_minus_beta1": {"min": 0.02, "max": 0.2, "scaling": "log"},
    "beta2": {"feasible_points": [0.95, 0.99, 0.999]},
    "weight_decay": {"min": 5e-3, "max": 1.0, "scaling": "log"},
    "warmup_factor": {"feasible_points": [0.02, 0.05]},
    "dropout_rate": {"feasible_points": [0.0, 0.1]},
    "label_smoothing": {"feasible_points": [0.0, 0.1]}
}
"""


def export_standalone(
    name: str, out: Path, *, form: str = "optimizer", gamma: str | float | None = None
) -> str:
    """Write the file; for "algoperf-external" its search space beside it.

    Args:
        name: of :data:`~mars_optim.optimizer_options.NAMED`.
        out: the file; it must be new.
        form: one of :data:`FORMS`.
        gamma: "auto", or a number in place of the name's.

    Raises:
        UserError: for an unknown name or form, what one file does not have, or a file that exists
            or cannot be written.
    """
    if form not in FORMS:
        raise UserError(
            f"--form {form} must be one of {', '.join(FORMS)}{did_you_mean(form, FORMS)}"
        )
    if out.suffix != ".py":
        raise UserError(f"{out} does not end in .py: mars export --standalone {name} OUT.py")
    space = out.with_name("tuning_search_space.json")
    files = [out, space] if form == "algoperf-external" else [out]
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists: give another name, or remove it")
    if not out.resolve().parent.is_dir():
        raise UserError(f"{out}: the folder {out.resolve().parent} does not exist")
    text = standalone(name, form, gamma=gamma)
    try:
        write_text(out, text)
        if form == "algoperf-external":
            write_text(space, SEARCH_SPACE)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return " and ".join(map(str, files)) + f" written, {len(text.splitlines())} lines"


def settings_of(name: str, gamma: str | float | None = None) -> dict[str, Any]:
    """The settings of a name, checked for what one file has.

    Raises:
        UserError: naming the option that it has not.
    """
    if name not in NAMED:
        raise UserError(
            f"--standalone {name} must be one of {', '.join(exportable())}"
            f"{did_you_mean(name, NAMED)}"
        )
    given = dict(NAMED[name])
    if gamma is not None:
        given |= {"gamma": _number(gamma), "gamma_schedule": "constant"}
    if gamma == "auto":
        given = {k: v for k, v in given.items() if k not in ("clip", "correction")}
    settings = resolve({**_DEFAULTS, **given})
    if lacking := _lacking(settings):
        raise UserError(
            f"--standalone {name}: a single file cannot have {lacking}={settings[lacking]!r}; "
            f"take one of {', '.join(exportable())}"
        )
    return settings


_DEFAULTS = {**{key: option.default for key, option in IN_GROUPS.items()}, "rule": "adamw"}
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "gamma_schedule": ("constant", "auto"),
    "correction": ("approx", "folded"),
    "clip_over": ("tensor",),
    "cautious": (False,),
    "split": (None,),
}


def _lacking(settings: dict[str, Any]) -> str | None:
    """The first option whose value one file does not have."""
    return next((key for key, values in _ALLOWED.items() if settings[key] not in values), None)


def exportable() -> list[str]:
    """The names that can be one file."""
    return [n for n in NAMED if _lacking(resolve({**_DEFAULTS, **NAMED[n]})) is None]


def standalone(name: str, form: str = "optimizer", *, gamma: str | float | None = None) -> str:
    """The text of the file."""
    settings = settings_of(name, gamma)
    matrix, auto = settings["rule"] in MATRIX_RULES, settings["gamma_schedule"] == "auto"
    about = [f'rule "{settings["rule"]}"', f'correction "{settings["correction"]}"']
    about.append('gamma="auto"' if auto else f"gamma={settings['gamma']:g}")
    class_name = "".join(part.capitalize() for part in re.split(r"\W+", name))
    words = {
        "CLASS": class_name,
        "ABOUT": f"{name}: {', '.join(about)}.",
        "LR": settings["lr"],
        "BETAS": settings["betas"],
        "DECAY": settings["weight_decay"],
        "GAMMA": settings["gamma"],
        "CLIP": settings["clip"],
        "BUFFERS": _buffers(settings),
        "BEGIN": NextGradient.BEGIN,
        "RULESET": "self-" if form == "algoperf-self" else "external ",
        "OMB1": round(1.0 - settings["betas"][0], 12),
        "BETA2": settings["betas"][1],
        "ENDS_PLAIN": matrix,
    }
    marks = {
        "auto": auto,
        "approx": settings["correction"] == "approx",
        "folded": settings["correction"] == "folded",
        "clip": settings["clip"] is not None,
        "adamw": settings["rule"] == "adamw",
        "lion": settings["rule"] == "lion",
        "other": settings["rule"] != "adamw",
        "matrix": matrix,
        "self": form == "algoperf-self",
    }
    body = "\n\n\n".join([*arithmetic(settings), _part("optimizer", words, marks)]) + "\n"
    body = inlined(body)
    if form != "optimizer":
        body += _part("speedrun" if form == "speedrun" else "algoperf", words, marks) + "\n"
    options = f" --form {form}" * (form != "optimizer")
    options += f" --gamma {gamma}" * (gamma is not None)
    return f"{_head(name, options, about, body)}\n\n\n{body}"


def _number(gamma: str | float) -> str | float:
    if gamma == "auto":
        return "auto"
    try:
        number = float(gamma)
    except ValueError:
        number = 0.0
    if 0.0 < number < float("inf"):
        return number
    raise UserError(f"--gamma {gamma} must be auto, or a number above 0 (0 is the host's own)")


def _buffers(settings: dict[str, Any]) -> str:
    """The expression for what a tensor keeps, in a plain group and elsewhere."""
    plain, last_grad = '["exp_avg", "exp_avg_sq"]', settings["correction"] == "approx"
    if settings["rule"] == "adamw":
        return f'{plain} + ["last_grad"] * (not settings.plain)' if last_grad else plain
    own = '["exp_avg", "last_grad"]' if last_grad else '["exp_avg"]'
    return f"{plain} if settings.plain else {own}"


def _head(name: str, options: str, about: list[str], body: str) -> str:
    """Docstring with provenance and licence, and the imports that the body needs."""
    lines = [
        f'"""{name} in one file, which needs torch only.',
        "",
        f"{', '.join(about)}. MARS: arXiv 2411.10438.",
        f"Made by mars-optim {__version__}, https://github.com/mars-optim/mars-optim:",
        f"    mars export --standalone {name}{options} OUT.py",
        "",
        "Copyright the mars-optim contributors. Licensed under the Apache License, Version 2.0:",
        'http://www.apache.org/licenses/LICENSE-2.0. Distributed on an "AS IS" BASIS, WITHOUT',
        "WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.",
        '"""',
        "",
        *["import math"] * ("math." in body),
        "from types import SimpleNamespace",
        *["from typing import NamedTuple"] * ("NamedTuple" in body),
        "",
        "import torch",
        *["from torch import Tensor"] * bool(re.search(r"(?<!torch\.)\bTensor\b", body)),
    ]
    return "\n".join(lines)


def _part(name: str, words: dict[str, Any], marks: dict[str, bool]) -> str:
    """A part of the file, with its words, and without the lines of marks that do not hold."""
    file = resources.files(__package__) / "standalone_parts" / f"{name}.txt"
    kept_lines: list[str] = []
    skips = False
    for line in file.read_text(encoding="utf-8").rstrip("\n").splitlines():
        mark = re.fullmatch(r"\s*#(\w+)", line)
        if mark:
            skips = mark[1] != "end" and not marks[mark[1]]
        elif not skips:
            kept_lines.append(line)
    text = "\n".join(kept_lines).rstrip()
    return re.sub(r"@(\w+)@", lambda found: str(words[found[1]]), text)
