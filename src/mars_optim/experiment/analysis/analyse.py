"""From the folder of a pilot to its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UserError, did_you_mean
from ...files import read_json
from ..plan import Plan
from ..plan.decision import LOSS
from ..plan.plan_file import load_plan, plan_of
from ..records import Run, read_runs
from ..records.checks import read_checks
from ..records.metric import judged, written
from .aftermath import aftermath
from .arm_model import ArmResult
from .arm_results import arm_results, step_time
from .at_target import AtTarget, at_target
from .causes import contrasts, parts
from .choice import in_loss, tokens_added
from .compared import Comparison
from .comparison import comparison
from .cost import money_of
from .hours import hours_lost
from .looks import interval
from .missing import missing_findings
from .model import Analysis, Finding, Totals
from .money import Money, StepTime
from .no_runs import no_runs
from .noise import noise_points
from .sensitivity import lines
from .size_trend import trend
from .sizes import SizeResult
from .stats import Interval, saved
from .tuning_budget import tuning_budgets
from .units import in_units
from .verdict import decide


def analyse(
    out: Path, *, forecast: bool = True, canary: Path | None = None, guard: Path | None = None
) -> Analysis:
    """Read the plan, the probe and the runs in ``out`` and compute all that a report shows.

    Args:
        out: folder of the pilot.
        forecast: the gain at the plan's target too, which takes seconds.
        canary: result of stage 2, a file or its folder (default: None, looked for in ``out``).
        guard: log of stage 3 (default: None, looked for in ``out``).

    Raises:
        UserError: if ``out`` holds no pilot, or no finished run, or a named file is not of it.
    """
    plan = load_plan(plan_of(out))
    runs = [r for r in read_runs(out / "runs") if r.outcome and plan.covers(r.spec)]
    if not runs:
        raise UserError(no_runs(plan, out))
    runs = [judged(run, plan.decision) for run in _with_metric(plan, runs)]
    if len(texts := {r.spec.data for r in runs}) > 1:
        raise UserError(
            f"{out} holds runs on {len(texts)} different data sets, which cannot be compared: "
            "use an --out for each"
        )
    probe = read_json(out / "probe.json") if (out / "probe.json").exists() else {}
    sizes = [comparison(plan, size, runs) for size in plan.sizes()]
    own = sizes[0]
    arms = arm_results(own, probe)
    verdict = decide(
        plan, arms[plan.comparison.baseline], arms[plan.comparison.candidate], own.open
    )
    if not verdict.trusted:
        arms = {name: without_intervals(arm) for name, arm in arms.items()}
    candidate = arms[plan.comparison.candidate]
    control = next((a for a in arms.values() if a.role == "control"), None)
    totals = _totals(runs, sum(size.missing for size in sizes))
    first = (own.runs or runs)[0].outcome
    assert first is not None
    results = _sizes(sizes, arms)
    beyond = at_target(plan, sizes, trusted=verdict.trusted) if forecast else None
    real = (beyond and beyond.log_ratio) or candidate.log_ratio
    found = Analysis(
        plan=plan,
        arms=tuple(arms.values()),
        verdict=replace(
            verdict,
            reasons=(
                *verdict.reasons,
                *_not_run(plan, sizes, verdict.decision),
                *([_forecast_finding(plan, beyond)] if beyond else []),
                *missing_findings(plan, out),
            ),
        ),
        ladder=_ladder(plan.comparison.baseline, own.compared.values()),
        candidate_ladder=_ladder(plan.comparison.candidate, own.compared.values())
        if plan.both_ladders
        else (),
        unit_tokens=plan.training.steps * first.tokens // first.steps,
        parameters=first.parameters,
        totals=totals,
        control_share=_share(candidate, control),
        against_control=_paired_difference(plan, candidate, control),
        environment=runs[-1].environment,
        amendments=_amendments(out / "amendments.jsonl"),
        money=_money(own, real, step_time(own, candidate.name, probe), totals.seconds),
        sensitivity=() if plan.tuning.by_design else lines(plan, own.runs),
        parts=parts(plan, arms),
        contrasts=contrasts(plan, arms),
        sizes=results,
        trend=trend(results, plan.decision.confidence),
        noise=noise_points(_of_candidate(own)),
        checks=read_checks(out, plan.arm),
        budgets=tuning_budgets(own, arms),
        at_target=beyond,
        aftermath=aftermath(plan, out, canary, guard),
        pair_seconds=_pair_seconds(sizes),
        run_seconds=_run_seconds(own),
    )
    return in_units(_with_hours(found))


def _with_hours(found: Analysis) -> Analysis:
    """The analysis; a go that surely costs hours says so among its reasons."""
    lost = hours_lost(found) if found.verdict.decision == "go" else None
    if lost is None:
        return found
    verdict = replace(found.verdict, reasons=(*found.verdict.reasons, lost))
    return replace(found, verdict=verdict)


def _with_metric(plan: Plan, runs: list[Run]) -> list[Run]:
    """The runs; see that some have the metric that decides, unless all diverged.

    Raises:
        UserError: naming those that they have.
    """
    metric, names = plan.decision.metric, written(runs)
    ended = any(run.outcome.status != "diverged" for run in runs if run.outcome)
    if metric != LOSS and metric not in names and ended:
        raise UserError(
            f"no run has decision.metric = {metric!r} as a number after its last step; known: "
            f"{', '.join(names) or 'none'}{did_you_mean(metric, names)}"
        )
    return runs


def without_intervals(arm: ArmResult) -> ArmResult:
    """Its losses only: differences of results that are no evidence are none."""
    seeds = tuple(replace(s, difference=None, log_ratio=None, reading=None) for s in arm.seeds)
    return replace(
        arm,
        seeds=seeds,
        trials_pair=None,
        loss_difference=None,
        log_ratio=None,
        log_ratio_here=None,
    )


def _of_candidate(own: Comparison) -> list[Run]:
    """The candidate's compared runs, all of one budget."""
    name, steps = own.plan.comparison.candidate, own.size.steps(1.0)
    return [run for (arm, _, n), run in own.compared.items() if (arm, n) == (name, steps)]


