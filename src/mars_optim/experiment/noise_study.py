"""A short stretch of training under each arm, stopped now and then to measure the noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..gradient_noise import Estimate, Trail, momentum_errors, noise_scale
from ..optim import param_groups
from ..optim.tools.state_dict import read_file
from .plan import Arm, Plan
from .tasks import Task
from .training import alone, autocast_of, build_optimizer, scheduled, seed_all, wants_closure

FRESH = 10**9  # batches at steps from here on are never trained on
FORGOTTEN = 0.05  # weight in the momentum of all batches older than those drawn anew

OnGradients = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class NoiseStudy:
    """Settings of a noise study.

    Args:
        steps: of each arm's stretch, with the plan's warm-up and decay.
        points: stops for measurement, evenly spread.
        batches: drawn at each for the noise scale.
        replicates: histories of batches drawn at each for the momentum.
        seed: of initialisation, batches and draws.
        checkpoint: model weights to start from, None for a fresh model.
        confidence: of the intervals.
    """

    steps: int = 300
    points: int = 3
    batches: int = 64
    replicates: int = 8
    seed: int = 1
    checkpoint: Path | None = None
    confidence: float = 0.95

    def stops(self) -> list[int]:
        """The steps before which the noise is measured."""
        return [round(self.steps * (i + 0.5) / self.points) for i in range(self.points)]

    def window(self, arm: Arm, stop: int) -> int:
        """Steps before ``stop`` whose batches are drawn anew."""
        beta1 = max(arm.betas[0], 0.5)
        return min(stop, math.ceil(math.log(FORGOTTEN) / math.log(beta1)))

    def gradients(self, plan: Plan) -> int:
        """How many gradients the whole study takes."""
        candidate = plan.arm[plan.comparison.candidate]
        at_stops = sum(
            self.batches + self.replicates * (2 * self.window(candidate, stop) + 1)
            for stop in self.stops()
        )
        return 2 * (self.stops()[-1] + at_stops)


def study_noise(
    plan: Plan,
    task: Task,
    study: NoiseStudy,
    on_gradients: OnGradients = lambda count: None,
) -> dict[str, Any]:
    """Measure the noise under the plan's baseline and its candidate.

    On both paths the candidate's estimators are measured (its betas, gamma and clip), before the
    plan's clip of the whole gradient, in the plan's precision.

    Args:
        plan: for the arms, the schedule, the accumulation and the gradient clip.
        task: that is trained.
        study: what to measure.
        on_gradients: told the number of gradients taken, now and then.

    Returns:
        Plain data: ``batch_tokens``, the candidate's settings, and each arm's ``points``.

    Raises:
        UserError: for a candidate without a correction, or a checkpoint that does not fit.
    """
    candidate = plan.arm[plan.comparison.candidate]
    if candidate.optimizer != "mars" or candidate.gamma == 0:
        raise UserError(
            f"comparison.candidate = {plan.comparison.candidate!r} has no correction to measure: "
            "give an arm with optimizer = 'mars' and gamma above 0"
        )
    baseline = plan.comparison.baseline
    if wants_closure(plan.arm[baseline]):
        raise UserError(
            f"arm.{baseline}.optimizer = {plan.arm[baseline].optimizer!r} computes its "
            "gradients itself, and this study cannot follow them: give another "
            "comparison.baseline"
        )
    arms = [
        _Stretch(plan, plan.arm[name], task, study).measure(name, on_gradients)
        for name in (plan.comparison.baseline, plan.comparison.candidate)
    ]
    return {
        "batch_tokens": task.batch_tokens * plan.training.accumulation,
        "beta1": candidate.betas[0],
        "gamma": candidate.gamma,
        "clip": candidate.clip,
        "grad_clip": plan.training.grad_clip or None,
        "confidence": study.confidence,
        "arms": arms,
    }


class _Stretch:
    """One arm's training."""

    def __init__(self, plan: Plan, arm: Arm, task: Task, study: NoiseStudy) -> None:
        self.plan, self.task, self.study = plan, task, study
        self.arm, self.candidate = arm, plan.arm[plan.comparison.candidate]
        self.ranks, self.fresh = alone(), FRESH
        seed_all(study.seed)
        self.model = task.build_model(study.seed).to(self.ranks.device)
        if study.checkpoint:
            load_weights(self.model, study.checkpoint)
        convention = plan.training.convention
        self.optimizer = build_optimizer(self.model, arm, lr=arm.lr, convention=convention)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.groups = param_groups(
            self.model,
            rule=self.candidate.rule,
            betas=self.candidate.betas,
            gamma=self.candidate.gamma,
            clip=self.candidate.clip,
        )

    def measure(self, name: str, on_gradients: OnGradients) -> dict[str, Any]:
        """Train, and measure at the stops."""
        study, params = self.study, [p for p in self.model.parameters() if p.requires_grad]
        longest = max(study.window(self.candidate, stop) for stop in study.stops())
        trail, points = Trail(params, longest + 1), []
        limit, acted = self.plan.training.grad_clip or math.inf, 0
        for step in range(study.stops()[-1] + 1):
            trail.record()
            if step in study.stops():
                try:
                    points.append(self._point(step, trail, on_gradients))
                except ValueError as error:
                    raise UserError(f"{name}, before step {step + 1}: {error}") from None
            self._set_lr(step)
            loss = self._loss(self.model, self._batch(step))
            if not math.isfinite(loss.item()):
                raise UserError(f"{name} diverged at step {step + 1}: lower its lr")
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            acted += bool(torch.nn.utils.clip_grad_norm_(params, limit) > limit)
            self.optimizer.step()
            on_gradients(1)
        return {"name": name, "lr": self.arm.lr, "clipped": acted / (step + 1), "points": points}

    def _point(self, step: int, trail: Trail, on_gradients: OnGradients) -> dict[str, Any]:
        study = self.study
        scales = noise_scale(
            self.model,
            self._loss,
            self._fresh_batches(on_gradients),
            self.groups,
            confidence=study.confidence,
        )
        window = study.window(self.candidate, step)
        recent = Trail(trail.params, window + 1)
        recent.points.extend(trail.points)
        first = self.fresh
        self.fresh += study.replicates * (window + 1)
        momenta = momentum_errors(
            self.model,
            self._loss,
            lambda i: self._batch(first + i),
            self.groups,
            recent,
            from_start=window == step,
            replicates=study.replicates,
            confidence=study.confidence,
            on_gradients=on_gradients,
        )
        return {
            "step": step,
            "tokens": step * self.task.batch_tokens * self.plan.training.accumulation,
            "noise": [_plain(scale) for scale in scales],
            "momentum": [_plain(momentum) for momentum in momenta],
        }

    def _fresh_batches(self, on_gradients: OnGradients) -> Iterator[Any]:
        for _ in range(self.study.batches):
            yield self._batch(self.fresh)
            self.fresh += 1
            on_gradients(1)

    def _batch(self, step: int) -> list[Any]:
        """One step's micro-batches."""
        micros = range(self.plan.training.accumulation)
        batches = [self.task.batch(self.study.seed, step, micro) for micro in micros]
        moved: list[Any] = self.ranks.place(batches)
        return moved

    def _loss(self, model: nn.Module, batches: list[Any]) -> Tensor:
        with autocast_of(self.plan.training, self.ranks.device):
            losses = [self.task.loss(model, batch) for batch in batches]
        return torch.stack(losses).mean()

    def _set_lr(self, step: int) -> None:
        factor = 1.0
        if not self.arm.own_schedule:
            factor = scheduled(self.plan.training, step, self.study.steps, peak=self.arm.lr)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict written by torch.save: bare, or under "model".

    Raises:
        UserError: if there is none that fits the model.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        found = read_file(path)
        model.load_state_dict(found.get("model", found))
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{path} holds no weights of this model ({type(error).__name__}: {why}): save them by "
            "torch.save(model.state_dict(), path)"
        ) from None


def _plain(value: Any) -> Any:
    """Dataclasses of estimates as JSON data."""
    if isinstance(value, Estimate):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value
