"""Arguments of a guard, checked before the first step."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from torch.optim.optimizer import Optimizer

from .baseline import Baseline
from .settings import GuardSettings


def settings_of(settings: GuardSettings | None) -> GuardSettings:
    """The given ones, or the defaults."""
    if settings is None:
        return GuardSettings()
    if isinstance(settings, GuardSettings):
        return settings
    raise ValueError(
        f"settings={settings!r} must be a GuardSettings, such as GuardSettings(every=5), or None"
    )


def baseline_of(baseline: Baseline | str | Path) -> Baseline:
    """The given one, or the one in a file."""
    if isinstance(baseline, Baseline):
        return baseline
    if isinstance(baseline, str | Path):
        return Baseline.load(baseline)
    raise ValueError(
        f"baseline={baseline!r} must be a Baseline, such as BaselineRecorder(...).baseline(), or "
        "the path of a file with one"
    )


def check_held(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise ValueError where the optimizer steps what the model's snapshots do not hold."""
    held = {id(p) for p in model.parameters()}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = sum(id(p) not in held for p in params)
    if foreign:
        raise ValueError(
            f"optimizer has {foreign} of its {len(params)} parameters from outside model, which "
            "the guard could not take back: give the model that it steps, or an nn.ModuleList of "
            "all that it steps"
        )