def _money(
    own: Comparison, log_ratio: Interval | None, measured: StepTime | None, seconds: float
) -> Money | None:
    if log_ratio is None or measured is None:
        return None
    return money_of(
        own.plan.job_cost,
        log_ratio,
        measured,
        confidence=own.plan.decision.confidence,
        pilot_seconds=seconds,
    )


def _not_run(plan: Plan, sizes: list[Comparison], decision: str) -> list[Finding]:
    """The arms that are run after a go only, where there was none at any size."""
    run = {r.spec.arm_name for at in sizes for r in at.runs}
    left_out = [arm for arm in plan.arms if arm not in run]
    if sizes[0].missing or decision == "go" or not left_out:
        return []
    return [Finding("reason.others-not-run", dict(arms=", ".join(left_out)))]


def _forecast_finding(plan: Plan, found: AtTarget) -> Finding:
    """The forecast of the candidate's gain on the real job, or the reason why there is none."""
    name, target = plan.comparison.candidate, plan.target
    job: dict[str, str | float]
    job = dict(parameters=target.parameters, tokens=target.tokens, candidate=name)
    if found.log_ratio is None:
        return Finding("at-target.refused", job | {"why": found.arms[name].refusal or ""})
    share = found.log_ratio.map(saved)
    ends = dict(share=share.mean, low=share.low, high=share.high, level=share.confidence)
    return Finding("at-target.forecast", job | ends)


def _sizes(sizes: list[Comparison], own: Mapping[str, ArmResult]) -> tuple[SizeResult, ...]:
    """Those whose candidate has a saving; none if the plan has one size only."""
    if len(sizes) < 2:
        return ()
    found = []
    for at in sizes:
        arms = own if at is sizes[0] else arm_results(at, {})
        candidate = arms[at.plan.comparison.candidate]
        outcome = next((r.outcome for r in at.runs if r.outcome), None)
        if outcome is None or candidate.log_ratio is None:
            continue
        found.append(
            SizeResult(
                name=at.size.name,
                parameters=outcome.parameters,
                tokens=at.size.steps(1.0) * outcome.tokens // outcome.steps,
                log_ratio=candidate.log_ratio,
                ratios=tuple(s.log_ratio for s in candidate.pairs if s.log_ratio is not None),
                choice=tokens_added(candidate, arms[at.plan.comparison.baseline]),
                control=next((a.log_ratio for a in arms.values() if a.role == "control"), None),
                at_edge=tuple(a.name for a in arms.values() if a.at_edge),
                diverged=candidate.diverged,
                bounds=frozenset(candidate.bounds),
                missing=at.missing,
            )
        )
    return tuple(found)


def _ladder(arm: str, runs: Iterable[Run]) -> tuple[tuple[int, int, float], ...]:
    return tuple(
        sorted(
            (r.spec.seed, r.outcome.tokens, r.final_loss)
            for r in runs
            if r.spec.arm_name == arm and r.outcome and r.final_loss is not None
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
    theirs = {s.seed: s.loss for s in b.pairs}
    pairs = [(s.loss, theirs.get(s.seed)) for s in a.pairs]
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    measured = interval(differences, plan.decision)
    return in_loss(measured, a, b)


def _totals(runs: list[Run], missing: int) -> Totals:
    outcomes = [r.outcome for r in runs if r.outcome]
    return Totals(
        runs=len(outcomes),
        diverged=sum(o.status == "diverged" for o in outcomes),
        tokens=sum(r.own_tokens for r in runs),
        seconds=sum(o.seconds for o in outcomes),
        missing=missing,
    )


def _pair_seconds(sizes: Iterable[Comparison]) -> float:
    """Mean over the seeds so far, summed over the sizes."""
    total = 0.0
    for at in sizes:
        unit = at.size.steps(1.0) if at.plan.comparison.ladder_seeds else None  # it has no rungs
        runs = [r.outcome for (_, _, n), r in at.compared.items() if unit in (None, n)]
        spent = [outcome.seconds for outcome in runs if outcome]
        total += sum(spent) / max(1, len({seed for _, seed, _ in at.compared}))
    return total


def _run_seconds(own: Comparison) -> float:
    steps = own.size.steps(1.0)
    spent = [r.outcome.seconds for (_, _, n), r in own.compared.items() if n == steps and r.outcome]
    return sum(spent) / len(spent) if spent else 0.0


def _amendments(path: Path) -> tuple[dict[str, Any], ...]:
    if not path.exists():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; delete the damaged line") from None
