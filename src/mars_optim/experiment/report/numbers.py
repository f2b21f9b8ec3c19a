"""Numbers as a reader wants them, the same in every language but for the units' names."""

from __future__ import annotations

import math

MINUS = "\u2212"


def percent(share: float) -> str:
    """A share as text: "12 %", with one decimal below ten, and a real minus sign.

    A loss of more than ten times the whole is "< \u22121000 %": what is beyond tells nothing more.
    """
    if not math.isfinite(share):
        return "unknown"
    value = 100 * share
    if value < -1000:
        return f"< {MINUS}1000 %"
    text = f"{abs(value):.{0 if abs(value) >= 9.95 else 1}f}"
    sign = MINUS if value < 0 and float(text) != 0 else ""
    return f"{sign}{text} %"


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign: "+0.0123", "\u22120.0456"."""
    if not math.isfinite(value):
        return "unknown"
    return f"{'+' if value >= 0 else MINUS}{abs(value):.{digits}f}"


def count(n: float) -> str:
    """1234567 -> "1.23 M"."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:g}"


def whole(value: float) -> str:
    """A whole number, grouped, with a real minus sign."""
    return f"{MINUS if round(value) < 0 else ''}{abs(value):,.0f}"


def money(amount: float, currency: str) -> str:
    """An amount: two decimals when small, whole and grouped when large."""
    digits = 2 if abs(amount) < 100 else 0
    sign = MINUS if amount < 0 and round(abs(amount), digits) > 0 else ""
    return f"{sign}{abs(amount):,.{digits}f} {currency}"


def duration(seconds: float) -> tuple[str, str]:
    """Seconds as a number and the code of its unit: ("7.2", "unit.minutes")."""
    if seconds < 100:
        return f"{seconds:.0f}", "unit.seconds"
    if seconds < 6000:
        return f"{seconds / 60:.1f}", "unit.minutes"
    return f"{seconds / 3600:.1f}", "unit.hours"
