"""The gamma that the next gradient and the least error ask for, and the one that trains best.

python -m docs.figures.gamma, from the repository's root, two minutes on one core: the pilot's
built-in task at constant gammas; draws gamma.svg and prints the table of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.plan import ARMS, ExecutionOptions, Plan
from mars_optim.experiment.report.figures.draw import legend, svg_element
from mars_optim.experiment.report.figures.svg import standalone
from mars_optim.experiment.report.figures.theme import AXIS
from mars_optim.experiment.training import Gradients, alone, build_optimizer, parallelize
from mars_optim.experiment.training.schedule import lr_factor
from mars_optim.optim.gamma.criteria import (
    LeastError,
    NextGradient,
    Shares,
    best_gamma,
    newest_weight,
)

GAMMAS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
LR, SEED, PARTS = 0.008, 1, 4  # AdamW's best rate here; quarters of the run
TINTS = ("#56b4e9", "#0072b2", "#8c6d31", "#d55e00")
FRACTION = 0.25  # power of v that makes a product Adam's: (v^-1/4 x) (v^-1/4 y)


@dataclass(frozen=True)
class Watched:
    """A run at a constant gamma: h and the gammas of the least error, by quarters; its loss."""

    gamma: float
    h: list[float]
    least_error: list[float]
    in_adams_metric: list[float]
    loss: float


class Watcher:
    """Adds up what both criteria look at, over all elements of all matrices."""

    def __init__(self, params: list[Tensor], betas: tuple[float, float]) -> None:
        self.params, self.betas, self.steps = params, betas, 0
        self.kept: list[Tensor] = []
        self.begin_part()

    def begin_part(self) -> None:
        """Forget the sums of the part before."""
        self.h, self.steps_of_part = 0.0, 0
        self.plain = torch.zeros(5, dtype=torch.float64)
        self.scaled = torch.zeros(5, dtype=torch.float64)

    def look(self) -> None:
        """Before a step, with its gradients."""
        self.steps += 1
        g = torch.cat([p.grad.reshape(-1) for p in self.params if p.grad is not None]).double()
        weights = [newest_weight(beta, self.steps) for beta in self.betas]
        shares = Shares(*torch.tensor(weights, dtype=torch.float64))
        if not self.kept:  # the first gradient tells nothing yet
            begin = [torch.tensor(c.BEGIN).double()[:, None] for c in (NextGradient, LeastError)]
            first = zip((NextGradient(), LeastError()), begin, strict=True)
            self.kept = [c.look(g, b.repeat(1, len(g)), shares)[1] for c, b in first]
            return
        square, (last, average, begun) = self.kept[0][2], self.kept[1]
        (told, size), rows = NextGradient().look(g, self.kept[0], shares)
        scale = torch.where(square > 0, square**-FRACTION, 0.0)
        in_adams = torch.stack([scale * last, scale * average, begun])
        self.scaled += torch.stack(LeastError().look(scale * g, in_adams, shares)[0])
        sums, kept = LeastError().look(g, self.kept[1], shares)
        self.kept = [rows, kept]
        self.plain += torch.stack(sums)
        self.h += float(told / size) if size > 0 else 0.0
        self.steps_of_part += 1

    def end_part(self) -> tuple[float, float, float]:
        """Mean h, and the gamma of the least error, plain and in Adam's metric."""
        beta = self.betas[0]
        sums = (self.plain / self.steps_of_part, self.scaled / self.steps_of_part)
        plain, scaled = (best_gamma(*s.tolist(), beta=beta) for s in sums)
        h = self.h / self.steps_of_part
        self.begin_part()
        return h, plain, scaled


def watch(plan: Plan, task: Any, gamma: float) -> Watched:
    """Train once, and look on."""
    training, arm = plan.training, replace(ARMS["nadamw"], gamma=gamma)
    model = parallelize(task.build_model(seed=SEED), alone(), ExecutionOptions())
    optimizer = build_optimizer(model.bare, arm, lr=LR)
    gradients = Gradients(task, model, optimizer, training, alone(), seed=SEED)
    matrices = [p for p in model.bare.parameters() if p.ndim >= 2]
    watcher, parts = Watcher(matrices, arm.betas), []
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * lr_factor(step, training.steps, warmup=training.warmup)
        gradients.make(step)
        watcher.look()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % (training.steps // PARTS) == 0:
            parts.append(watcher.end_part())
    h, plain, scaled = (list(column) for column in zip(*parts, strict=True))
    return Watched(gamma, h, plain, scaled, float(task.evaluate(model.bare, 1 << 16)))


def verdicts(found: list[Watched]) -> Callable[[Axes], None]:
    """h over gamma, a line for each quarter of the run."""

    def draw(ax: Axes) -> None:
        for part in range(PARTS):
            ys, label = [w.h[part] for w in found], f"quarter {part + 1} of the run"
            ax.plot(range(len(ys)), ys, "o-", ms=4, color=TINTS[part], label=label)
        ax.axhline(0, color=AXIS, lw=1)
        name_gammas(ax)
        ax.set_ylabel("h: more (above 0) or less")
        legend(ax)

    return draw


def losses(found: list[Watched]) -> Callable[[Axes], None]:
    """The final loss over gamma."""

    def draw(ax: Axes) -> None:
        ax.plot(range(len(found)), [w.loss for w in found], "o-", ms=4, color="#4d4d4d")
        name_gammas(ax)
        ax.set_ylabel("final validation loss")

    return draw


def name_gammas(ax: Axes) -> None:
    """Evenly spaced, for they are about as many times as large each."""
    ax.set_xticks(range(len(GAMMAS)), [f"{g:g}" for g in GAMMAS])
    ax.set_xlabel("gamma of the run")


def table(found: list[Watched]) -> str:
    """Markdown: a row for each gamma, quarters separated by slashes."""
    head = ["gamma", "mean h", "least error's gamma", "in Adam's metric", "final loss"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for w in found:
        cells = [f"{w.gamma:g}", " / ".join(f"{x:+.2f}" for x in w.h)]
        cells += [" / ".join(f"{x:.3f}" for x in xs) for xs in (w.least_error, w.in_adams_metric)]
        lines.append("| " + " | ".join([*cells, f"{w.loss:.3f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, draw, print."""
    torch.set_num_threads(1)
    plan = Plan()
    task = load_task(plan)
    found = [watch(plan, task, gamma) for gamma in GAMMAS]
    panels = {"h": verdicts(found), "loss": losses(found)}
    drawn = [svg_element(f"gamma-{name}", draw) for name, draw in panels.items()]
    Path(__file__).with_name("gamma.svg").write_text(standalone("".join(drawn)), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
