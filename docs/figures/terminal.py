"""A recorded terminal session as SVG: ``python -m docs.figures.terminal``.

docs/figures/pilot.log is all that the command below printed: the pilot of docs/example, which
``make pilot`` had made, resumed when its runs were there. Only the picture breaks its lines.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

LOG = Path(__file__).with_name("pilot.log")
PICTURE = Path(__file__).with_name("pilot.svg")
COLUMNS = 96
COMMANDS = (
    "tar -xJf docs/example/runs.tar.xz -C docs/example",
    "mars pilot --out docs/example --workers auto",
)
# rich's own frame without the fonts that it loads from the network
FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def picture(log: str) -> str:
    """The session, with its commands before it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command in COMMANDS:
        console.print(Text(f"$ {command}", style="bold"))
    for line in log.rstrip().splitlines():
        style = {"NO-GO": "bold red", "GO": "bold green", "NOT ENOUGH RUNS": "bold yellow"}
        console.print(Text(line, style=style.get(line.strip(), "")))
    return console.export_svg(title="mars pilot", code_format=FRAME, unique_id="pilot")


if __name__ == "__main__":
    PICTURE.write_text(picture(LOG.read_text(encoding="utf-8")), encoding="utf-8")
