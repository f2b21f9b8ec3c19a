"""Figures as inline SVG, bytewise repeatable, and what several of them draw alike."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .. import numbers
from .theme import FONTS, STYLE

MARKERS = {"baseline": "s", "candidate": "o", "control": "^", "other": "D"}
LEGEND_WIDTH = 60  # characters


def svg_element(name: str, draw: Callable[[Axes], None], *, height: float = 3.3) -> str:
    """Draw and return an ``<svg>`` element, hidden from screen readers: its caption speaks."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        # matplotlib only measures the text; the browser draws it, in a font that has the glyphs
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(4.8, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # ids must be unique in the page that holds several figures
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace(" font-family: 'DejaVu Sans';", "")
    # markers take their colours from where they are used, where style rules reach them
    svg = re.sub(rf'(<path id="{name}-m[^"]+" d="[^"]*") style="[^"]*"', r"\1", svg)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        rf'viewBox="\1" font-family="{FONTS}">',
        svg,
        count=1,
    )


def legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        columns = max(1, min(3, LEGEND_WIDTH // (max(map(len, labels)) + 4)))
        ax.figure.legend(loc="outside upper left", ncols=columns, fontsize=9)


def ticks_at(ax: Axes, values: list[int]) -> None:
    """A logarithmic axis across, with these counts and no other ticks."""
    ax.set_xscale("log")
    ax.set_xticks(values, [numbers.count(value) for value in values])
    ax.minorticks_off()


def powers(axis: Axis) -> None:
    """Labels such as "2e-3" along a logarithmic axis."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))
    axis.set_minor_formatter(FuncFormatter(lambda x, _: _power(x, "25")))


def _power(x: float, digits: str = "123456789") -> str:
    """0.002 as "2e-3", if its first digit is among these."""
    text = f"{x:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return text if text[0] in digits else ""


def counts(axis: Axis) -> None:
    """Labels such as "1.2 M"."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: numbers.count(x)))
