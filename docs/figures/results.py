"""The tables and pictures of docs/three-tasks.md, from docs/studies/*/verdict.json.

python -m docs.figures.results, from the repository's root; ``mars pilot`` made the verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from mars_optim.experiment.analysis.choice import added
from mars_optim.experiment.analysis.stats import shifted, t_interval
from mars_optim.experiment.report import numbers
from mars_optim.experiment.report.figures.draw import svg_element
from mars_optim.experiment.report.figures.svg import standalone
from mars_optim.experiment.report.figures.theme import AXIS, CARD
from mars_optim.experiment.report.savings import BOUNDS

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "three-tasks.md"
TINTS = {"baseline": "#4d4d4d", "candidate": "#0072b2", "control": "#e69f00", "other": "#009e73"}
SCORES = ("accuracy", "bits_per_byte")
Verdict = dict[str, Any]

STUDIES = {
    "gpt-fit": "built-in GPT, fitted rates",
    "shakespeare-fit": "tinyshakespeare, fitted rates",
    "cifar-fit": "CIFAR-10, fitted rates",
    "gpt": "built-in GPT, coarse rates",
    "shakespeare": "tinyshakespeare, coarse rates",
    "cifar": "CIFAR-10, coarse rates",
}

PAIRS = [
    ("nadamw-auto", "nadamw"),
    ("nadamw-auto", "folded-0.25"),
    ("nadamw-auto", "gamma-0.1"),
    ("mars-adamw-auto", "folded-0.1"),
    ("mars-adamw-auto", "gamma-0.1"),
    ("mars-adamw-auto", "mars-adamw"),
    ("muon-auto", "muon"),
    ("cautious-auto", "nadamw-auto"),
    ("muon-cautious-auto", "muon-auto"),
    ("nadamw-least-error", "nadamw"),
    ("mars-adamw-least-error", "gamma-0.1"),
    ("mars-adamw-decay", "gamma-0.1"),
    ("folded-0.1", "gamma-0.1"),
    ("mars-adamw-baseline-betas", "mars-adamw"),
    ("mars-adamw-exact", "mars-adamw"),
    ("exact-gamma-0.1", "gamma-0.1"),
    ("mars-adamw-clip-only", "mars-adamw-plain"),
    ("mars-adamw-no-clip", "mars-adamw"),
    ("mars-adamw-clip-all", "mars-adamw"),
    ("mars-adamw-cautious", "mars-adamw"),
    ("cautious-adamw", "adamw"),
    ("mars-lion", "lion"),
    ("mars-m", "muon"),
]
"""(arm, other): whose losses are told apart, seed by seed."""


def verdicts() -> dict[str, Verdict]:
    """Name of a study -> its verdict."""
    found = sorted((DOCS / "studies").glob("*/verdict.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in found}


def ranked(verdict: Verdict) -> list[tuple[str, dict[str, Any]]]:
    """(name, arm), the lowest mean loss first; an arm whose runs all diverged last."""
    losses = {name: arm["mean_loss"] for name, arm in verdict["arms"].items()}
    order = sorted(losses, key=lambda name: (losses[name] is None, losses[name]))
    return [(name, verdict["arms"][name]) for name in order]


def table(verdict: Verdict) -> str:
    """Markdown: every arm with its tuned rate, loss, tokens saved and step time."""
    scored = [key for key in SCORES if all(key in a["scores"] for a in verdict["arms"].values())]
    head = ["arm", "lr", "mean loss", *scored, f"against {verdict['baseline']}, paired"]
    head += ["tokens saved", "step"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, arm in ranked(verdict):
        edge = " (edge)" if arm["lr_at_edge"] else ""
        loss = "diverged" if arm["mean_loss"] is None else f"{arm['mean_loss']:.4f}"
        if arm["role"] == "baseline":
            name = f"**{name}**"
        scores = [f"{arm['scores'][key]:.4f}" for key in scored]
        cells = [name, f"{arm['lr']:.3g}{edge}", loss, *scores, difference(arm), saving(arm)]
        lines.append("| " + " | ".join([*cells, f"{arm['step_time_ratio']:.2f}"]) + " |")
    return "\n".join(lines)


def difference(arm: dict[str, Any]) -> str:
    """The paired difference of the final loss with its interval."""
    if not (d := arm["loss_difference"]):
        return "—"
    mean, low, high = (numbers.signed(d[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def saving(arm: dict[str, Any]) -> str:
    """The tokens saved with their interval; a bound where seeds lie beyond the ladder."""
    if not (s := arm["tokens_saved"]):
        return "—"
    if bounds := arm["outside_ladder"]:
        return f"{BOUNDS.get('/'.join(bounds), 'about ')}{numbers.percent(s['mean'])}"
    mean, low, high = (numbers.percent(s[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def forest(verdict: Verdict) -> Callable[[Axes], None]:
    """Paired difference of the final loss to the baseline's, an interval per arm."""
    arms = [(n, a) for n, a in ranked(verdict) if a["loss_difference"] or a["role"] == "baseline"]

    def draw(ax: Axes) -> None:
        for row, (_, arm) in enumerate(reversed(arms)):
            d = arm["loss_difference"] or dict(mean=0.0, low=0.0, high=0.0)
            tint = TINTS[arm["role"]]
            ax.plot([d["low"], d["high"]], [row, row], color=tint, lw=5, alpha=0.35)
            ax.plot(d["mean"], row, "o", ms=5, mec=tint, mfc=CARD, mew=1.5)
        ax.axvline(0, color=AXIS, lw=1)
        ax.set_yticks(range(len(arms)), [name for name, _ in reversed(arms)])
        ax.set_xlabel(f"final loss less {verdict['baseline']}'s, nats (left is better)")
        ax.grid(axis="y", visible=False)

    return draw


