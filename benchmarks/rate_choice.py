"""How an arm's rate is chosen, on recorded trials: the least of the losses against the fit.

``python -m benchmarks.rate_choice`` prints the tables of docs/statistics.md. Records are the sweeps
of marin (learning rates around the centre of each cell), the trials of this repository's study of
filters, and those of the example pilots. A chosen rate costs what a curve through the recorded
losses is higher there than at its lowest. A monotone cubic over log rate is lowest at a rate that
was tried, so it takes the side of the least loss; a smooth one (modified Akima) may be lower
between two.
"""

from __future__ import annotations

import argparse
import json
import math
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from mars_optim.experiment.analysis.rate_fit import fit_rate
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.records import Run, read_runs
from mars_optim.experiment.records.trials import Trials, best_lr, loss_at

from .public_records import records

DOCS = Path("docs")
STUDIES = ("gpt", "shakespeare")
EXAMPLES = ("example", "example-undecided")  # the third has the first's runs of the same arms
NOISES = (0.0, 0.01)
"""Nats that are added to each trial's loss, as another seed might have."""
MARGINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
NEEDED = 3
"""Lowest trials of an arm, from which the fit has its lowest point."""
FACTOR = 2.0
CURVES = ("monotone", "smooth")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The recorded trials of one arm.

    Args:
        name: of the arm and where it is from.
        trials: final loss by rate; None for one that diverged.
        halves: training loss half-way, where that is known, in the order of the trials.
    """

    name: str
    trials: Trials
    halves: Mapping[float, float] = field(default_factory=dict)

    def cost(self, lr: float, curve: str = "monotone") -> float:
        """Loss at a rate above the lowest one, on the curve through the trials."""
        known = sorted((math.log(at), loss) for at, loss in self.trials.items() if loss is not None)
        x, y = zip(*known, strict=True)
        at = float(np.clip(math.log(lr), x[0], x[-1]))
        if curve == "smooth":
            law = Akima1DInterpolator(x, y, method="makima")
            return float(law(at)) - float(law(np.linspace(x[0], x[-1], 401)).min())
        return float(PchipInterpolator(x, y)(at)) - float(min(y))


def marin() -> Iterator[Sweep]:
    """Learning rates around the centre of a cell."""
    cells: dict[tuple[str, str, str], dict[float, float | None]] = defaultdict(dict)
    for row in records("marin_sweeps.csv.gz"):
        if row["param"] in ("center", "learning_rate") and row["lr"]:
            lost = row["diverged"] == "1" or not row["loss"]
            cell = cells[row["optimizer"], row["size"], row["chinchilla"]]
            cell[float(row["lr"])] = None if lost else float(row["loss"])
    for (name, size, budget), trials in cells.items():
        yield Sweep(f"{name} {size} x{budget}", trials)


def studies() -> Iterator[Sweep]:
    """The tuning seed of the study of filters."""
    for study in STUDIES:
        arms: dict[str, dict[float, float | None]] = defaultdict(dict)
        for line in (DOCS / f"studies/filter-family/{study}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["seed"] == 9:
                arms[row["arm"]][row["lr"]] = row["loss"]
        for arm, trials in arms.items():
            yield Sweep(f"{arm} {study}", trials)


def examples() -> Iterator[Sweep]:
    """The trials of the example pilots, which have curves."""
    for name in EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(DOCS / name / "runs.tar.xz") as packed:
                packed.extractall(folder, filter="data")
            tuning = [r for r in read_runs(Path(folder) / "runs") if r.spec.purpose == "tune"]
        for arm in dict.fromkeys(r.spec.arm_name for r in tuning):
            mine = [r for r in tuning if r.spec.arm_name == arm]
            trials = {r.spec.lr: r.final_loss for r in mine}
            yield Sweep(f"{arm} {name}", trials, {r.spec.lr: half_way(r) for r in mine})


def half_way(run: Run) -> float:
    """Mean training loss from 45 to 55 % of a run; inf for one that ended before."""
    near = [
        r["loss"] for r in run.rows if "loss" in r and 0.45 <= r["step"] / run.spec.steps <= 0.55
    ]
    return fmean(near) if near else math.inf


def usable(sweep: Sweep) -> bool:
    """Whether three rates have a loss and the lowest lies between two that were tried."""
    lrs, best = sorted(sweep.trials), best_lr(sweep.trials)
    finite = [loss for loss in sweep.trials.values() if loss is not None]
    return len(finite) > 2 and best not in (lrs[0], lrs[-1])


def by_least(trials: Trials) -> float:
    """The rate of the lowest loss."""
    return best_lr(trials)


def by_fit(trials: Trials) -> float:
    """The rate of the least expected regret of the fit."""
    fit = fit_rate([(lr, 0, loss) for lr, loss in trials.items()], FACTOR)
    return fit.best if fit else best_lr(trials)


def by_fit_tried(trials: Trials) -> float:
    """The tried rate that is nearest to the fit's."""
    best = by_fit(trials)
    known = [lr for lr, loss in trials.items() if loss is not None]
    return min(known, key=lambda lr: abs(math.log(lr / best)))


RULES: dict[str, Callable[[Trials], float]] = {
    "least": by_least,
    "fit": by_fit,
    "fit, a tried rate": by_fit_tried,
}


