"""Groups that `param_groups(rule="muon")` makes of public architectures, into
docs/architectures.md.

    python -m benchmarks.architectures

Each is built from its own config in transformers, tiny and without memory (meta device): names,
types and the order of sizes are the real ones.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mars_optim import param_groups

from .architecture_configs import ARCHITECTURES

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"

INTRODUCTION = (
    "# Which parameters go to Newton-Schulz\n\n"
    'What `param_groups(model, rule="muon")` makes of {number} public architectures, each built '
    "from its own config in transformers {version}.\n"
    "Made by `python -m benchmarks.architectures`; the full names that are expected are in "
    "`tests/optim/architectures.json`.\n\n"
    'Only the column "matrices" is orthogonalised; experts are stacks of matrices.\n'
    "All else gets plain AdamW, and so do vectors (`ndim < 2`), which are left out here.\n"
    "Names are shortened to the layer's.\n"
    "*Italic* is what no module's type told, and what printing the groups lists as guessed.\n\n"
    "| architecture | matrices | embeddings, tokens, tables | heads | routers | no matrix |\n"
    "|---|---|---|---|---|---|\n"
)


FUSED = (
    "\n## Several matrices in one weight\n\n"
    'What `param_groups(model, rule="muon", split="fused")` cuts, with the tiny sizes of these '
    "models; of an architecture that is not listed no weight is cut.\n"
    "Mamba's `in_proj`, which holds two, stays whole.\n"
    'With `split="heads"` queries, keys and values are cut head by head, also where they are '
    "weights of their own.\n"
    "[How blocks are stepped](optimizers.md#blocks-inside-one-matrix).\n\n"
    "| architecture | layer: its blocks |\n"
    "|---|---|\n"
)


def build(name: str) -> nn.Module:
    """The architecture with tiny sizes on the meta device."""
    import transformers

    model, config, options = ARCHITECTURES[name]
    with torch.device("meta"):
        made = getattr(transformers, model)(getattr(transformers, config)(**options))
    assert isinstance(made, nn.Module)
    return made


def roles(model: nn.Module) -> dict[str, list[str]]:
    """Names by kind, those of repeated blocks once; vectors of one dimension are left out."""
    found: dict[str, list[str]] = {}
    for group in param_groups(model, rule="muon"):
        kind = "stack" if group["stacked"] else group["kind"]
        for name, param in group["params"]:
            short = anywhere(name)
            if param.ndim > 1 and short not in found.setdefault(kind, []):
                found[kind].append(short)
    return {kind: names for kind, names in found.items() if names}


def anywhere(name: str) -> str:
    """A name without the numbers of blocks."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def row(name: str) -> str:
    """The table's line."""
    model = build(name)
    guesses = param_groups(model, rule="muon").guesses
    by_kind = roles(model)

    def cell(*kinds: str) -> str:
        shown: dict[str, None] = {}
        for full in (full for kind in kinds for full in by_kind.get(kind, [])):
            short = full.removesuffix(".weight").removesuffix(".*").rpartition(".")[2]
            shown[f"*{short}*" if full in guesses else short] = None
        return ", ".join(shown).replace("_", "\\_")

    columns = (("matrix", "stack"), ("embedding",), ("head",), ("router",), ("other", "vector"))
    return "| " + " | ".join([name, *(cell(*kinds) for kinds in columns)]) + " |\n"


def cut_row(name: str) -> str:
    """The second table's line; nothing where each matrix is a weight of its own."""
    found: dict[str, None] = {}
    for group in param_groups(build(name), rule="muon", split="fused"):
        if group["split"] is not None:
            short = {
                anywhere(n).removesuffix(".weight").rpartition(".")[2] for n, _ in group["params"]
            }
            found |= {f"{layer}: {in_words(group['split'])}": None for layer in sorted(short)}
    cell = "; ".join(found).replace("_", "\\_")
    return f"| {name} | {cell} |\n" if found else ""


def in_words(value: Any) -> str:
    """A group's split, for a reader."""
    if isinstance(value, int):
        return f"{value} equal blocks of rows"
    nested = value if isinstance(value[0], tuple) else (value, 0)
    sizes, dim, rounds = (*nested, 1)[:3]
    times = f", {rounds} times in turn" if rounds > 1 else ""
    return f"{' + '.join(map(str, sizes))} {('rows', 'columns')[dim]}{times}"


def page() -> str:
    """The whole page."""
    intro = INTRODUCTION.format(number=len(ARCHITECTURES), version=version("transformers"))
    table = intro + "".join(row(name) for name in ARCHITECTURES)
    return table + FUSED + "".join(cut_row(name) for name in ARCHITECTURES)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
