"""Public runs at GPU scale, judged by the rule of the pilot.

``python -m benchmarks.public_runs`` makes the tables of docs/public-runs.md anew.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mars_optim.experiment.analysis.stats import Interval, t_interval, t_quantile
from mars_optim.experiment.analysis.verdict import by_interval
from mars_optim.experiment.scaling.forecast import Posterior, law_ratios, posterior
from mars_optim.experiment.scaling.law import Floats
from mars_optim.experiment.scaling.table import Table, table

from . import output
from .public_records import final_losses, marin, observed, records

PAGE = Path("docs/public-runs.md")
BASELINE, MIN_SAVING, CONFIDENCE = "adamw", 0.05, 0.95
THRESHOLD = -math.log1p(-MIN_SAVING)
RUNS = 7  # of a cell of track 3, at least


def verdicts(known: Table, found: Posterior) -> str:
    """Each optimizer at the largest size, over its budgets."""
    lines = [
        "| optimizer | " + " | ".join(f"{n / 1e6:.0f} M" for n in _sizes(known)) + " | saved of "
        "AdamW's tokens at the largest | by the rule |",
        "|---|" + "---|" * (len(_sizes(known)) + 2),
    ]
    for arm, name in enumerate(known.arms[1:], 1):
        intervals = [_mean_at(known, found, size, arm) for size in _sizes(known)]
        last = intervals[-1]
        shares = [1 - math.exp(-x) for x in (last.mean, last.low, last.high)]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{math.exp(i.mean):.3f}" for i in intervals)
            + f" | {shares[0]:.1%} ({shares[1]:.1%} to {shares[2]:.1%}) | "
            + f"{by_interval(last, THRESHOLD, set())} |"
        )
    return "\n".join(lines)


def shared(known: Table, found: Posterior) -> str:
    """Share of each optimizer's gain that NAdamW has."""
    size = _sizes(known)[-1]
    nadamw = _draws(known, found, size, known.arms.index("nadamw"))
    lines = [
        "| optimizer | log token ratio | NAdamW's | beyond NAdamW | tokens saved beyond it |",
        "|---|---|---|---|---|",
    ]
    for name in ("mars", "muon", "cautious"):
        mine = _draws(known, found, size, known.arms.index(name))
        more = _interval(mine - nadamw)
        share = [1 - math.exp(-x) for x in (more.mean, more.low, more.high)]
        lines.append(
            f"| {name} | {mine.mean():.3f} | {nadamw.mean():.3f} | {more.mean:+.3f} "
            f"({more.low:+.3f} to {more.high:+.3f}) | {share[0]:.1%} ({share[1]:.1%} to "
            f"{share[2]:.1%}) |"
        )
    return "\n".join(lines)


