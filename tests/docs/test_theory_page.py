"""The theory page shows what its script draws, and its table is what the formulas give."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

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
    assert row(r"$`\mathrm{Var} \, c / N") == pytest.approx(
        [correction_variance(0.95, g) for g in gammas], abs=0.006
    )
    plain = average_variance(0.95)
    assert row(r"$`\mathrm{Var} \, m / ") == pytest.approx(
        [average_variance(0.95, g) / plain for g in gammas], abs=6e-4
    )


def test_greedy_alignment_counts_the_gradients_own_noise():
    """E <g_t, h_t> = |S|^2 / (1 - beta) + N, over many steps of a gradient that stands still."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12_000, 40, generator=generator, dtype=torch.float64)
    gradients = 0.5 + noise
    signal, variance = 0.25 * 40, 40.0
    for beta in (0.5, 0.9):
        h, products = torch.zeros(40, dtype=torch.float64), []
        for g in gradients:
            h = beta * h + g
            products.append(g @ h)
        mean = torch.stack(products)[1000:].mean().item()
        assert mean == pytest.approx(signal / (1 - beta) + variance, rel=0.05)
    # of 0.9 over 0.5 only above this share of signal
    short, long = ((1 - beta**2) ** 0.5 for beta in (0.5, 0.9))
    assert (short - long) / (10 * long - 2 * short) == pytest.approx(0.16, abs=0.005)


def test_adaptive_memory_without_lambda_is_a_ratio_of_two_sizes():
    generator = torch.Generator().manual_seed(0)
    g, d = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    published = (g @ d - (d - g) @ g) / (d - g).square().sum()
    assert published.item() == pytest.approx((g @ g / (g - d).square().sum()).item(), rel=1e-12)