def paired(verdict: Verdict, arm: str, other: str) -> str:
    """The difference of the final loss between two arms, paired by seed; "" without one of them.

    It holds the choice of both rates, where the study's verdict tells it.
    """
    if not {arm, other} <= set(verdict["arms"]):
        return ""
    mine, others = (verdict["arms"][name]["final_losses"] for name in (arm, other))
    values = [mine[s] - others[s] for s in mine if None not in (mine[s], others.get(s))]
    found = t_interval(values, verdict["rule"]["confidence"])
    regrets = [verdict["arms"][name].get("lr_regret") or () for name in (arm, other)]
    found = shifted(found, added((regrets[0], -1.0), (regrets[1], 1.0)))
    mean, low, high = (numbers.signed(x, 3) for x in (found.mean, found.low, found.high))
    text = f"{mean} ({low} to {high})"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def pairs_table(found: dict[str, Verdict]) -> str:
    """Markdown: pairs of arms, a column for each study; what leaves out 0 in bold."""
    names = [name for name in STUDIES if name in found]
    head = ["arm less other", *(STUDIES[name] for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm, other in PAIRS:
        cells = [paired(found[name], arm, other) for name in names]
        lines.append("| " + " | ".join([f"{arm} less {other}", *cells]) + " |")
    return "\n".join(lines)


def page(text: str, found: dict[str, Verdict]) -> str:
    """The page with its tables, between ``<!-- table NAME -->`` and ``<!-- end -->``, anew."""
    tables = {f"table {name}": table(verdict) for name, verdict in found.items()}
    tables["pairs"] = pairs_table(found)
    for name, lines in tables.items():
        head, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found_head, rest = text.partition(head)
        _, found_end, after = rest.partition(end)
        if not (found_head and found_end):
            raise SystemExit(f"{PAGE.name} has no {head.strip()} ... {end}")
        text = f"{before}{head}{lines}\n{end}{after}"
    return text


def main() -> None:
    """Write the tables into the page and the pictures beside this file."""
    found = verdicts()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, verdict in found.items():
        height = 1.0 + 0.24 * len(verdict["arms"])
        drawn = svg_element(f"results-{name}", forest(verdict), height=height)
        path = Path(__file__).with_name(f"results-{name}.svg")
        path.write_text(standalone(drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
