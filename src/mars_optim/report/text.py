"""Numbers as a reader wants them."""

from __future__ import annotations

import math

from ..analysis import Analysis, ArmResult, Interval
from ..analysis.verdict import MINUS, percent, saved


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign: "+0.0123", "\u22120.0456"."""
    if not math.isfinite(value):
        return "unknown"
    return f"{'+' if value >= 0 else MINUS}{abs(value):.{digits}f}"


def interval(value: Interval, digits: int = 4) -> str:
    """``mean (low to high)``, signed."""
    if not math.isfinite(value.low):
        return signed(value.mean, digits)
    ends = f"{signed(value.low, digits)} to {signed(value.high, digits)}"
    return f"{signed(value.mean, digits)} ({ends})"


def saving(arm: ArmResult) -> str:
    """Tokens saved with the interval, as far as it is known."""
    if arm.log_ratio is None:
        return "\u2014"
    share = arm.log_ratio.map(saved)
    prefix = {"at least": "\u2265 ", "at most": "\u2264 "}.get("/".join(arm.bounds), "")
    if not math.isfinite(arm.log_ratio.low):
        return prefix + percent(share.mean)
    return f"{prefix}{percent(share.mean)} ({percent(share.low)} to {percent(share.high)})"


def ratio(value: tuple[float, float, float] | None) -> str:
    """Median (quartiles)."""
    if value is None:
        return "not measured"
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def loss(value: float | None) -> str:
    """A loss, or that there is none."""
    return "diverged" if value is None else f"{value:.4f}"


def count(n: float) -> str:
    """1234567 -> "1.23 M"."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:g}"


def duration(seconds: float) -> str:
    """Seconds as "41 s", "7.2 min" or "3.1 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def trained(analysis: Analysis) -> str:
    """What was trained, and on what."""
    task = analysis.plan.task
    what = {
        "gpt": "a GPT",
        "python": task.source,
        "command": f"the command \u201c{task.command}\u201d",
        "imported": f"read from {task.runs}",
    }[task.kind]
    parts = [what]
    if analysis.parameters:
        parts.append(f"with {count(analysis.parameters)} parameters")
    if task.kind == "gpt":
        text = task.corpus
        parts.append(
            "on the Python standard library's sources" if text == "stdlib" else f"on {text}"
        )
    return " ".join(parts)


def money(amount: float, currency: str) -> str:
    """An amount: two decimals when small, whole and grouped when large."""
    digits = 2 if abs(amount) < 100 else 0
    sign = MINUS if amount < 0 and round(abs(amount), digits) > 0 else ""
    return f"{sign}{abs(amount):,.{digits}f} {currency}"


def hours_saved(analysis: Analysis) -> Interval | None:
    """Share of hours saved: tokens saved, with the measured step time on top."""
    return analysis.money.share if analysis.money else None


def control_note(analysis: Analysis) -> str:
    """What the control arm says about the effect's cause."""
    control, candidate = analysis.control, analysis.candidate
    if control is None:
        return ""
    parts = [
        f"{control.name} is AdamW with Nesterov momentum: it has the lag-reducing half of MARS, "
        "without its clip and its second moment."
    ]
    if analysis.control_share is not None:
        parts.append(
            f"It alone brings {percent(analysis.control_share)} of {candidate.name}'s effect "
            "(in the logarithm of tokens)."
        )
    elif candidate.log_ratio is not None:
        parts.append(
            f"{candidate.name} shows no sure saving, so there is none to share; {control.name} by "
            f"itself saves {saving(control)}."
        )
    difference = analysis.against_control
    if difference is not None:
        better = "lower" if difference.mean < 0 else "higher"
        sure = difference.low > 0 or difference.high < 0
        parts.append(
            f"Seed by seed, {candidate.name}'s final loss is {abs(difference.mean):.4f} {better} "
            f"than {control.name}'s "
            + (
                f"(interval {signed(difference.low)} to {signed(difference.high)})."
                if math.isfinite(difference.low)
                else "(one pair)."
            )
            + ("" if sure else " The interval holds zero.")
        )
    return " ".join(parts)


def cost_rows(analysis: Analysis) -> list[tuple[str, str]]:
    """Hours and, at a price, money: label and value."""
    plan, hours = analysis.plan, hours_saved(analysis)
    rows = [("Training time of all runs of this pilot", duration(analysis.totals.seconds))]
    price, currency = plan.cost.price_per_hour, plan.cost.currency
    if price:
        spent = price * analysis.totals.seconds / 3600
        rows.append(("Cost of this pilot's training", money(spent, currency)))
    if hours is None or not math.isfinite(hours.low):
        return rows
    planned = plan.cost.planned_hours
    rows.append(
        (
            f"Hours saved of {planned:,.0f} planned",
            f"{_hours(planned * hours.mean)} ({_hours(planned * hours.low)} to "
            f"{_hours(planned * hours.high)})",
        )
    )
    if price:
        total = planned * price
        ends = f"{money(total * hours.low, currency)} to {money(total * hours.high, currency)}"
        saving_text = f"{money(total * hours.mean, currency)} ({ends})"
        rows.append((f"Money saved of {money(total, currency)} planned", saving_text))
    return rows


def _hours(value: float) -> str:
    sign = MINUS if round(value) < 0 else ""
    return f"{sign}{abs(value):,.0f}"
