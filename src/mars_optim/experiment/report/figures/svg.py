"""Drawn figures put to use: spoken of in a page, or as files of their own."""

from __future__ import annotations

import re
from html import escape

from .theme import dark_rules


def titled(svgs: str, text: str, lang: str) -> str:
    """The elements with a text for those who cannot see them, on the first; others hidden."""
    label = escape(text).replace("\\", r"\\")
    spoken = rf'<svg role="img" lang="{lang}" aria-label="{label}" '
    first = re.sub("<svg ", spoken, svgs, count=1)
    head, *rest = first.split("</svg>")
    return "</svg>".join([head, *(r.replace("<svg ", '<svg aria-hidden="true" ') for r in rest)])


def standalone(svgs: str) -> str:
    """The elements as one file: below each other, on white, or on black where dark is wished."""
    style = (
        "<style>svg { background: #fff; color-scheme: light dark }\n"
        "@media (prefers-color-scheme: dark) { svg { background: #1b1f24 }\n"
        f"{dark_rules()} }}</style>"
    )
    boxes = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svgs)
    if len(boxes) == 1:
        return re.sub("(<svg [^>]*>)", lambda m: m[1] + style, svgs, count=1)
    width, height = (sum(float(b[0]) for b in boxes), max(float(b[1]) for b in boxes))
    x, inner = 0.0, ""
    for (w, h), svg in zip(boxes, re.split("(?<=</svg>)", svgs), strict=False):
        inner += svg.replace("<svg ", f'<svg x="{x:g}" width="{w}" height="{h}" ', 1)
        x += float(w)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">'
        f"{style}{inner}</svg>\n"
    )
