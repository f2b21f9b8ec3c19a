"""The tables of docs/benchmarks.md and its figure, anew from the JSON files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import machine, memory, newton_schulz, output, step_time, table, training_step
from .output import UserError

PAGE = Path("docs/benchmarks.md")
FOLDER = Path("docs/benchmarks")


def step_time_section(result: dict[str, Any]) -> str:
    """Markdown of one set of tensors."""
    rows = [step_time.cells(row) for row in result["rows"]]
    parts = [f"{step_time.head(result)}.", table.markdown(step_time.HEADER, rows)]
    absent = [f"{s['name']} ({s['why']})" for s in result["skipped"]]
    parts += [f"Not measured: {'; '.join(absent)}."] if absent else []
    return "\n\n".join(parts)


def memory_section(result: dict[str, Any]) -> str:
    """Markdown of the three tables."""
    states = table.markdown(memory.STATE_HEADER, memory.state_table(result["states"]))
    steps = [memory.step_cells(row) for row in result["steps"] if "rise" in row]
    releases = [memory.release_cells(row) for row in result["releases"] if "rise" in row]
    return "\n\n".join(
        [
            "State, bytes per float32 parameter, measured:",
            states,
            f"{result['title']}, one step:",
            table.markdown(memory.STEP_HEADER, steps),
            f"{result['title']}, forward, backward and step:",
            table.markdown(memory.RELEASE_HEADER, releases),
        ]
    )


def newton_schulz_section(result: dict[str, Any]) -> str:
    """Markdown of the variants."""
    rows = [newton_schulz.cells(row, result) for row in result["rows"]]
    return f"{newton_schulz.head(result)}.\n\n{table.markdown(newton_schulz.HEADER, rows)}"


def training_step_section(result: dict[str, Any]) -> str:
    """Markdown of the options."""
    rows = [training_step.cells(row) for row in result["rows"]]
    return f"{training_step.head(result)}.\n\n{table.markdown(training_step.HEADER, rows)}"


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "step_time-gpt2": step_time_section,
    "step_time-small": step_time_section,
    "memory": memory_section,
    "newton_schulz": newton_schulz_section,
    "training_step": training_step_section,
}


def filled(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page with the text between each pair of markers made from its result.

    Raises:
        UserError: if a result has no markers in the page.
    """
    parts = {
        name: f"{SECTIONS[name](result)}\n\n*{machine.sentence(result['machine'])}*"
        for name, result in results.items()
    }
    return output.between_markers(page, parts)


def main(argv: list[str]) -> None:
    """Read what there is of the JSON files and rewrite page and figure."""
    options = output.parser("page", __doc__, tensors=False)
    options.add_argument("--page", type=Path, default=PAGE)
    options.add_argument("--folder", type=Path, default=FOLDER)
    args = options.parse_args(argv)
    paths = {name: args.folder / f"{name}.json" for name in SECTIONS}
    results = {n: json.loads(path.read_text()) for n, path in paths.items() if path.exists()}
    if not results:
        raise UserError(f"{args.folder} holds none of {', '.join(p.name for p in paths.values())}")
    args.page.write_text(filled(args.page.read_text(), results))
    steps = [r for name, r in results.items() if name.startswith("step_time")]
    if steps:
        from .figures import step_time as draw

        (args.folder / "step_time.svg").write_text(draw(steps))
    print(f"{args.page}: {', '.join(results)}")


if __name__ == "__main__":
    output.run(main)
