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
from ...plan.decision import LOSS
from .. import numbers
from ..document import Block, Cell, Picture, Section, Table, Text
from ..figures.draw import MARKERS, legend, svg_element
from ..figures.theme import ARMS, AXIS, MIN_SAVING, colour, pictured
from ..messages import Messages
from ..savings import bounded, closed_part, ends
from .arm_cells import loss


def section(analysis: Analysis, say: Messages) -> Section:
    """Empty where the rate alone is tuned, or nothing has been tried yet."""
    arms = {a.name: a.tuned for a in analysis.arms if a.tuned}
    if not arms:
        return Section("tuning", "", ())
    plan = analysis.plan.tuning
    values = dict(trials=plan.trials, names=", ".join(plan.over), others=plan.trials - 1)
    chosen = say(f"tuning.chosen.{_of(analysis)}")
    blocks: list[Block] = [Text(say(f"tuning.how.{plan.sampler}", chosen=chosen, **values))]
    blocks += [_settings(analysis, arms, say), _best_of(analysis, arms, say)]
    if analysis.budgets:
        blocks.append(_budgets(analysis, say))
    blocks.append(_importances(analysis, arms, say))
    return Section("tuning", say("section.tuning"), tuple(blocks))


def _of(analysis: Analysis) -> str:
    """The end of the codes of texts on what decides: the loss, a metric or the time to a target."""
    rule = analysis.plan.decision
    if rule.target is not None:
        return "target"
    return "loss" if rule.metric == LOSS else "metric"


def _shown(tuned: Tuned, value: float | None, say: Messages) -> str:
    """Score of a trial as shown: the loss, the metric, or tokens instead of their log."""
    if tuned.reached is None or value is None:
        return loss(value, say)
    return numbers.count(math.exp(value))


def _trial(tuned: Tuned, index: int | None, say: Messages) -> str:
    """Score of one trial."""
    if index is None:
        return loss(None, say)
    if tuned.reached is None:
        return loss(tuned.trials[index][1], say)
    if tuned.found[index] is not None and not tuned.reached[index]:
        return say("tuning.missed")
    return _shown(tuned, tuned.found[index], say)


def _settings(analysis: Analysis, arms: Mapping[str, Tuned], say: Messages) -> Table:
    """Chosen settings, beside each default."""
    over, of = analysis.plan.tuning.over, _of(analysis)

    def row(name: str, tuned: Tuned) -> tuple[Cell, ...]:
        defaults, _ = tuned.trials[0]
        chosen = tuned.chosen or (None,) * len(over)
        return (
            Cell(name, arm=name),
            *(
                _setting(now, own, [values[i] for values, _ in tuned.trials], say)
                for i, (now, own) in enumerate(zip(chosen, defaults, strict=True))
            ),
            Cell(_trial(tuned, 0, say)),
            Cell(_trial(tuned, tuned.lowest, say), _reached(tuned, say)),
        )

    return Table(
        say(f"tuning.settings.{of}"),
        (say("arm"), *over, *say.each(f"tuning.default-loss.{of}", f"tuning.lowest-loss.{of}")),
        tuple(row(name, tuned) for name, tuned in arms.items()),
    )


def _setting(now: float | None, own: float, tried: list[float], say: Messages) -> Cell:
    """Chosen value of one setting, its default, and whether it is an end of those tried."""
    ends = {min(tried), max(tried)}
    at_end = now in ends and len(ends) == 2
    own_value = say("tuning.default", value=own)
    detail = say("tuning.at-end", default=own_value) if at_end else own_value
    return Cell(say("none") if now is None else f"{now:.4g}", detail)


def _reached(tuned: Tuned, say: Messages) -> str:
    if tuned.reached is None:
        return ""
    return say("tuning.reached", reached=sum(tuned.reached), trials=len(tuned.trials))


def _best_of(analysis: Analysis, arms: Mapping[str, Tuned], say: Messages) -> Picture:
    """The expected loss after k trials."""
    confidence, of = analysis.plan.decision.confidence, _of(analysis)
    rows = []
    for name, tuned in arms.items():
        for at in tuned.best:
            found = at.low_high(confidence)
            ends = [_shown(tuned, end, say) for end in found or ()]
            spread = " \u2013 ".join(ends) if at.k > 1 else ""
            cells = Cell(str(at.k)), Cell(_shown(tuned, at.loss, say), spread)
            rows.append((Cell(name, arm=name), *cells))
    shown = say.listed(
        say(
            "figure.best-of.arm",
            arm=name,
            first=_shown(tuned, tuned.best[0].loss, say),
            last=_shown(tuned, tuned.whole.loss, say),
        )
        for name, tuned in arms.items()
        if tuned.best[0].loss is not None and tuned.whole.loss is not None
    )
    in_turn = analysis.plan.tuning.sampler == "tpe"
    caption = say(f"figure.best-of.caption.{of}", confidence=confidence)
    return Picture(
        "best-of",
        say(f"figure.best-of.text.{of}", arms=shown),
        say.prose(caption, say("figure.best-of.in-turn")) if in_turn else caption,
        Table(
            say(f"figure.best-of.data.{of}"),
            say.each(
                "arm",
                "tuning.trials",
                "figure.best-of.y.target" if of == "target" else "final-loss",
            ),
            tuple(rows),
        ),
        svg_element("best-of", lambda ax: _draw_best_of(ax, analysis, say)),
    )


def _draw_best_of(ax: Axes, analysis: Analysis, say: Messages) -> None:
    of = _of(analysis)
    for arm in pictured(analysis):
        found = [at for at in arm.tuned.best if at.loss is not None] if arm.tuned else []
        if not found:
            continue
        tint, ks = colour(analysis, arm), [at.k for at in found]
        scale = math.exp if of == "target" else float
        losses = [scale(at.loss) for at in found if at.loss is not None]
        ax.plot(ks, losses, MARKERS[arm.role] + "-", color=tint, ms=5, lw=1.4, label=arm.name)
        spans = [at.low_high(analysis.plan.decision.confidence) for at in found]
        known = [span and (scale(span[0]), scale(span[1])) for span in spans]
        bands = [span or (y, y) for span, y in zip(known, losses, strict=True)]
        low, high = zip(*bands, strict=True)
        ax.fill_between(ks, low, high, color=tint, alpha=0.15, lw=0)
    _trials_axis(ax, analysis, say)
    ax.set_ylabel(say("figure.best-of.y.target" if of == "target" else "figure.y"))
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
    values, rule = dict(candidate=candidate, baseline=baseline), analysis.plan.decision
    read = "ladder" if rule.target is None else "target"
    return Picture(
        "budgets",
        say("figure.budgets.text", **values),
        say(f"figure.budgets.caption.{read}", **values, confidence=rule.confidence),
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
    spread = ends(share, say, at.bounds) if share.low < share.high else ""
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
            x = [at.trials] * 2
            ax.plot(x, closed_part(share, at.bounds), color=tint, lw=7, alpha=0.3)
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
