"""Cost and gain of tuning more than the rate, and the verdict by fewer trials."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ...analysis import Analysis, ArmResult
from ...analysis.best_of import Tuned
from ...analysis.importances import importances
from ...analysis.model import TuningBudget
from ...analysis.stats import saved
from ..document import Block, Cell, Picture, Section, Table, Text
from ..figures.draw import MARKERS, legend, svg_element
from ..figures.theme import ARMS, AXIS, MIN_SAVING, colour, pictured
from ..messages import Messages
from ..savings import bounded, ends
from .arm_cells import loss


def section(analysis: Analysis, say: Messages) -> Section:
    """Empty where the rate alone is tuned, or nothing has been tried yet."""
    arms = {a.name: a.tuned for a in analysis.arms if a.tuned}
    if not arms:
        return Section("tuning", "", ())
    plan = analysis.plan.tuning
    values = dict(trials=plan.trials, names=", ".join(plan.over), others=plan.trials - 1)
    blocks: list[Block] = [Text(say(f"tuning.how.{plan.sampler}", **values))]
    blocks += [_settings(analysis, arms, say), _best_of(analysis, arms, say)]
    if analysis.budgets:
        blocks.append(_budgets(analysis, say))
    blocks.append(_importances(analysis, arms, say))
    return Section("tuning", say("section.tuning"), tuple(blocks))


def _settings(analysis: Analysis, arms: Mapping[str, Tuned], say: Messages) -> Table:
    """What was chosen, beside each default."""
    over = analysis.plan.tuning.over

    def row(name: str, tuned: Tuned) -> tuple[Cell, ...]:
        defaults, first = tuned.trials[0]
        chosen = tuned.chosen or (None,) * len(over)
        return (
            Cell(name, arm=name),
            *(
                _setting(now, own, [values[i] for values, _ in tuned.trials], say)
                for i, (now, own) in enumerate(zip(chosen, defaults, strict=True))
            ),
            Cell(loss(first, say)),
            Cell(loss(_lowest(tuned), say)),
        )

    return Table(
        say("tuning.settings"),
        (say("arm"), *over, *say.each("tuning.default-loss", "tuning.lowest-loss")),
        tuple(row(name, tuned) for name, tuned in arms.items()),
    )


def _setting(now: float | None, own: float, tried: list[float], say: Messages) -> Cell:
    """What was chosen of one setting, its default, and whether it is an end of those tried."""
    ends = {min(tried), max(tried)}
    at_end = now in ends and len(ends) == 2
    own_value = say("tuning.default", value=own)
    detail = say("tuning.at-end", default=own_value) if at_end else own_value
    return Cell(say("none") if now is None else f"{now:.4g}", detail)


def _lowest(tuned: Tuned) -> float | None:
    return min((loss for _, loss in tuned.trials if loss is not None), default=None)


def _best_of(analysis: Analysis, arms: Mapping[str, Tuned], say: Messages) -> Picture:
    """The expected loss after k trials."""
    confidence = analysis.plan.decision.confidence
    rows = []
    for name, tuned in arms.items():
        for at in tuned.best:
            found = at.low_high(confidence)
            spread = f"{found[0]:.4f} \u2013 {found[1]:.4f}" if found and at.k > 1 else ""
            cells = Cell(str(at.k)), Cell(loss(at.loss, say), spread)
            rows.append((Cell(name, arm=name), *cells))
    shown = say.listed(
        say("figure.best-of.arm", arm=name, first=tuned.best[0].loss, last=tuned.whole.loss)
        for name, tuned in arms.items()
        if tuned.best[0].loss is not None and tuned.whole.loss is not None
    )
    in_turn = analysis.plan.tuning.sampler == "tpe"
    caption = say("figure.best-of.caption", confidence=confidence)
    return Picture(
        "best-of",
        say("figure.best-of.text", arms=shown),
        say.prose(caption, say("figure.best-of.in-turn")) if in_turn else caption,
        Table(
            say("figure.best-of.data"), say.each("arm", "tuning.trials", "final-loss"), tuple(rows)
        ),
        svg_element("best-of", lambda ax: _draw_best_of(ax, analysis, say)),
    )


def _draw_best_of(ax: Axes, analysis: Analysis, say: Messages) -> None:
    for arm in pictured(analysis):
        found = [at for at in arm.tuned.best if at.loss is not None] if arm.tuned else []
        if not found:
            continue
        tint, ks = colour(analysis, arm), [at.k for at in found]
        losses = [at.loss for at in found if at.loss is not None]
        ax.plot(ks, losses, MARKERS[arm.role] + "-", color=tint, ms=5, lw=1.4, label=arm.name)
        spans = [at.low_high(analysis.plan.decision.confidence) for at in found]
        bands = [span or (y, y) for span, y in zip(spans, losses, strict=True)]
        low, high = zip(*bands, strict=True)
        ax.fill_between(ks, low, high, color=tint, alpha=0.15, lw=0)
    _trials_axis(ax, analysis, say)
    ax.set_ylabel(say("figure.y"))
    legend(ax)


def _trials_axis(ax: Axes, analysis: Analysis, say: Messages) -> None:
    ks = sorted({at.k for arm in analysis.arms if arm.tuned for at in arm.tuned.best})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel(say("figure.best-of.x"))


def _budgets(analysis: Analysis, say: Messages) -> Picture:
    """The verdict by the number of trials."""
    candidate, baseline = analysis.candidate.name, analysis.baseline.name
    values = dict(candidate=candidate, baseline=baseline)
    return Picture(
        "budgets",
        say("figure.budgets.text", **values),
        say("figure.budgets.caption", **values, confidence=analysis.plan.decision.confidence),
        Table(
            say("figure.budgets.data", **values),
            say.each("tuning.trials", "tokens-saved", "verdict-label"),
            tuple(_budget_row(at, say) for at in analysis.budgets),
        ),
        svg_element("budgets", lambda ax: _draw_budgets(ax, analysis, say), height=2.8),
    )


def _budget_row(at: TuningBudget, say: Messages) -> tuple[Cell, ...]:
    if at.log_ratio is None or at.decision is None:
        return Cell(str(at.trials)), Cell(say("none")), Cell(say("none"))
    share = at.log_ratio.map(saved)
    spread = ends(share, say) if share.low < share.high else ""
    value = Cell(bounded(set(at.bounds)) + say.percent(share.mean), spread)
    return Cell(str(at.trials)), value, Cell(say(f"title.{at.decision}"))


def _draw_budgets(ax: Axes, analysis: Analysis, say: Messages) -> None:
    """Tokens saved over the trials, with intervals; hollow where a reading is a bound."""
    tint = ARMS["candidate"]
    for at in analysis.budgets:
        if at.log_ratio is None:
            continue
        share = at.log_ratio.map(saved)
        if math.isfinite(share.low):
            ax.plot(
                [at.trials] * 2, [100 * share.low, 100 * share.high], color=tint, lw=7, alpha=0.3
            )
        ax.plot(at.trials, 100 * share.mean, "o", ms=6, mec=tint, mfc="none" if at.bounds else tint)
    ax.axhline(0, color=AXIS, lw=1)
    min_saving = 100 * analysis.plan.decision.min_saving
    ax.axhline(min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
    _trials_axis(ax, analysis, say)
    ax.set_ylabel(say("figure.sizes.y"))


def _importances(analysis: Analysis, arms: Mapping[str, Tuned], say: Messages) -> Block:
    """The picture; without Optuna or enough trials, a sentence that says so."""
    found = {name: shares for name, tuned in arms.items() if (shares := importances(tuned))}
    if not found:
        return Text(say("tuning.no-importances"))
    over = analysis.plan.tuning.over
    rows = tuple(
        (Cell(name, arm=name), *(Cell(say.percent(shares[what])) for what in over))
        for name, shares in found.items()
    )
    most = say.listed(
        say("figure.importances.most", arm=name, name=max(over, key=lambda what: shares[what]))
        for name, shares in found.items()
    )
    drawn = [arm for arm in pictured(analysis) if arm.name in found]
    return Picture(
        "importances",
        say("figure.importances.text", most=most),
        say("figure.importances.caption"),
        Table(say("figure.importances.data"), (say("arm"), *over), rows),
        svg_element(
            "importances",
            lambda ax: _draw_importances(ax, analysis, drawn, found, say),
            height=1.2 + 0.16 * len(drawn) * len(over),
        ),
    )


def _draw_importances(
    ax: Axes,
    analysis: Analysis,
    drawn: list[ArmResult],
    found: Mapping[str, Mapping[str, float]],
    say: Messages,
) -> None:
    over, width = analysis.plan.tuning.over, 0.8 / len(drawn)
    for i, arm in enumerate(drawn):
        places = [row + 0.4 - width * (i + 0.5) for row in range(len(over))]
        shares = [100 * found[arm.name][what] for what in reversed(over)]
        tint = colour(analysis, arm)
        ax.barh(places, shares, height=0.9 * width, color=tint, label=arm.name)
    ax.set_yticks(range(len(over)), list(reversed(over)))
    ax.set_xlim(0, 100)
    ax.set_xlabel(say("figure.importances.x"))
    ax.grid(axis="y", visible=False)
    legend(ax)