def sensitivity(known: Table, found: Posterior) -> str:
    """Loss added by one step of rate or decay off the centre, in tokens of AdamW."""
    rows = records("marin_sweeps.csv.gz")
    centre = {
        (r["optimizer"], r["size"], r["chinchilla"]): r for r in rows if r["is_center"] == "1"
    }
    added: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        key = (row["optimizer"], row["size"], row["chinchilla"])
        column = {"learning_rate": "lr", "weight_decay": "weight_decay"}.get(row["param"])
        if column is None or key not in centre or not float(centre[key][column] or 0):
            continue
        factor = float(row["value"]) / float(centre[key][column])
        side = "down" if 0.4 <= factor < 1 else "up" if 1 < factor <= 2.5 else ""
        if side:
            worse = math.inf if row["diverged"] == "1" else float(row["loss"])
            fall = _fall(known, found, float(row["params"]), float(row["tokens"]))
            lost = (worse - float(centre[key]["loss"])) / fall
            added.setdefault((row["optimizer"], row["param"], side), []).append(lost)
    lines = [
        "| optimizer | rate lowered | rate raised | decay one step down | one step up |",
        "|---|---|---|---|---|",
    ]
    columns = [(p, s) for p in ("learning_rate", "weight_decay") for s in ("down", "up")]
    for name in known.arms:
        cells = [_lost(added.get((name, *column), [])) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lost(values: Sequence[float]) -> str:
    if not values:
        return "-"
    gone = sum(map(math.isinf, values))
    median = float(np.median(values))
    told = f"{median:+.0%}" if math.isfinite(median) else "diverged"
    return f"{told} ({len(values)} runs{f', {gone} diverged' if gone else ''})"


def small_sizes() -> str:
    """Would a pilot at a small size have said the same as the record at the largest?"""
    ratios = observed(marin(), BASELINE)
    arms = sorted({arm for arm, _, _ in ratios})
    sizes = sorted({size for _, size, _ in ratios})

    def decide(arm: str, size: float, longest: float) -> str:
        values = [
            v
            for (a, n, d), v in ratios.items()
            if a == arm and n == size and d / n <= 20 * longest + 1
        ]
        if len(values) < 2:
            return "go" if values[0] > THRESHOLD else "no-go"
        return by_interval(t_interval(values, CONFIDENCE), THRESHOLD, set())

    designs = [(size, longest) for size in sizes[:-1] for longest in (1, 2, 8)]
    lines = ["| pilot | says the same | says not enough | says the opposite |", "|---|---|---|---|"]
    full = {arm: decide(arm, sizes[-1], 8) for arm in arms}
    for size, longest in designs:
        said = {arm: decide(arm, size, longest) for arm in arms}
        known = [arm for arm in arms if full[arm] != "not-enough-runs"]
        same = sum(said[arm] == full[arm] for arm in known)
        open_ = sum(said[arm] == "not-enough-runs" for arm in known)
        budgets = {1: "1 budget (the sign)", 2: "2 budgets", 8: "4 budgets"}[longest]
        lines.append(
            f"| {size / 1e6:.0f} M, {budgets} | {same} of {len(known)} | {open_} | "
            f"{len(known) - same - open_} |"
        )
    told = ", ".join(f"{arm} {said}" for arm, said in full.items())
    return "\n".join([*lines, "", f"The record at {sizes[-1] / 1e6:.0f} M: {told}."])


def few_seeds(repeats: int = 2000) -> str:
    """Would k seeds have told two optimizers apart as all seeds of track 3 do?"""
    cells = final_losses()
    kept = sorted(c for c, losses in cells.items() if len(losses) >= RUNS)
    rng = np.random.default_rng(0)
    lines = [
        "| optimizers, steps | all seeds: difference | "
        + " | ".join(f"{k} seeds" for k in SEEDS)
        + " |",
        "|---|---|" + "---|" * len(SEEDS),
    ]
    for i, a in enumerate(kept):
        for b in kept[i + 1 :]:
            if a.rpartition("@")[2] != b.rpartition("@")[2]:
                continue
            x, y = np.array(cells[a]), np.array(cells[b])
            whole, half = _difference(x, y)
            parts = [_told(x, y, k, float(whole), repeats, rng) for k in SEEDS]
            names = [c.partition("@")[0].partition("_")[2] for c in (a, b)]
            lines.append(
                f"| {names[0]} ({len(x)}), {names[1]} ({len(y)}), {a.rpartition('@')[2]} | "
                f"{whole * 1e3:+.2f} ± {half * 1e3:.2f} | " + " | ".join(parts) + " |"
            )
    return "\n".join(lines)


SEEDS = (2, 3, 5, 8)


def _told(x: Floats, y: Floats, k: int, whole: float, n: int, rng: np.random.Generator) -> str:
    mean, half = _difference(rng.choice(x, (n, k)), rng.choice(y, (n, k)))
    right = np.mean((np.abs(mean) > half) & (np.sign(mean) == np.sign(whole)))
    wrong = np.mean((np.abs(mean) > half) & (np.sign(mean) != np.sign(whole)))
    return f"{right:.0%}, wrong {wrong:.1%}"


def _difference(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Difference of the means along the last axis, with the half width of its 95 % interval."""
    n, m = x.shape[-1], y.shape[-1]
    pooled = (x.var(axis=-1) * n + y.var(axis=-1) * m) / (n + m - 2)
    return x.mean(axis=-1) - y.mean(axis=-1), t_quantile(CONFIDENCE, n + m - 1) * np.sqrt(
        pooled * (1 / n + 1 / m)
    )


def _sizes(known: Table) -> list[float]:
    return sorted({size for size, _ in known.cells(1)})


def _draws(known: Table, found: Posterior, size: float, arm: int) -> Floats:
    """Draws of the mean log ratio over the arm's budgets of 20 to 160 tokens per parameter."""
    budgets = [d for n, d in known.cells(arm) if n == size and d / n < 170]
    logs: Floats = np.mean(
        [law_ratios(found, known.at(size, d, [arm]))[:, 0] for d in budgets], axis=0
    )
    return logs


def _interval(logs: Floats) -> Interval:
    low, high = np.quantile(logs, (0.025, 0.975))
    return Interval(float(logs.mean()), float(low), float(high), 2, float(logs.std()))


def _mean_at(known: Table, found: Posterior, size: float, arm: int) -> Interval:
    return _interval(_draws(known, found, size, arm))


def _fall(known: Table, found: Posterior, size: float, tokens: float) -> float:
    """Fall of AdamW's loss per e-fold of tokens, in nats."""
    fit, theta = max(found.fits, key=lambda pair: len(pair[1]))
    return float(fit.law.slopes(theta, known.at(size, tokens, [0])).mean()) * known.unit


def main(arguments: list[str]) -> None:
    """Make the page's tables anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_runs")
    parser.add_argument("--page", type=Path, default=PAGE, help="(default: %(default)s)")
    args = parser.parse_args(arguments)
    known = table(marin(), BASELINE)
    found = posterior(known)
    parts = {
        "verdicts": verdicts(known, found),
        "shared": shared(known, found),
        "sensitivity": sensitivity(known, found),
        "small sizes": small_sizes(),
        "few seeds": few_seeds(),
    }
    args.page.write_text(output.between_markers(args.page.read_text(), parts))


if __name__ == "__main__":
    output.run(main)
