"""The three studies decided again by the built-in plan's design, from records, without a run.

``python -m benchmarks.decided_again`` prints the table of docs/statistics.md.

The folders of the studies' runs are not kept. What the comparison needs is: each arm's final losses
and what the choice of its rate loses are in ``verdict.json``; the baseline's losses on the ladder
stand in ``figures/ladder.svg``, one line a seed, to six digits of its height. They are checked: at
the common budget they must be those of ``verdict.json``. Single trials are not recorded, so both
designs have the rates and the number of trials of the study, and the trials are no pair.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mars_optim.experiment.analysis.arm_model import ArmResult
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.choice import with_choice
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.stats import saved
from mars_optim.experiment.analysis.verdict import decide, settles_more
from mars_optim.experiment.pilot.agenda import first_seeds
from mars_optim.experiment.pilot.tuning import spec_of
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import BUILT_IN, load_plan, make_plan
from mars_optim.experiment.plan.written import plain
from mars_optim.experiment.records import Outcome, Run

from . import output
from .table import markdown

FOLDER = Path(__file__).parents[1] / "docs" / "studies"
STUDIES = ("gpt-fit", "shakespeare-fit", "cifar-fit")
HEADER = (
    *("study", "candidate", "verdict of the study", "saved", "pairs", "budgets"),
    *("verdict again", "saved again", "pairs again", "budgets again"),
)
ENDS_AS = {"go": "go", "no-go": "no-go", "not-enough-runs": "not enough runs"}


class Again(NamedTuple):
    """A decision from records.

    Args:
        decision: of the rule; "" where the design asks for a pair that is not recorded.
        saved: share of tokens, with its interval, as text.
        pairs: that it rests on.
        budgets: of baseline and candidate until then, trials included.
    """

    decision: str
    saved: str
    pairs: int
    budgets: float


@dataclass(frozen=True, slots=True)
class Study:
    """Records of a study.

    Args:
        plan: that it followed.
        verdict: ``verdict.json``.
        ladder: the baseline's losses, a row for each seed, a column for each budget, rising.
    """

    plan: Plan
    verdict: dict[str, Any]
    ladder: list[list[float]]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read a study's folder.

        Raises:
            ValueError: where figure and verdict do not agree on the baseline's losses.
        """
        plan = load_plan(folder / "plan.toml")
        verdict = json.loads((folder / "verdict.json").read_text("utf-8"))
        ladder = drawn_ladder((folder / "figures" / "ladder.svg").read_text("utf-8"))
        at = sorted(plan.rungs(plan.comparison.baseline)).index(1.0)
        known = verdict["arms"][plan.comparison.baseline]["final_losses"]
        for seed, row in zip(plan.comparison.seeds, ladder, strict=True):
            if abs(row[at] - known[str(seed)]) > 1e-5:
                raise ValueError(f"{folder}: seed {seed} ends at {row[at]} and at {known}")
            row[at] = known[str(seed)]
        return cls(plan, verdict, ladder)

    def losses(self, arm: str) -> dict[int, float]:
        """An arm's final losses at the common budget, by seed."""
        return {int(s): x for s, x in self.verdict["arms"][arm]["final_losses"].items()}

    def runs(self, plan: Plan, seeds: Iterable[int]) -> Iterator[Run]:
        """The recorded runs of the two arms of ``plan``, on these seeds."""
        unit, rungs = plan.training.steps, sorted(self.plan.rungs(self.plan.comparison.baseline))
        for seed in seeds:
            own = self.ladder[self.plan.comparison.seeds.index(seed)]
            for budget, loss in zip(rungs, own, strict=True):
                yield self._run(plan, plan.comparison.baseline, seed, round(unit * budget), loss)
            candidate = plan.comparison.candidate
            yield self._run(plan, candidate, seed, unit, self.losses(candidate)[seed])

    def _run(self, plan: Plan, arm: str, seed: int, steps: int, loss: float) -> Run:
        whole = steps == plan.training.steps
        spec = spec_of(
            plan,
            plan.sizes()[0],
            "data",
            purpose="compare" if whole else "ladder",
            arm_name=arm,
            lr=self.verdict["arms"][arm]["lr"],
            seed=seed,
            steps=steps,
        )
        outcome = Outcome(
            status="finished",
            final_loss=loss,
            steps=steps,
            tokens=round(self.verdict["tokens_per_run"] * steps / plan.training.steps),
            seconds=1.0,
            parameters=1,
            state_bytes=8,
        )
        return Run(path=Path(spec.run_id), spec=spec, outcome=outcome, environment={})


