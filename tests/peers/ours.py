"""The list of our optimizers that peers' test suites are run on, and what is known to differ."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Container
from typing import Any

import pytest
import torch

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo

# Decay is 0 unless it is the point: torch's suite reads here what a zero gradient does. Rates are
# other than torch's hooks set (0.003, our default, is one of theirs).
BASE: dict[str, Any] = dict(lr=0.004, weight_decay=0.0)
OURS: dict[str, tuple[type[MARS], dict[str, Any]]] = {
    "mars": (MARS, BASE),
    "marsadamw": (MARSAdamW, BASE),
    "marsadamw_decay": (MARSAdamW, dict(lr=0.001, weight_decay=0.1)),
    "marsadamw_plain": (MARSAdamW, dict(BASE, gamma=0.0, clip=None)),
    "marsadamw_folded": (MARSAdamW, dict(BASE, correction="folded")),
    "marsadamw_auto": (MARSAdamW, dict(BASE, gamma="auto")),
    "marsadamw_amsgrad": (MARSAdamW, dict(BASE, amsgrad=True)),
    "marsadamw_maximize": (MARSAdamW, dict(BASE, maximize=True)),
    "marsadamw_cautious": (MARSAdamW, dict(BASE, cautious=True)),
    "marsadamw_clipall": (MARSAdamW, dict(BASE, clip_over="global")),
    "marsadamw_1d": (MARSAdamW, dict(BASE, optimize_1d=True)),
    "marsadamw_tensorlr": (MARSAdamW, dict(BASE, lr=torch.tensor(0.004))),
    "marslion": (MARSLion, BASE),
    "marslion_folded": (MARSLion, dict(BASE, correction="folded")),
    "marsshampoo": (MARSShampoo, BASE),
    "marsm": (MARSM, BASE),
    "marsm_plain": (MARSM, dict(BASE, gamma=0.0, clip=None)),
    "marsm_folded": (MARSM, dict(BASE, correction="folded")),
}

SAVED = "to save time: the five classes stand for it"
Known = dict[str, str]  # a pattern of test names, and why


def first(name: str, patterns: Known) -> str:
    """Why ``name`` is in ``patterns``, by the first that fits; "" if it is not."""
    return next((why for key, why in patterns.items() if fnmatch.fnmatch(name, key)), "")


def names_one(item: Any, names: Container[str]) -> bool:
    """Whether a parameter of a test, or the first of a tuple, is one of ``names``."""
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    heads = [v[0] if isinstance(v, tuple) and v else v for v in values]
    return any(isinstance(head, str) and head in names for head in heads)


class Table:
    """Keeps what is ours, marks what is known to fail, and prints the table at the end."""

    def __init__(self, suite: str, ours: Callable[[Any], bool], *, fails: Known, left: Known):
        self.suite, self.ours, self.fails, self.left = suite, ours, fails, left
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.passed = 0

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        kept, dropped = [], []
        for item in items:
            why = first(item.name, self.left) if self.ours(item) else None
            if why:
                self.reasons["left out", why] += 1
            (kept if self.ours(item) and not why else dropped).append(item)
        for item in kept:
            if why := first(item.name, self.fails):
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        if hasattr(report, "wasxfail"):
            if report.skipped:
                self.reasons["fails as known", report.wasxfail.removeprefix("reason: ")] += 1
        elif report.skipped:
            self.reasons["skips itself", str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
        elif report.failed:
            self.reasons["FAILS", report.nodeid.rsplit("::", 1)[-1]] += 1
        elif report.when == "call":
            self.passed += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_line(f"| {self.suite} | passes | {self.passed} | |")
        for (what, why), count in sorted(self.reasons.items()):
            terminalreporter.write_line(f"| {self.suite} | {what} | {count} | {why} |")
