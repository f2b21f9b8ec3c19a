"""AdamW and MARS continued from one state, on the same batches, as recorded runs."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from ...optim.tools.migrate import migrate
from ..plan import Arm, RunSpec
from ..plan.task import TaskPlan
from ..plan.training import TrainingPlan
from ..records import Outcome, Run, RunWriter, read_run
from ..tasks import Task
from ..tasks.base import scores_of
from ..training import alone, seed_all, state_bytes
from .production_checkpoint import AdamWCheckpoint
from .settings import CanarySettings

HISTORY, ADAMW, MARS = "adamw-history", "adamw-continued", "mars-continued"


class Continuations:
    """Makes the runs of a canary, those that ``out`` does not hold yet.

    Args:
        task: model, batches and loss.
        checkpoint: to start from.
        settings: of the canary.
        out: folder; gets ``runs/``.
        plan: of the task, for the records.
        environment: for the records.

    Raises:
        UserError: if the checkpoint does not fit the task.
    """

    def __init__(
        self,
        task: Task,
        checkpoint: AdamWCheckpoint,
        settings: CanarySettings,
        out: Path,
        plan: TaskPlan,
        environment: dict[str, Any],
    ) -> None:
        self.task, self.settings, self.plan = task, settings, plan
        self.checkpoint, self.environment = checkpoint, environment
        self.runs = out / "runs"
        self.ranks = alone()
        self.at_switch: tuple[int, nn.Module, Optimizer] | None = None
        adamw = checkpoint.restore(task.build_model(0))
        self.lr = max(float(group["lr"]) for group in adamw.param_groups)
        self.group = adamw.param_groups[0]
        self.whole_ramp = ramp_steps(adamw)
        self.ramp = ramp_within(self.whole_ramp, settings)
        self.origin = [task.fingerprint, checkpoint.sha256, settings.history, settings.decay]

    def pair(self, seed: int, scales: dict[str, float]) -> dict[str, Run]:
        """The history and the continuations of one data order.

        Args:
            seed: the data order.
            scales: of the learning rate, by arm.
        """
        return {
            name: self.run(self.spec(name, seed, scale))
            for name, scale in ((HISTORY, 1.0), *scales.items())
        }

    def spec(self, name: str, seed: int, scale: float) -> RunSpec:
        """Spec of one run."""
        s, first = self.settings, self.group
        mars = name == MARS
        arm = Arm(
            optimizer="mars" if mars else "torch-adamw",
            lr=self.lr,
            betas=tuple(first["betas"]),
            weight_decay=first["weight_decay"],
            **(s.of_mars if mars else dict(gamma=0.0, clip=None)),
        )
        origin = self.origin if scale == 1.0 else [*self.origin, f"ramp {self.ramp}"]
        return RunSpec(
            purpose="canary",
            arm_name=name,
            arm=arm,
            lr=self.lr * scale,
            seed=seed,
            steps=s.history if name == HISTORY else s.steps,
            task=self.plan,
            training=TrainingPlan(
                steps=s.steps,
                warmup=0.0,
                accumulation=s.accumulation,
                grad_clip=s.grad_clip,
                eval_tokens=s.eval_tokens,
                evaluations=1,
            ),
            data=hashlib.sha256(json.dumps(origin).encode()).hexdigest(),
        )

    def run(self, spec: RunSpec) -> Run:
        """The run as recorded, made if it is not there."""
        folder = self.runs / spec.run_id
        if (folder / "manifest.json").exists() and (found := read_run(folder)).outcome:
            return found
        if spec.arm_name == HISTORY:
            return self._history(spec)
        model, adamw = self._copy_at_switch(spec.seed)
        optimizer = adamw
        if spec.arm_name == MARS:
            optimizer = migrate(adamw, **self.settings.of_mars)
        scale = spec.lr / self.lr
        return self._record(spec, model, optimizer, start=self.settings.history, scale=scale)

    def _history(self, spec: RunSpec) -> Run:
        seed_all(spec.seed)
        model = self.task.build_model(spec.seed).to(self.ranks.device)
        adamw = self.checkpoint.restore(model)
        run = self._record(spec, model, adamw, start=0, scale=1.0)
        self.at_switch = (spec.seed, model, adamw)
        return run

    def _copy_at_switch(self, seed: int) -> tuple[nn.Module, Optimizer]:
        """Model and AdamW after the history, made again where only its record is there."""
        if self.at_switch is None or self.at_switch[0] != seed:
            self._history(self.spec(HISTORY, seed, 1.0))
        assert self.at_switch is not None
        seed_all(seed)  # dropout is the same in both arms
        model, adamw = copy.deepcopy(self.at_switch[1:])
        return model, adamw

    def _record(
        self, spec: RunSpec, model: nn.Module, optimizer: Optimizer, *, start: int, scale: float
    ) -> Run:
        writer = RunWriter(self.runs, spec, self.environment)
        try:
            writer.finish(self._train(spec, model, optimizer, writer, start, scale))
        finally:
            writer.close()
        return read_run(writer.path)

    def _train(
        self,
        spec: RunSpec,
        model: nn.Module,
        optimizer: Optimizer,
        writer: RunWriter,
        start: int,
        scale: float,
    ) -> Outcome:
        step_tokens = self.task.batch_tokens * self.settings.accumulation
        bases = [(float(g["lr"]), float(g["weight_decay"])) for g in optimizer.param_groups]
        seconds, taken, loss = 0.0, 0, math.nan
        for taken, (factor, held) in enumerate(self._factors(spec, scale), start=1):
            began = time.perf_counter()
            for group, (lr, weight_decay) in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = lr * factor
                group["weight_decay"] = weight_decay / held  # so that weights decay as before
            loss, norm = self._step(spec.seed, start + taken - 1, model, optimizer)
            seconds += time.perf_counter() - began
            at = dict(step=taken, tokens=taken * step_tokens, seconds=round(seconds, 6))
            writer.row(**at, loss=loss, lr=self.lr * factor, grad_norm=norm)
            if not math.isfinite(loss):
                break
        reason = "" if math.isfinite(loss) else f"training loss {loss:.4g} at step {taken}"
        final = None
        if not reason:
            final = scores_of(self.task, model, self.settings.eval_tokens)["valid_loss"]
        if final is not None and not math.isfinite(final):
            final, reason = None, f"validation loss {final}"
        return Outcome(
            status="diverged" if reason else "finished",
            final_loss=final,
            steps=taken,
            tokens=taken * step_tokens,
            seconds=seconds,
            parameters=sum(p.numel() for p in model.parameters()),
            state_bytes=state_bytes(optimizer),
            reason=reason,
        )

    def _factors(self, spec: RunSpec, scale: float) -> list[tuple[float, float]]:
        """Factor of the learning rate, and multiple by which decay is divided, of each step."""
        if spec.arm_name == HISTORY:
            return [(1.0, 1.0)] * spec.steps
        decay, ramp = self.settings.decay, self.ramp
        return [
            (
                lr_factor(step, spec.steps, decay=decay, scale=scale, ramp=ramp),
                multiple(step, scale=scale, ramp=ramp),
            )
            for step in range(spec.steps)
        ]

    def _step(
        self, seed: int, step: int, model: nn.Module, optimizer: Optimizer
    ) -> tuple[float, float]:
        """One optimizer step: the mean loss of its batches, and the gradient's norm."""
        count, total = self.settings.accumulation, 0.0
        optimizer.zero_grad()
        for micro in range(count):
            batch = self.ranks.place(self.task.batch(seed, step, micro))
            loss = self.task.loss(model, batch) / count
            torch.autograd.backward(loss)
            total += loss.item()
        limit = self.settings.grad_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), limit))
        optimizer.step()
        return total, norm