def drawn_ladder(svg: str) -> list[list[float]]:
    """Losses along the baseline's lines in a report's picture of the ladder."""
    axis = svg[svg.index("matplotlib.axis_2") :]
    ticks = re.findall(r'<use [^>]*y="([\d.]+)".*?<text [^>]*>([\d.]+)</text>', axis, re.S)
    heights, losses = (np.array([float(t[i]) for t in ticks]) for i in (0, 1))
    to_loss = np.polynomial.Polynomial.fit(heights, losses, 1)
    lines = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*stroke: #4d4d4d', svg)
    points = [re.findall(r"[ML] [-\d.]+ ([-\d.]+)", line) for line in lines]
    return [[float(to_loss(float(y))) for y in line] for line in points]


def plan_of(study: Study, arm: str, *, cheap: bool) -> Plan:
    """The study's plan for one candidate; with the built-in plan's looks, seeds and ladder."""
    baseline = study.plan.comparison.baseline
    data = plain(study.plan)
    if cheap:
        data["comparison"] |= BUILT_IN["comparison"] | {"trials_pair": False}
        data["decision"] |= BUILT_IN["decision"]
    return make_plan(data, (f'arms=["{baseline}", "{arm}"]', f"comparison.candidate={arm}"))


def decided(study: Study, plan: Plan) -> Again:
    """The decision of a plan, looking as often as it does, as far as the records go."""
    recorded = study.plan.comparison.seeds
    first = len(first_seeds(plan)) if plan.decision.looks == "every-pair" else len(recorded)
    names = plan.comparison.judged
    for n in range(first, len(recorded) + 1):
        at = comparison(plan, plan.sizes()[0], study.runs(plan, recorded[:n]))
        arms = arm_results(at, {})
        told = {name: _with_rate(arm, study.verdict["arms"][name]) for name, arm in arms.items()}
        baseline, candidate = (with_choice(told, names[0])[name] for name in names)
        verdict = decide(plan, baseline, candidate, 0)
        more = plan.decision.looks == "every-pair" and settles_more(
            plan, baseline, candidate, verdict
        )
        if not more:
            break
    trials = sum(study.verdict["arms"][name]["lr_trials"] for name in names)
    spent = sum(run.spec.steps for run in at.compared.values()) / plan.training.steps
    return Again("" if more else verdict.decision, _saved(candidate), n, trials + spent)


def _with_rate(arm: ArmResult, recorded: dict[str, Any]) -> ArmResult:
    """With what the choice of the rate is known to lose, and no such thing in its ratio yet."""
    return replace(
        arm,
        regret=tuple(recorded["lr_regret"]),
        at_edge=recorded["lr_at_edge"],
        log_ratio=arm.log_ratio_here,
    )


def _saved(arm: ArmResult) -> str:
    share = arm.log_ratio.map(saved) if arm.log_ratio else None
    if share is None:
        return "not known"
    bound = {"at least": "≥ ", "at most": "≤ "}.get(min(arm.bounds, default=""), "")
    return f"{bound}{100 * share.mean:.1f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"


def rows(name: str) -> Iterator[list[str]]:
    """A row for each arm of a study as its candidate."""
    study = Study.read(FOLDER / name)
    for arm in study.plan.arms:
        if arm == study.plan.comparison.baseline:
            continue
        yield [name.removesuffix("-fit"), arm, *_cells(study, arm)]


def _cells(study: Study, arm: str) -> Iterator[str]:
    for cheap in (False, True):
        found = decided(study, plan_of(study, arm, cheap=cheap))
        yield ENDS_AS.get(found.decision, "one more pair, not recorded")
        yield from (found.saved, str(found.pairs), f"{found.budgets:g}")


def main(arguments: list[str]) -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decided_again")
    parser.add_argument("--studies", nargs="*", default=list(STUDIES))
    args = parser.parse_args(arguments)
    print(markdown(HEADER, [row for name in args.studies for row in rows(name)]))


if __name__ == "__main__":
    output.run(main)
