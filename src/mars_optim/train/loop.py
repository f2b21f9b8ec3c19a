"""The training loop: warm-up, decay to zero, gradient clip, accumulation, on Accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch.optim.optimizer import Optimizer

from ..optim import MARS
from ..records import Outcome, RunSpec, RunWriter
from ..records.run import CHECKPOINT
from ..tasks import Task
from .arms import build_optimizer, state_bytes
from .checkpoint import Checkpoints
from .reading import gradient_scale
from .schedule import scheduled

ROWS = 50  # training rows per run
BLOW_UP = 2.0  # a loss this many times the first one has diverged


def train(
    spec: RunSpec,
    task: Task,
    writer: RunWriter,
    on_step: Callable[[int], None] = lambda step: None,
    checkpoint_seconds: float = math.inf,
) -> Outcome:
    """Run ``spec`` from its first step, or from its checkpoint, to its last and record it.

    Args:
        spec: what to run.
        task: built from ``spec.task``.
        writer: takes the rows: ``step, tokens, seconds, loss, lr, grad_norm``, and at evaluations
            ``step, tokens, seconds, valid_loss``.
        on_step: called with the number of steps taken, after each.
        checkpoint_seconds: between checkpoints, from which a run that was ended goes on; infinite
            for none.

    Returns:
        The outcome, not yet written. A run whose loss is no longer finite, or at twice its first
        value, ends there as diverged: an outcome, not an error.
    """
    settings = spec.training
    accelerator = Accelerator(
        mixed_precision=settings.precision, gradient_accumulation_steps=settings.accumulation
    )
    set_seed(spec.seed % 2**32)  # for dropout: a run is the same whatever ran before it
    bare = task.build_model(spec.seed)
    bare_optimizer = build_optimizer(bare, spec.arm, lr=spec.lr, reading=settings.reading)
    model, optimizer = accelerator.prepare(bare, bare_optimizer)
    exact = isinstance(bare_optimizer, MARS) and spec.arm.correction == "exact"
    limit, scale = settings.grad_clip or math.inf, gradient_scale(settings)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    parameters = sum(p.numel() for p in bare.parameters())
    step_tokens = task.batch_tokens * settings.accumulation
    row_every = max(1, spec.steps // ROWS)
    eval_steps = {
        round(spec.steps * (i + 1) / settings.evaluations) for i in range(settings.evaluations)
    }
    seconds, losses, first_loss, valid_loss = 0.0, [], math.inf, math.nan

    def outcome(step: int, reason: str = "") -> Outcome:
        return Outcome(
            status="diverged" if reason else "finished",
            final_loss=None if reason else valid_loss,
            steps=step,
            tokens=step * step_tokens,
            seconds=seconds,
            parameters=parameters,
            state_bytes=state_bytes(optimizer.optimizer),
            reason=reason,
        )

    first = 0
    checkpoints = Checkpoints(
        writer.path / CHECKPOINT, spec.run_id, checkpoint_seconds, bare, optimizer.optimizer
    )
    if at := checkpoints.restore():
        first, seconds, losses = at["step"], at["seconds"], at["losses"]
        first_loss, valid_loss = at["first_loss"], at["valid_loss"]
        for row in at["rows"]:
            writer.row(**row)

    for step in range(first, spec.steps):
        start = time.perf_counter()
        factor = scheduled(settings, step, spec.steps, peak=spec.lr)
        set_lrs(optimizer, [peak * factor for peak in peaks])
        loss = 0.0
        if exact:
            with bare_optimizer.previous_point(bare):  # one block, for the clip sees all of it
                for micro in range(settings.accumulation):
                    batch = task.batch(spec.seed, step, micro)
                    batch = send_to_device(batch, accelerator.device)
                    accelerator.backward(scale * task.loss(model, batch))
                accelerator.clip_grad_norm_(model.parameters(), limit)
        for micro in range(settings.accumulation):
            with accelerator.accumulate(model):
                batch = task.batch(spec.seed, step, micro)
                batch = send_to_device(batch, accelerator.device)
                micro_loss = task.loss(model, batch)
                accelerator.backward(scale * micro_loss)
                if accelerator.sync_gradients:
                    norm = float(accelerator.clip_grad_norm_(model.parameters(), limit))
                optimizer.step()
                optimizer.zero_grad()
            loss += micro_loss.item() / settings.accumulation
        seconds += time.perf_counter() - start

        taken, first_loss = step + 1, loss if step == 0 else first_loss
        losses.append(loss)
        rise = loss - first_loss  # of a loss that may be negative
        blown_up = not math.isfinite(loss) or rise > (BLOW_UP - 1) * abs(first_loss)
        at = dict(step=taken, tokens=taken * step_tokens, seconds=round(seconds, 4))
        if taken % row_every == 0 or taken == spec.steps or blown_up:
            mean = sum(losses) / len(losses)
            writer.row(**at, loss=mean, lr=spec.lr * factor, grad_norm=norm)
            losses = []
        if blown_up:
            return outcome(taken, f"training loss {loss:.4g} at step {taken}")
        if taken in eval_steps:
            valid_loss = task.evaluate(model, settings.eval_tokens)
            writer.row(**at, valid_loss=valid_loss)
            if not math.isfinite(valid_loss):
                return outcome(taken, f"validation loss {valid_loss} at step {taken}")
        if checkpoints.due:
            position = dict(step=taken, seconds=seconds, losses=losses, rows=writer.rows)
            checkpoints.save(position | dict(first_loss=first_loss, valid_loss=valid_loss))
        on_step(taken)
    return outcome(spec.steps)


def set_lrs(optimizer: Optimizer, lrs: list[float]) -> None:
    """Write one learning rate into each parameter group."""
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        group["lr"] = lr
