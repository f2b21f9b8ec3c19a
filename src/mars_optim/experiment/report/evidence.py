"""The evidence: every arm, the ladder, the learning rates, the curves, every seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean

from ..analysis import Analysis, ArmResult, Shown
from ..analysis.stats import saved
from ..plan.recipe import Ours, Published
from . import noise_course, numbers, sensitivity
from .document import Block, Cell, Picture, Section, Table
from .messages import Messages
from .savings import bounded
from .theme import pictured

KNOWN_SCORES = ("accuracy", "bits_per_byte")  # with a heading in each language


def section(analysis: Analysis, words: Messages, svgs: Mapping[str, str]) -> Section:
    """All tables and figures behind the answer."""
    pictures = [
        _ladder(analysis, words, svgs["ladder"]),
        sweep_picture(analysis, words, svgs["sweep"]),
        curves_picture(analysis, words, svgs["curves"]),
    ]
    if analysis.sensitivity:
        pictures.insert(2, sensitivity.picture(analysis, words, svgs["sensitivity"]))
    if analysis.noise:
        pictures.append(noise_course.picture(analysis, words, svgs["course"]))
    shown = tuple(picture for picture in pictures if picture.data.rows)
    blocks: tuple[Block, ...] = (arms_table(analysis, words), *shown, seeds_table(analysis, words))
    return Section("evidence", words("section.evidence"), blocks)


def arms_table(analysis: Analysis, words: Messages) -> Table:
    """A row per arm: rate, loss, difference, saving, time, memory."""
    columns = ("lr", "mean-loss", "difference", "tokens-saved", "step-time", "state")
    scores, plan = score_columns(analysis.arms), analysis.plan
    told = ["runs.published"] if plan.published else []
    changed = bool(plan.recipe.changed)
    return Table(
        words("table.arms", baseline=analysis.baseline.name),
        (
            words("arm"),
            *(words(column) for column in columns),
            *(score_name(key, words) for key in scores),
            *map(words, told),
        ),
        tuple(
            (
                *_arm_row(arm, words),
                *(score_cell(arm, key, words) for key in scores),
                *(told_cell(plan.published.get(arm.name), words, changed=changed) for _ in told),
            )
            for arm in analysis.arms
        ),
    )


def _arm_row(arm: ArmResult, words: Messages) -> tuple[Cell, ...]:
    none = words("none")
    trials = words("trials-at-edge" if arm.at_edge else "trials", n=len(arm.trials))
    if arm.best_range and not arm.at_edge:
        low, high = arm.best_range
        trials = words("trials-between", n=len(arm.trials), low=low, high=high)
    seeds = words("seeds", n=len(arm.seeds))
    if arm.diverged:
        seeds = words("seeds-diverged", n=len(arm.seeds), diverged=arm.diverged)
    difference, share = arm.loss_difference, arm.log_ratio and arm.log_ratio.map(saved)
    known = difference is not None and math.isfinite(difference.low)
    spread = share is not None and math.isfinite(share.low) and not arm.all_bounds
    return (
        Cell(arm.name, words(f"role.{arm.role}"), arm=arm.name),
        Cell(f"{arm.lr:.2g}" if arm.lr else none, trials),
        Cell(loss(arm.mean_loss, words) if arm.seeds else none, seeds),
        Cell(
            words.signed(difference.mean) if difference else none,
            words.between(difference, words.signed) if difference and known else "",
        ),
        Cell(
            bounded(arm.bounds) + words.percent(share.mean) if share else none,
            words.between(share, words.percent) if share and spread else "",
        ),
        Cell(
            f"{arm.step_time[0]:.2f}" if arm.step_time else none,
            _quartiles(arm, words),
        ),
        Cell(f"{arm.bytes_per_parameter:.1f} B" if arm.bytes_per_parameter else none),
    )


def step_time(arm: ArmResult, words: Messages) -> str:
    """Median (quartiles) of the ratio to the baseline."""
    if arm.step_time is None:
        return words("not-measured")
    value = f"{arm.step_time[0]:.2f}"
    return words("with-interval", value=value, ends=_quartiles(arm, words))


def _quartiles(arm: ArmResult, words: Messages) -> str:
    if arm.step_time is None:
        return ""
    low, high = (f"{value:.2f}" for value in arm.step_time[1:])
    return words("between", low=low, high=high)


def loss(value: float | None, words: Messages) -> str:
    """A loss, or that there is none."""
    return words("diverged") if value is None else f"{value:.4f}"


def seeds_table(analysis: Analysis, words: Messages) -> Table:
    """Final loss of every seed of every arm."""

    def cell(arm: ArmResult, seed: int) -> Cell:
        found = next((s for s in arm.seeds if s.seed == seed), None)
        return Cell(loss(found.loss, words) if found else words("missing"))

    return Table(
        words("table.seeds"),
        (words("seed"), *(arm.name for arm in analysis.arms)),
        tuple(
            (Cell(str(seed)), *(cell(arm, seed) for arm in analysis.arms))
            for seed in analysis.plan.comparison.seeds
        ),
    )


def _ladder(analysis: Analysis, words: Messages, svg: str) -> Picture:
    baseline = analysis.baseline.name
    tokens = sorted({t for _, t, _ in analysis.ladder})
    losses = {(seed, t): value for seed, t, value in analysis.ladder}
    seeds = sorted({seed for seed, _, _ in analysis.ladder})
    data = Table(
        words("figure.ladder.data", baseline=baseline),
        (words("seed"), *(words("tokens", n=t) for t in tokens)),
        tuple(
            (
                Cell(str(seed)),
                *(
                    Cell(f"{losses[seed, t]:.4f}" if (seed, t) in losses else words("missing"))
                    for t in tokens
                ),
            )
            for seed in seeds
        ),
    )
    rungs = len(analysis.plan.comparison.ladder) + 1
    return Picture(
        "ladder",
        words("figure.ladder.text", baseline=baseline),
        _some(analysis, words, words("figure.ladder.caption", baseline=baseline, rungs=rungs)),
        data,
        svg,
    )


def sweep_picture(
    analysis: Shown,
    words: Messages,
    svg: str,
    *,
    name: str = "sweep",
    caption: str = "figure.sweep.caption",
    data: str = "figure.sweep.data",
) -> Picture:
    """Final loss over the learning rate.

    Args:
        analysis: whose arms have trials.
        words: of the language.
        svg: drawn.
        name: of the figure.
        caption: code of it.
        data: code of the caption of its numbers.
    """
    rows = tuple(
        (
            Cell(arm.name, arm=arm.name),
            Cell(f"{trial.lr:.2g}", words("chosen") if trial.lr == arm.lr else ""),
            Cell(loss(trial.loss, words)),
        )
        for arm in analysis.arms
        for trial in arm.trials
    )
    best = words("list-separator").join(
        words("figure.sweep.best", arm=arm.name, lr=arm.lr) for arm in analysis.arms if arm.lr
    )
    return Picture(
        name,
        words("figure.sweep.text", best=best),
        _some(analysis, words, words(caption)),
        Table(words(data), (words("arm"), words("lr"), words("final-loss")), rows),
        svg,
    )


POINTS = 8  # rows of the curves' table


def curves_picture(
    analysis: Shown,
    words: Messages,
    svg: str,
    *,
    name: str = "curves",
    caption: str = "figure.curves.caption",
) -> Picture:
    """Losses over tokens; arguments as of :func:`sweep_picture`."""
    arms = [arm for arm in analysis.arms if any(curve.train for curve in arm.curves)]
    tokens = sorted({t for arm in arms for curve in arm.curves for t, _ in curve.train})
    shown = tokens[len(tokens) - 1 :: -max(1, len(tokens) // POINTS)][::-1] if tokens else []

    def mean(arm: ArmResult, at: int) -> str:
        values = [value for curve in arm.curves for t, value in curve.train if t == at]
        return f"{fmean(values):.4f}" if values else words("none")

    data = Table(
        words("figure.curves.data"),
        (words("training-tokens"), *(arm.name for arm in arms)),
        tuple((Cell(numbers.count(t)), *(Cell(mean(arm, t)) for arm in arms)) for t in shown),
    )
    caption = _some(analysis, words, words(caption))
    return Picture(name, words("figure.curves.text"), caption, data, svg)


def _some(analysis: Shown, words: Messages, caption: str) -> str:
    """The caption, and which arms are drawn if not all are."""
    drawn, arms = len(pictured(analysis)), len(analysis.arms)
    if drawn == arms:
        return caption
    gap = "" if words.lang == "ja" else " "
    return caption + gap + words("figure.some", drawn=drawn, arms=arms)


def score_columns(arms: Iterable[ArmResult]) -> list[str]:
    """What evaluations tell beside the loss, of any of the arms."""
    return list(dict.fromkeys(key for arm in arms for key in arm.scores))


def score_name(key: str, words: Messages) -> str:
    """The heading of such a column; a task's own score keeps its name."""
    return words(f"score.{key}") if key in KNOWN_SCORES else key


def score_cell(arm: ArmResult, key: str, words: Messages) -> Cell:
    """Its mean over the seeds."""
    value = arm.scores.get(key)
    if value is None:
        return Cell(words("none"))
    return Cell(words.level(round(value, 4)) if key == "accuracy" else f"{value:.4f}")


def told_cell(known: Published | Ours | None, words: Messages, *, changed: bool = False) -> Cell:
    """What a recipe tells of an arm: loss, accuracy and what qualifies them.

    Args:
        known: a dash where nothing is.
        words: of the language.
        changed: whether the runs depart from the recipe, which then is said.
    """
    if known is None:
        return Cell(words("none"))
    values = [f"{known.loss:g}"] if known.loss is not None else []
    if known.accuracy is not None:
        values.append(words.level(round(known.accuracy / 100, 6)))
    text = ", ".join(values) or words("none")
    if isinstance(known, Published):
        if changed and values:
            return Cell(text, words("runs.unchanged"))
        return Cell(text, words("runs.settings-ours") if known.settings == "ours" else "")
    return Cell(text, words("seeds", n=known.seeds))
