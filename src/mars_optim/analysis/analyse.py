"""From the folder of a pilot to its numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..records import Plan, Run, UserError, read_runs
from ..records.plan import load_plan, plan_of
from ..records.run import read_json
from ..records.trials import at_edge
from .ladder import tokens_to_reach
from .missing import missing_lines
from .model import Analysis, ArmResult, Curve, SeedResult, Totals, Trial
from .stats import Interval, t_interval
from .verdict import decide

CONTROL = "nadamw"


def analyse(out: Path) -> Analysis:
    """Read the plan, the probe and the runs in ``out`` and compute all that a report shows.

    Raises:
        UserError: if ``out`` holds no pilot, or no finished run.
    """
    plan = load_plan(plan_of(out))
    runs = [r for r in read_runs(out / "runs") if r.outcome and plan.covers(r.spec)]
    if not runs:
        why = "".join(f". {line}" for line in missing_lines(plan, out)[:1])
        raise UserError(
            f"{out} holds no finished run yet; `mars pilot --out {out}` makes them{why}"
        )
    if len(texts := {r.spec.data for r in runs}) > 1:
        raise UserError(f"{out} holds runs on {len(texts)} different texts: not to be compared")
    probe = read_json(out / "probe.json") if (out / "probe.json").exists() else {}
    wanted = _wanted(plan)
    compared = {
        (r.spec.arm_name, r.spec.seed, r.spec.steps): r
        for r in runs
        if (r.spec.arm_name, r.spec.seed, r.spec.steps) in wanted
    }
    arms = tuple(_arm(plan, name, runs, compared, probe.get(name)) for name in plan.arms)
    by_name = {a.name: a for a in arms}
    candidate = by_name[plan.comparison.candidate]
    control = next((a for a in arms if a.role == "control"), None)
    missing = len(wanted - compared.keys())
    verdict = decide(plan, by_name[plan.comparison.baseline], candidate, missing)
    outcome = runs[0].outcome
    assert outcome is not None
    return Analysis(
        plan=plan,
        arms=arms,
        verdict=replace(verdict, reasons=verdict.reasons + missing_lines(plan, out)),
        ladder=_ladder(plan, compared.values()),
        unit_tokens=plan.training.steps * outcome.tokens // outcome.steps,
        parameters=outcome.parameters,
        totals=_totals(runs, missing),
        control_share=_share(candidate, control),
        against_control=_paired_difference(plan, candidate, control),
        environment=runs[-1].environment,
        amendments=_amendments(out / "amendments.jsonl"),
    )


def _wanted(plan: Plan) -> set[tuple[str, int, int]]:
    """(arm, seed, steps) of every run of the comparison."""
    baseline = plan.comparison.baseline
    return {
        (arm, seed, plan.steps(budget))
        for seed in plan.comparison.seeds
        for arm in plan.arms
        for budget in ((1.0, *plan.comparison.ladder) if arm == baseline else (1.0,))
    }


def _arm(
    plan: Plan,
    name: str,
    runs: list[Run],
    compared: dict[tuple[str, int, int], Run],
    probe: dict[str, Any] | None,
) -> ArmResult:
    mine = {s: r for (arm, s, steps), r in compared.items() if (arm, steps) == (name, _unit(plan))}
    seeds = tuple(_seed(plan, mine[seed], compared) for seed in sorted(mine))
    tuning = [r for r in runs if r.spec.stage == "tune" and r.spec.arm_name == name]
    trials = sorted((Trial(lr=r.spec.lr, loss=r.final_loss) for r in tuning), key=lambda t: t.lr)
    is_baseline = name == plan.comparison.baseline
    first = next((r.outcome for r in (*mine.values(), *tuning) if r.outcome), None)
    return ArmResult(
        name=name,
        role=_role(plan, name),
        arm=plan.arm[name],
        lr=next((r.spec.lr for r in mine.values()), None),
        trials=tuple(trials),
        at_edge=at_edge({t.lr: t.loss for t in trials}) if trials else False,
        seeds=seeds,
        loss_difference=None if is_baseline else _interval(plan, [s.difference for s in seeds]),
        log_ratio=None if is_baseline else _interval(plan, [s.log_ratio for s in seeds]),
        diverged=sum(s.loss is None for s in seeds),
        step_time=(probe["ratio"], probe["ratio_low"], probe["ratio_high"]) if probe else None,
        bytes_per_parameter=first.state_bytes / first.parameters if first else None,
        curves=tuple(_curve(mine[seed]) for seed in sorted(mine)),
    )


def _role(plan: Plan, name: str) -> Literal["baseline", "candidate", "control", "other"]:
    if name == plan.comparison.baseline:
        return "baseline"
    if name == plan.comparison.candidate:
        return "candidate"
    return "control" if name == CONTROL else "other"


def _unit(plan: Plan) -> int:
    return plan.steps(1.0)


def _seed(plan: Plan, run: Run, compared: dict[tuple[str, int, int], Run]) -> SeedResult:
    baseline, seed = plan.comparison.baseline, run.spec.seed
    budgets = (1.0, *plan.comparison.ladder)
    ladder = [compared.get((baseline, seed, plan.steps(b))) for b in budgets]
    rungs = [(r.outcome.tokens, r.final_loss) for r in ladder if r and r.outcome]
    finite = [(tokens, loss) for tokens, loss in rungs if loss is not None]
    loss, base = run.final_loss, ladder[0].final_loss if ladder[0] else None
    reading = None
    if len(finite) >= 2:
        reading = tokens_to_reach(finite, math.inf if loss is None else loss)
    return SeedResult(
        seed=seed,
        loss=loss,
        difference=None if loss is None or base is None else loss - base,
        reading=reading,
        log_ratio=math.log(reading.tokens / _tokens(run)) if reading else None,
    )


def _tokens(run: Run) -> float:
    """Tokens of the whole schedule, for a run that diverged too."""
    assert run.outcome is not None
    return run.outcome.tokens / run.outcome.steps * run.spec.steps


def _interval(plan: Plan, values: Iterable[float | None]) -> Interval | None:
    known = [v for v in values if v is not None]
    return t_interval(known, plan.decision.confidence) if known else None


def _curve(run: Run) -> Curve:
    def points(key: str) -> tuple[tuple[int, float], ...]:
        return tuple((row["tokens"], row[key]) for row in run.rows if row.get(key) is not None)

    return Curve(seed=run.spec.seed, train=points("loss"), valid=points("valid_loss"))


def _ladder(plan: Plan, runs: Iterable[Run]) -> tuple[tuple[int, int, float], ...]:
    return tuple(
        sorted(
            (r.spec.seed, r.outcome.tokens, r.final_loss)
            for r in runs
            if r.spec.arm_name == plan.comparison.baseline
            and r.outcome
            and r.final_loss is not None
        )
    )


def _share(candidate: ArmResult, control: ArmResult | None) -> float | None:
    if not (control and control.log_ratio and candidate.log_ratio):
        return None
    effect = candidate.log_ratio
    return control.log_ratio.mean / effect.mean if effect.low > 0 else None


def _paired_difference(plan: Plan, a: ArmResult, b: ArmResult | None) -> Interval | None:
    if b is None:
        return None
    theirs = {s.seed: s.loss for s in b.seeds}
    pairs = [(s.loss, theirs.get(s.seed)) for s in a.seeds]
    return _interval(plan, [x - y for x, y in pairs if x is not None and y is not None])


def _totals(runs: list[Run], missing: int) -> Totals:
    outcomes = [r.outcome for r in runs if r.outcome]
    return Totals(
        runs=len(outcomes),
        diverged=sum(o.status == "diverged" for o in outcomes),
        tokens=sum(o.tokens for o in outcomes),
        seconds=sum(o.seconds for o in outcomes),
        missing=missing,
    )


def _amendments(path: Path) -> tuple[dict[str, Any], ...]:
    if not path.exists():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; delete the damaged line") from None
