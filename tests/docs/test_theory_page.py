"""The theory page shows what its script draws, and its table is what the formulas give."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from docs.figures.noise_formulas import average_variance, correction_variance
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "theory.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("theory_figures", DOCS / "figures" / "theory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_there_and_drawn_by_the_script(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = set(re.findall(r"\(figures/(\w+)\.svg\)", PAGE))
    assert shown == {*script.FIGURES, "measured", "gamma"}
    assert all((DOCS / "figures" / f"{name}.svg").is_file() for name in shown)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    assert {p.stem for p in tmp_path.glob("*.svg")} == set(script.FIGURES)


def row(label: str) -> list[float]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {label}")]
    return [float(cell) for cell in line.strip(" |").split("|")[1:]]


def test_the_table_is_what_the_formulas_give():
    gammas = row("beta 0.95, gamma")
    assert row("lag left") == [round(1 - g, 3) for g in gammas]
    assert row("Var c / N") == pytest.approx(
        [correction_variance(0.95, g) for g in gammas], abs=0.006
    )
    plain = average_variance(0.95)
    assert row("Var m / Var EMA") == pytest.approx(
        [average_variance(0.95, g) / plain for g in gammas], abs=6e-4
    )
