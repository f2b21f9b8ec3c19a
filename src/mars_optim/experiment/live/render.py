"""A view as HTML: the whole page, and its parts for a page that is open."""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..._version import __version__
from ..report import Messages
from ..report.figures.theme import ARMS, AXIS, DARK, FONTS, OTHERS
from ..report.messages import CODE, CODE_END
from .view import View

PARTS = ("state", "verdict", "progress", "figures", "runs", "notes")
"""Parts of the page that change, by their ids."""


def page(view: View, say: Messages, every: float) -> str:
    """The whole page as it stands, for readers with and without script.

    Args:
        view: of the pilot.
        say: texts of the language.
        every: seconds between looks.
    """
    found = parts(view, say)
    return (
        _environment()
        .get_template("live.html.j2")
        .render(
            view=view,
            say=say,
            title=title(view),
            parts={name: Markup(html) for name, html in found.items()},
            version=_version(found),
            every=every,
            now=time.strftime("%H:%M:%S"),
            as_of=say("live.as-of", time="[time]").split("[time]"),
            footer=say("live.footer", version=__version__),
        )
    )


def state(view: View, say: Messages) -> tuple[str, str]:
    """Answer to an open page: JSON of the parts, and its version."""
    found = parts(view, say)
    version = _version(found)
    data = dict(version=version, ended=view.ended, title=title(view), parts=found)
    return json.dumps(data), version


def parts(view: View, say: Messages) -> dict[str, str]:
    """The HTML of each part."""
    module: Any = (
        _environment()
        .get_template("parts.html.j2")
        .make_module(dict(say=say, inline=_inline, plain=_plain, tints=view.tints))
    )
    return {name: str(getattr(module, name)(view)).strip() for name in PARTS}


def title(view: View) -> str:
    """Title of the browser's tab: the progress, then the question."""
    return f"{view.progress[0].value} \u00b7 {view.question}"


def style() -> str:
    """The style sheet: the report's, the page's own and the arms' colours."""
    report = files("mars_optim.experiment.report") / "templates" / "report.css"
    own = files(__package__) / "templates" / "live.css"
    sheets = (report.read_text(encoding="utf-8"), own.read_text(encoding="utf-8"))
    colours = (*ARMS.values(), *OTHERS, AXIS)
    light = "\n".join(f".{tint(c)} {{ fill: {c} }}" for c in colours)
    dark = "\n".join(f".{tint(c)} {{ fill: {DARK[c]} }}" for c in colours)
    media = f"@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"
    return "\n".join((*sheets, f":root {{ font-family: {FONTS}; }}", light, media))


def static(name: str) -> str:
    """A file of the page's own: "live.js" or "icon.svg"."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def tint(colour: str) -> str:
    """Name of the class of what has a colour: rules about styles forbid them in the page."""
    return f"tint-{colour[1:]}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("mars_optim.experiment.live"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["tint"] = tint
    return made


def _version(found: dict[str, str]) -> str:
    return hashlib.sha256("\0".join(found.values()).encode()).hexdigest()[:16]


def _inline(text: str) -> Markup:
    return Markup(escape(text).replace(CODE, Markup("<code>")).replace(CODE_END, Markup("</code>")))


def _plain(text: str) -> str:
    return text.replace(CODE, "").replace(CODE_END, "")
