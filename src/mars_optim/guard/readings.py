"""Values of steps, kept on their device until a reading."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ..optim.correction import tensor_norm
from ..optim.distributed.sharded import Shards, is_sharded, layout, like, local
from ..optim.hyperparameters import gamma_of
from ..optim.values import number
from .ranks import world_size

Value = float | Tensor


@dataclass(frozen=True, slots=True)
class StepValues:
    """Values of one step, as numbers that all ranks agree on."""

    loss: float
    grad_norm: float | None
    clip_share: float | None
    step_seconds: float | None


class Readings:
    """Collects values and reads them together: one wait for the device, and one reduction.

    Args:
        optimizer: of which the clip is watched and whose first parameter gives the device.
        every: steps between readings.
        clip: norm that AdamW's tensors are compared with; None where the optimizer is a MARS.
    """

    def __init__(self, optimizer: Optimizer, every: int, clip: float | None = None) -> None:
        self.every = every
        self._clip = clip
        self._pending: list[list[Value | None]] = []
        self._share: Tensor | None = None
        self._clock: float | None = None
        self._hook: Any = None
        self.watch_optimizer(optimizer)

    def watch_optimizer(self, optimizer: Optimizer) -> None:
        """Read the clip of this one from now on."""
        self.close()
        self.device = device_of(optimizer)
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def close(self) -> None:
        """Take the hook out of the optimizer, and forget what was not read."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._pending, self._share, self._clock = None, [], None, None

    def add(
        self, loss: Value, grad_norm: Value | None, step_seconds: float | None
    ) -> list[StepValues] | None:
        """Take a step's values. At each reading, those of all steps since the last one."""
        if step_seconds is None and self._clock is not None:
            step_seconds = time.perf_counter() - self._clock
        share, self._share = self._share, None
        norm = None if grad_norm is None else _one_number("grad_norm", grad_norm)
        seconds = None if step_seconds is None else _one_number("step_seconds", step_seconds)
        values: list[Value | None] = [_one_number("loss", loss), norm, share, seconds]
        # a host may write the next step's value over this one's
        kept = [v.detach().clone() if isinstance(v, Tensor) else v for v in values]
        self._pending.append(kept)
        return self.read() if len(self._pending) >= self.every else None

    def read(self) -> list[StepValues]:
        """All values that wait, averaged over the ranks."""
        pending, self._pending = self._pending, []
        rows = [[math.nan if v is None else v for v in row] for row in pending]
        numbers = _read(rows, self.device)
        kept = [
            [None if given is None else number for given, number in zip(*both, strict=True)]
            for both in zip(pending, numbers, strict=True)
        ]
        return [StepValues(*row) for row in kept]  # type: ignore[arg-type]

    def start_clock(self) -> None:
        """From here to the next ``add`` is a step, unless its time is given."""
        self._clock = time.perf_counter()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The step whose values will be read next: how many tensors does the clip touch?"""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        # by a closure the gradients do not exist yet; under a GradScaler they may be scaled still
        ready = closure is None and getattr(optimizer, "grad_scale", None) is None
        if ready and len(self._pending) == self.every - 1:
            self._share = clip_share(optimizer, self._clip)


def device_of(optimizer: Optimizer) -> torch.device:
    """Device of the first parameter.

    Raises:
        ValueError: if there is none.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if not params:
        raise ValueError("optimizer holds no parameters: give the one that steps the model")
    device: torch.device = params[0].device
    return device


def _one_number(name: str, value: Any) -> Value:
    """``value``, or ValueError if it is not one real number; a tensor is not read."""
    if not isinstance(value, Tensor):
        return number(name, value)
    if value.numel() != 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; one number is needed")
    if value.is_complex():
        raise ValueError(f"{name} is of {value.dtype}; one real number is needed")
    return value


def _read(rows: list[list[Value]], device: torch.device) -> list[list[float]]:
    """Tensors and numbers -> numbers, by one copy from the device; the mean over ranks."""
    given: list[Any] = [v for row in rows for v in row if isinstance(v, Tensor)]
    # a gradient norm of sharded parameters is a DTensor
    whole = [v.full_tensor() if is_sharded(v) else v for v in given]
    stacked = [t.to(device, torch.float32).reshape(()) for t in whole]
    read = iter(torch.stack(stacked).tolist() if stacked else ())
    numbers = [[next(read) if isinstance(v, Tensor) else float(v) for v in row] for row in rows]
    if world_size() > 1:
        table = torch.tensor(numbers, dtype=torch.float32, device=device)
        dist.all_reduce(table)
        numbers = (table / world_size()).tolist()
    return numbers


@torch.no_grad()
def clip_share(optimizer: Optimizer, clip: float | None = None) -> Tensor | None:
    """Share of the tensors with a correction that the coming step will clip; 0-d, on the device.

    Args:
        optimizer: a MARS before its step, or, with ``clip``, any other, of whose gradients the
            share is that of those with at least two dimensions and a norm above ``clip``.
        clip: see above.

    Returns:
        None where nothing is clipped at all.
    """
    beyond: list[Tensor] = []
    device = device_of(optimizer)
    for group in optimizer.param_groups:
        limit = clip if clip is not None else group.get("clip")
        if limit is None:
            continue
        buckets: dict[Any, list[Tensor]] = {}
        for param in group["params"]:
            if param.grad is not None and (clip is None or param.ndim >= 2):
                buckets.setdefault((param.device, layout(param)), []).append(param)
        for params in buckets.values():
            norms = torch.stack([tensor_norm(_c(p, group, optimizer).float()) for p in params])
            shards = Shards.of(params)
            whole = norms if shards is None else shards.whole_norms(norms)
            beyond.append((whole > limit).float().to(device))
    return torch.cat(beyond).mean() if beyond else None


def _c(param: Tensor, group: dict[str, Any], optimizer: Optimizer) -> Tensor:
    """c_t of this process's shard, or the gradient where there is no correction."""
    assert param.grad is not None
    g: Tensor = local(like(param.grad, param))
    if not group.get("gamma") or group.get("correction", "folded") == "folded":
        return g
    gain = gamma_of(group) * group["betas"][0] / (1.0 - group["betas"][0])
    last = optimizer.state.get(param, {}).get("last_grad")
    last_grad: Tensor = torch.zeros_like(g) if last is None else local(last).to(g.dtype)
    return torch.lerp(last_grad, g, 1.0 + gain)
