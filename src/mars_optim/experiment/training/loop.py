"""The training loop: warm-up, decay, gradient clip, accumulation, in one process or many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from ...errors import UserError
from ..plan import ExecutionOptions, RunSpec
from ..plan.any_arm import is_any
from ..records import Outcome, RunWriter
from ..records.run import ended_with_trunk
from ..tasks import Task
from ..tasks.base import scores_of
from .arm_class import wants_closure
from .checkpoint import Checkpoints
from .gradient import Gradients
from .judged import judged
from .optimizer import build_optimizer, state_bytes
from .parallelize import parallelize
from .position import beginning
from .ranks import join_ranks, seed_all
from .schedule import evaluation_steps, rate_share
from .speed import Clock, flops_per_token, peak_flops
from .telemetry import measure, memory_of, noise_fields, remember
from .weights import save_weights

ROWS = 50  # training rows per run
BLOW_UP = 2.0  # a loss this many times the first one has diverged


def train(
    spec: RunSpec,
    task: Task,
    writer: RunWriter,
    on_step: Callable[[int], None] = lambda step: None,
    execution: ExecutionOptions | None = None,
) -> Outcome:
    """Run ``spec`` from its first step, its trunk's or its own checkpoint to its last; record it.

    Called by each process of a run that several make together (:func:`join_ranks`).

    Args:
        spec: what to run.
        task: built from ``spec.task``.
        writer: takes the rows: ``step, tokens, seconds, loss, lr, grad_norm, tokens_per_second,
            optimizer_share``, for MARS ``noise`` and, where the device's peak is known, ``mfu``;
            at evaluations ``step, tokens, seconds, valid_loss`` and whatever else the task scores.
        on_step: called with the number of steps taken, after each. A KeyboardInterrupt out of it
            leaves a checkpoint of that step.
        execution: how; None for one process and the defaults.

    Returns:
        The outcome, not yet written. A run whose loss is no longer finite, or at twice its first
        value, ends there as diverged: an outcome, not an error.

    Raises:
        UserError: before the first step, if the processes cannot share the run, the arm's class
            does not take the model, a checkpoint cannot be gone on from and is not to be lost, or
            its trunk has left none.
    """
    if ended := ended_with_trunk(writer, spec):
        return ended
    loop = _Loop(spec, task, writer, execution or ExecutionOptions())
    try:
        return loop.run(on_step)
    finally:
        loop.checkpoints.close()


class _Loop:
    """A run under way: what it is made of, and where it is (``at``)."""

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        writer: RunWriter,
        execution: ExecutionOptions,
    ) -> None:
        self.spec, self.task, self.writer, self.execution = spec, task, writer, execution
        self.ranks = join_ranks()
        if self.ranks.world > 1 and is_any(spec.arm.optimizer):
            raise UserError(
                f"arm.{spec.arm_name}.optimizer = {spec.arm.optimizer!r} runs in one process, "
                f"and {self.ranks.world} were started: start one"
            )
        seed_all(spec.seed)  # a run is the same whatever ran before it
        model = task.build_model(spec.seed)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.token_flops = flops_per_token(task, model)
        self.parallelized = parallelize(model, self.ranks, execution)
        self.bare = self.parallelized.bare
        self.optimizer = build_optimizer(
            self.bare,
            spec.arm,
            lr=spec.lr,
            convention=spec.training.convention,
            name=spec.arm_name,
        )
        self.gradients = Gradients(
            task,
            self.parallelized,
            self.optimizer,
            spec.training,
            self.ranks,
            spec.seed,
            wants_closure(spec.arm),
        )
        self.checkpoints = Checkpoints(
            writer.path, spec, execution, self.ranks, self.bare, self.optimizer
        )
        self.peaks = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step_tokens = task.batch_tokens * spec.training.accumulation
        self.clock = Clock(self.ranks.device)
        self.at = beginning()
        writer.keeps_checkpoints = bool(execution.keep or execution.keep_best or spec.branches)

    def run(self, on_step: Callable[[int], None]) -> Outcome:
        at, steps = self.at, self.spec.steps
        measure(self.optimizer, wanted=self.execution.telemetry)
        position = self.checkpoints.restore()
        if position is None and self.spec.trunk:
            position = self.checkpoints.branch_off()
            position["trunk_seconds"] = position["seconds"]
        if position:
            remember(self.optimizer, position)
            at |= position
            for row in at.pop("rows"):
                self.writer.row(**row)
        self.gradients.rehearse()
        row_every, sparing = max(1, steps // ROWS), self.execution.sparing
        eval_steps = evaluation_steps(self.spec.training, steps, self.step_tokens, sparing=sparing)
        for step in range(at["step"], steps):
            loss, norm, time_is_up = self._step(step)
            taken = at["step"] = step + 1
            blown_up = self._blown_up(loss)
            due = taken % row_every == 0 or taken in self.spec.branches
            if due or taken == steps or blown_up:
                self.writer.row(**self._row(norm))
                at |= dict(losses=[], window=[0.0, 0.0])
            if blown_up:
                return self._outcome(f"training loss {loss:.4g} at step {taken}")
            best = taken in eval_steps and self._evaluate()
            if not math.isfinite(at["valid_loss"]) and taken in eval_steps:
                return self._outcome(f"validation loss {at['valid_loss']} at step {taken}")
            if best or time_is_up or self._due(taken):
                self._save()
            try:
                on_step(taken)
            except KeyboardInterrupt:  # several processes may have been stopped at several steps
                if self.checkpoints.wanted and self.ranks.world == 1:
                    self._save()
                raise
        if self.execution.keep_weights:
            with judged(self.optimizer, self.bare):
                save_weights(self.writer.path, self.bare, self.ranks)
        return self._outcome()

    def _save(self) -> None:
        kept = self.at | {"rows": self.writer.rows} | memory_of(self.optimizer)
        self.checkpoints.save(self.at["step"], kept)

    def _step(self, step: int) -> tuple[float, float, bool]:
        """One optimizer step: its mean loss, its gradient's norm, and if a checkpoint is due."""
        self.clock.start()
        training, at = self.spec.training, self.at
        factor = rate_share(self.spec, step)
        at["lr"] = self.spec.lr * factor
        set_lrs(self.optimizer, [peak * factor for peak in self.peaks])
        losses, norm = self.gradients.make(step)
        with self.clock.optimizer():
            self.gradients.update(step)
        self.optimizer.zero_grad()
        mine = 0.0
        for loss in losses.tolist():  # the one place where the device is waited for
            mine += loss / training.accumulation
        # the first process's clock speaks for all
        due = float(self.ranks.first and self.checkpoints.time_is_up)
        loss, due = self.ranks.sums(mine, due)
        seconds, of_optimizer = self.clock.stop()
        at["seconds"] += seconds
        at["window"] = [at["window"][0] + seconds, at["window"][1] + of_optimizer]
        at["losses"].append(loss)
        return loss, float(norm), due > 0

    def _row(self, norm: float) -> dict[str, Any]:
        """The training row of the steps since the last one."""
        at, (seconds, of_optimizer) = self.at, self.at["window"]
        speed = len(at["losses"]) * self.step_tokens / seconds
        row = dict(
            **self._now(),
            loss=sum(at["losses"]) / len(at["losses"]),
            lr=at["lr"],
            grad_norm=norm,
            tokens_per_second=round(speed, 1),
            optimizer_share=round(of_optimizer / seconds, 4),
            **noise_fields(self.optimizer),
        )
        peak = self.ranks.world * peak_flops(self.ranks.device, self.execution.peak_tflops)
        if peak and self.token_flops:
            passes = 2 if self.gradients.exact else 1
            row["mfu"] = float(f"{passes * self.token_flops * speed / peak:.4g}")
        return row

    def _now(self) -> dict[str, Any]:
        at = self.at
        tokens = at["step"] * self.step_tokens
        return dict(step=at["step"], tokens=tokens, seconds=round(at["seconds"], 4))

    def _evaluate(self) -> bool:
        """Add a row of scores; all processes take the same, the first one's. If it is the best."""
        at, tokens = self.at, self.spec.training.eval_tokens
        self.ranks.agree_on_buffers(self.bare)
        with judged(self.optimizer, self.bare), self.gradients.autocast():
            scores = scores_of(self.task, self.bare, tokens)
        self.parallelized.reshard()
        scores = self.ranks.firsts(scores)
        at["valid_loss"] = scores["valid_loss"]
        at["scores"] = {k: v for k, v in scores.items() if k != "valid_loss" and math.isfinite(v)}
        self.writer.row(**self._now(), **scores)
        if not at["valid_loss"] < at["best_loss"]:
            return False
        at |= dict(best_loss=at["valid_loss"], best_step=at["step"])
        return self.execution.keep_best

    def _due(self, taken: int) -> bool:
        """Whether a checkpoint is due by the number of steps."""
        every, last = self.execution.checkpoint_steps, taken == self.spec.steps
        if taken in self.spec.branches:
            return True
        return bool(every and taken % every == 0) or bool(self.execution.keep and last)

    def _blown_up(self, loss: float) -> bool:
        at = self.at
        if at["step"] == 1:
            at["first_loss"] = loss
        rise = loss - at["first_loss"]  # of a loss that may be negative
        return not math.isfinite(loss) or rise > (BLOW_UP - 1) * abs(at["first_loss"])

    def _outcome(self, reason: str = "") -> Outcome:
        at = self.at
        return Outcome(
            status="diverged" if reason else "finished",
            final_loss=None if reason else at["valid_loss"],
            steps=at["step"],
            tokens=at["step"] * self.step_tokens,
            seconds=at["seconds"] - at["trunk_seconds"],
            parameters=self.parameters,
            state_bytes=state_bytes(self.optimizer),
            reason=reason,
            scores={} if reason else at["scores"],
        )


def set_lrs(optimizer: Optimizer, lrs: list[float]) -> None:
    """Write one learning rate into each parameter group."""
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if isinstance(group["lr"], Tensor):  # some would not see another object
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
