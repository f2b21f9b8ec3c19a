"""The picture of docs/architecture.md: the rooms in their order, from pyproject.toml's contracts.

python -m docs.figures.architecture, from the repository's root.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("architecture.svg")
WIDTH, ROW, GAP = 640, 30, 8
HALVES = {"optim", "gradient_noise", "guard", "integrations"}
STYLE = """<style>
svg { background: #fff } text { font: 13px sans-serif; fill: #222; text-anchor: middle }
rect { fill: #eef2f7; stroke: #8a99ad } .torch { fill: #e3f1e6; stroke: #5d9a6b }
.frame { fill: none; stroke: #8a99ad; stroke-dasharray: 4 3 } .left { text-anchor: start }
@media (prefers-color-scheme: dark) {
svg { background: #1b1f24 } text { fill: #e6e6e6 } rect { fill: #2a3441; stroke: #6b7b90 }
.torch { fill: #22382a; stroke: #5d9a6b } .frame { fill: none } }
</style>"""


def layers(root: Path = ROOT) -> dict[str, list[list[str]]]:
    """Package -> its layers from the top, each a list of rooms that stand side by side."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return {
        contract["containers"][0]: [
            [room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]
        ]
        for contract in contracts
        if contract["type"] == "layers"
    }


def picture(found: dict[str, list[list[str]]]) -> str:
    """The SVG: the outer layers, with those of the experiment inside their own frame."""
    boxes: list[str] = []
    y = GAP
    for layer in found["mars_optim"]:
        if layer == ["experiment"]:
            inner = found["mars_optim.experiment"]
            height = 24 + len(inner) * (ROW + GAP)
            boxes.append(
                f'<rect class="frame" x="4" y="{y}" width="{WIDTH - 8}" height="{height}"/>'
            )
            boxes.append(f'<text class="left" x="14" y="{y + 17}">experiment</text>')
            y += 24
            for rooms in inner:
                boxes += row(rooms, y, inset=14)
                y += ROW + GAP
            y += GAP
        else:
            boxes += row(layer, y, inset=4)
            y += ROW + GAP
    view = f'viewBox="0 0 {WIDTH} {y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view}>{STYLE}{"".join(boxes)}</svg>\n'


def row(rooms: list[str], y: int, *, inset: int) -> list[str]:
    """Boxes side by side, as wide as the picture together."""
    width = (WIDTH - 2 * inset - GAP * (len(rooms) - 1)) / len(rooms)
    found = []
    for i, room in enumerate(rooms):
        x = inset + i * (width + GAP)
        kind = ' class="torch"' if room in HALVES else ""
        found.append(f'<rect{kind} x="{x:g}" y="{y}" width="{width:g}" height="{ROW}" rx="3"/>')
        found.append(f'<text x="{x + width / 2:g}" y="{y + 20}">{escape(room)}</text>')
    return found


if __name__ == "__main__":
    PICTURE.write_text(picture(layers()), encoding="utf-8")