def noisy(trials: Trials, noise: float, rng: np.random.Generator) -> Trials:
    """The trials as another seed might have given them."""
    draws = noise * rng.normal(size=len(trials))
    pairs = zip(trials.items(), draws.tolist(), strict=True)
    return {lr: None if loss is None else loss + off for (lr, loss), off in pairs}


def halved(sweep: Sweep) -> Iterator[Trials]:
    """Every second rate, from the first and from the second one on."""
    lrs = sorted(sweep.trials)
    for first in (0, 1):
        kept = {lr: sweep.trials[lr] for lr in lrs[first::2]}
        if sum(loss is not None for loss in kept.values()) > 2:
            yield kept


def costs(
    sweeps: Sequence[Sweep], noise: float, draws: int, *, coarse: bool, curve: str = "monotone"
) -> dict[str, list[list[float]]]:
    """Costs of each rule's choices: of every set of trials, draw by draw."""
    rng, found = np.random.default_rng(0), {name: list[list[float]]() for name in RULES}
    for sweep in sweeps:
        for trials in halved(sweep) if coarse else [sweep.trials]:
            seen = [noisy(trials, noise, rng) for _ in range(draws if noise else 1)]
            for name, rule in RULES.items():
                found[name].append([sweep.cost(rule(drawn), curve) for drawn in seen])
    return found


HEAD = (
    "| records | curve | trials | noise | sets | least: mean (worst) | fit: mean (worst) "
    "| fit, a tried rate: mean (worst) | fit less least |\n" + "|---" * 9 + "|"
)


def row(name: str, kind: str, noise: float, found: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """One line; costs in thousandths of a nat, the spread from set to set of trials."""
    means = {rule: [fmean(drawn) for drawn in x] for rule, x in found.items()}
    cells = [
        f"{1e3 * fmean(means[rule]):.1f} ({1e3 * max(map(max, x)):.0f})"
        for rule, x in found.items()
    ]
    apart = t_interval(
        [1e3 * (f - x) for f, x in zip(means["fit"], means["least"], strict=True)], 0.95
    )
    told = f"{apart.mean:+.1f} ({apart.low:+.1f} to {apart.high:+.1f})"
    return f"| {name} | {kind} | {noise:g} | {apart.n} | {' | '.join(cells)} | {told} |"


@dataclass(frozen=True, slots=True)
class Stops:
    """Effect of stopping bad trials half-way on the arms' searches.

    Args:
        stopped: trials.
        wrong: stopped trials that were among the :data:`NEEDED` lowest of their arm.
        saved: share of all steps.
        moved: regrets that the fit has with the stopped trials as walls, less those without.
    """

    stopped: int
    wrong: int
    saved: float
    moved: tuple[float, ...]


def stops(sweeps: Sequence[Sweep], margin: float) -> Stops:
    """Stop a trial that is half-way worse, by more than a margin, than the arm's best so far."""
    stopped, wrong, total, moved = 0, 0, 0, []
    for sweep in sweeps:
        gone, finished = set[float](), list[float]()
        for lr in sweep.halves:  # in the order in which they were tried
            best = min(finished, key=lambda at: loss_at(sweep.trials, at), default=None)
            if best is not None and sweep.halves[lr] > sweep.halves[best] + margin:
                gone.add(lr)
            else:
                finished.append(lr)
        lowest = sorted(sweep.trials, key=lambda at: loss_at(sweep.trials, at))[:NEEDED]
        stopped, total = stopped + len(gone), total + len(sweep.trials)
        wrong += len(gone & set(lowest))
        kept = {lr: None if lr in gone else loss for lr, loss in sweep.trials.items()}
        moved.append(sweep.cost(by_fit(kept)) - sweep.cost(by_fit(sweep.trials)))
    return Stops(stopped, wrong, 0.5 * stopped / total, tuple(moved))


def stop_row(sweeps: Sequence[Sweep], margin: float) -> str:
    """One line of the table of stops."""
    at, trials = stops(sweeps, margin), sum(len(s.trials) for s in sweeps)
    mean, worst = 1e3 * fmean(at.moved), 1e3 * max(at.moved)
    cells = f"{at.stopped} of {trials} | {at.wrong} | {at.saved:.0%} | {mean:+.1f} ({worst:+.1f})"
    return f"| {margin:g} | {cells} |"


def main() -> None:
    """Print the tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20, help="of the noise, for each sweep")
    args = parser.parse_args()
    print(HEAD)
    for name, read in (("marin", marin), ("studies", studies), ("examples", examples)):
        sweeps = [sweep for sweep in read() if usable(sweep)]
        for coarse, kind in ((False, "all"), (True, "every second")):
            for noise in NOISES:
                for curve in CURVES:
                    found = costs(sweeps, noise, args.draws, coarse=coarse, curve=curve)
                    print(row(f"{name} | {curve}", kind, noise, found), flush=True)
    print("\n| margin, nats | stopped | needed | steps saved | regret added, 1e-3 (worst) |")
    print("|---" * 5 + "|")
    for margin in MARGINS:
        print(stop_row(list(examples()), margin), flush=True)


if __name__ == "__main__":
    main()
