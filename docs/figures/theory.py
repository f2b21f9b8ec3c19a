"""The pictures of docs/theory.md: python -m docs.figures.theory, from the repository's root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from docs.figures.noise_formulas import least_error, momentum_error
from mars_optim.experiment.report.figures.draw import legend, svg_element
from mars_optim.experiment.report.figures.svg import standalone
from mars_optim.experiment.report.figures.theme import AXIS, INK

FOLDER = Path(__file__).parent
GREY, BLUE, ORANGE, GREEN, BROWN, SKY = (
    "#4d4d4d",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#8c6d31",
    "#56b4e9",
)
BETA = 0.95


def noise(ax: Axes) -> None:
    """Gradients of many batches at one point, and the full gradient."""
    full, rng = np.array([1.0, 0.6]), np.random.default_rng(2)
    drawn = full + rng.normal(size=(48, 2)) @ np.diag([0.9, 0.7])
    for x, y in drawn:
        ax.plot([0, x], [0, y], color=SKY, lw=1, alpha=0.7)
    ax.plot([], [], color=SKY, label="gradient of one batch")
    arrow(ax, drawn[:8].mean(0), GREEN, "mean of 8 batches")
    arrow(ax, full, INK, "full gradient")
    ax.plot(0, 0, "o", color=INK, ms=5)
    ax.set_aspect("equal")
    ax.axis("off")
    legend(ax)


def arrow(ax: Axes, to: np.ndarray, tint: str, label: str) -> None:
    """From the origin."""
    ax.annotate("", to, (0, 0), arrowprops=dict(arrowstyle="-|>", color=tint, lw=2.5))
    ax.plot([], [], color=tint, lw=2.5, label=label)


def signal(steps: int = 160) -> np.ndarray:
    """A full gradient of one dimension that falls, then rises a little."""
    t = np.arange(steps)
    return 2.0 * np.exp(-t / 35) + 0.5 * np.sin(t / 25)


def batches(full: np.ndarray) -> np.ndarray:
    """A noisy gradient per step."""
    return full + 0.7 * np.random.default_rng(4).normal(size=len(full))


def momenta(full: np.ndarray, gamma: float, *, exact: bool) -> np.ndarray:
    """m_t of AdamW (gamma 0), MARS-approx or MARS-exact, whose noise is the same at both points."""
    g, gain = batches(full), gamma * BETA / (1 - BETA)
    m, out = full[0], []
    for t in range(len(full)):
        before = max(0, t - 1)
        moved = full[t] - full[before] if exact else g[t] - g[before]
        m = BETA * m + (1 - BETA) * (g[t] + gain * moved)
        out.append(m)
    return np.array(out)


def lag(ax: Axes) -> None:
    """A moving target, and averages that follow it."""
    full = signal()
    ax.plot(batches(full), ".", color=SKY, ms=3, label="batch gradient")
    ax.plot(full, color=INK, lw=2, label="full gradient")
    plain = momenta(full, 0.0, exact=False)
    ax.plot(plain, color=GREY, lw=1.4, ls="--", label="AdamW's momentum")
    ax.set_xlabel("step")
    ax.set_ylabel("gradient")
    legend(ax)


def followers(ax: Axes) -> None:
    """Errors of the corrections against the full gradient."""
    full = signal()
    ax.axhline(0, color=INK, lw=2)
    for label, tint, gamma, exact in (
        ("AdamW", GREY, 0.0, False),
        ("approx, gamma 0.1", ORANGE, 0.1, False),
        ("exact, gamma 1", GREEN, 1.0, True),
    ):
        error = momenta(full, gamma, exact=exact) - full
        ax.plot(error, color=tint, lw=1.4, ls="--" if gamma == 0 else "-", label=label)
    ax.set_xlabel("step")
    ax.set_ylabel("momentum less full gradient")
    legend(ax)


def weights(ax: Axes) -> None:
    """How much a gradient counts, by its age."""
    ages = np.arange(0, 30)
    plain = (1 - BETA) * BETA**ages
    for gamma, tint, shift in ((0.0, GREY, -0.22), (0.05, ORANGE, 0.22)):
        own = (1 - gamma) * plain + gamma * (ages == 0)
        label = "AdamW" if gamma == 0 else f"MARS-approx, gamma {gamma:g}"
        ax.bar(ages + shift, own, 0.44, color=tint, label=label)
    ax.set_xlabel("age of a gradient, steps")
    ax.set_ylabel("weight in the momentum")
    ax.grid(axis="x", visible=False)
    legend(ax)


def trade(lag_squared: float) -> Callable[[Axes], None]:
    """The error of the momentum over gamma, for a lag in units of the noise."""

    def draw(ax: Axes) -> None:
        gammas = np.linspace(0, 0.25, 200)
        whole, alone = (
            np.array([momentum_error(g, lag_squared=x, noise=1.0, beta=BETA) for g in gammas])
            for x in (lag_squared, 0.0)
        )
        ax.fill_between(gammas, 0, alone, color=SKY, alpha=0.75, lw=0, label="noise")
        ax.fill_between(gammas, alone, whole, color=BROWN, alpha=0.75, lw=0, label="lag")
        best = least_error(lag_squared=lag_squared, noise=1.0, beta=BETA)
        ax.axvline(best, color=INK, lw=1.5, ls=(0, (4, 3)), label=f"least at {best:.2g}")
        ax.axvline(0.025, color=AXIS, lw=1, label="0.025, as published")
        ax.set_ylim(0, 0.16)
        ax.set_xlim(0, 0.25)
        ax.set_xlabel("gamma")
        ax.set_ylabel("error / noise of a batch")
        legend(ax)

    return draw


FIGURES: dict[str, dict[str, Callable[[Axes], None]]] = {
    "noise": {"noise": noise},
    "lag": {"lag": lag, "followers": followers},
    "weights": {"weights": weights},
    "trade": {"little": trade(0.03), "much": trade(0.12)},
}


def main() -> None:
    """Write every figure beside this file."""
    for name, panels in FIGURES.items():
        drawn = [svg_element(f"{name}-{panel}", draw) for panel, draw in panels.items()]
        (FOLDER / f"{name}.svg").write_text(standalone("".join(drawn)), encoding="utf-8")


if __name__ == "__main__":
    main()