def multiple(step: int, *, scale: float, ramp: int) -> float:
    """Multiple of the checkpoint's learning rate before its decay: a ramp to ``scale``, held.

    Args:
        step: from 0.
        scale: held.
        ramp: steps from 1 to ``scale``.
    """
    return 1.0 + (scale - 1.0) * min(1.0, (step + 1) / ramp)


def lr_factor(step: int, steps: int, *, decay: float, scale: float, ramp: int) -> float:
    """Factor of the checkpoint's learning rate: its multiple, at the end falling to zero.

    Args:
        step: from 0.
        steps: of the continuation.
        decay: share of the steps in decay.
        scale: held.
        ramp: steps from 1 to ``scale``.
    """
    held, first = multiple(step, scale=scale, ramp=ramp), steps_before_decay(steps, decay)
    return held if step < first else held * (steps - step) / (steps - first + 1)


def steps_before_decay(steps: int, decay: float) -> int:
    """Steps of a continuation before its learning rate falls."""
    return round((1.0 - decay) * steps)


def ramp_steps(optimizer: Optimizer) -> int:
    """2 / (1 - beta2): by then the second moment is 86 % made of what it sees now."""
    beta2 = max(float(group["betas"][1]) for group in optimizer.param_groups)
    return max(1, round(2.0 / (1.0 - beta2)))


def ramp_within(ramp: int, settings: CanarySettings) -> int:
    """The ramp, shortened to half of the steps before the decay, so that each rate is held."""
    return max(1, min(ramp, steps_before_decay(settings.steps, settings.decay) // 2))
