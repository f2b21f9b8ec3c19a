"""Do the intervals of performance profiles hold the truth, at known log ratios?

``python -m benchmarks.simulated_profiles`` prints the table of docs/statistics.md; whole pilots
with a search for the rates are in :mod:`benchmarks.simulated_jobs`.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import numpy as np

from mars_optim.experiment.analysis import profiles
from mars_optim.experiment.analysis.stats import t_interval

ROWS = (  # jobs, pairs, noise of a log ratio, spread of the arms' log costs
    (3, 3, 0.05, 0.1),
    (3, 3, 0.1, 0.05),
    (3, 5, 0.05, 0.1),
    (8, 5, 0.05, 0.05),
    (3, 5, 0.1, 0.0),
    (8, 3, 0.1, 0.1),
)
TAUS = (1.01, 1.02, 1.05, 1.1, 1.25)
NAMES = ("baseline", "a", "b", "c")
CONFIDENCE = 0.95


def arm(name: str, ratios: list[float]) -> Any:
    """An arm's result, as the profiles need it; the baseline has no ratios."""
    return SimpleNamespace(
        name=name,
        role="other" if ratios else "baseline",
        diverged=0,
        all_bounds=False,
        bounds=set(),
        regret=(),
        slope=None,
        log_ratio=t_interval(ratios, CONFIDENCE) if ratios else None,
        seeds=[SimpleNamespace(seed=i, log_ratio=r) for i, r in enumerate(ratios)],
    )


def team(jobs: int, pairs: int, noise: float, spread: float, rng: Any) -> tuple[Any, list[Any]]:
    """True tau (jobs, arms), and what each job's pilot finds; half of the noise is shared."""
    true = rng.normal(0, spread, (jobs, 4))
    true[:, 0] = 0
    made = []
    for costs in true:
        common = rng.normal(0, noise, pairs)
        rows = [-c + common * 0.7 + rng.normal(0, noise * 0.7, pairs) for c in costs[1:]]
        made.append([arm(n, list(r)) for n, r in zip(NAMES, [[], *rows], strict=True)])
    found = [profiles.Costs.of(arms, int(rng.integers(1e9))) for arms in made]
    return np.exp(true - true.min(axis=1, keepdims=True)), found


def study(row: tuple[int, int, float, float], teams: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng(1)
    low = high = width = 0.0
    for _ in range(teams):
        tau, found = team(*row, rng)
        for k, name in enumerate(NAMES):
            profile = profiles.Profile(name, tuple(c.evidence(name) for c in found), CONFIDENCE)
            for limit in TAUS:
                share = float((tau[:, k] <= limit * (1 + 1e-9)).mean())
                ends = profile.ends(limit)
                low += share < ends[0] - 1e-9
                high += share > ends[1] + 1e-9
                width += ends[1] - ends[0]
    total = teams * len(NAMES) * len(TAUS)
    held = f"{1 - (low + high) / total:.1%} | {low / total:.1%} | {high / total:.1%}"
    return f"| {' | '.join(map(str, row))} | {held} | {width / total:.2f} |"


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teams", type=int, default=150, help="of each kind")
    profiles.DRAWS = 1000
    teams = parser.parse_args().teams
    print("| jobs | pairs | noise | spread | coverage | below | above | mean width |")
    print("|---" * 8 + "|")
    for row in ROWS:
        print(study(row, teams), flush=True)


if __name__ == "__main__":
    main()
