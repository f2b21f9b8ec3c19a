"""Settings of one parameter group, checked once and read at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ..optimizer_options import (
    AUTO_GAMMA,
    BY_LR,
    CHOSEN,
    IN_GROUPS,
    MATRIX_RULES,
    NS_COEFFICIENTS,
    ClipOver,
    Coefficients,
    Correction,
    GammaSchedule,
    Option,
    Rule,
    check_together,
    polynomials,
)
from .blocks import Split
from .values import (
    at_least_zero,
    check_number,
    check_option,
    coefficients,
    flag,
    is_auto,
    learning_rate,
    number,
    number_or_none,
    pair,
    tristate,
    whole,
)

Scalar = TypeVar("Scalar", float, Tensor, float | Tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The hyper-parameters of one group, in torch's names and then the paper's.

    Built anew from the group at every step, so that schedulers and hand edits take effect. ``lr``
    is what acts: the group's times its ``lr_ratio``.

    Raises:
        ValueError: naming the argument, its value, the allowed range and the way out.
    """

    rule: Rule
    lr: float | Tensor
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    gamma: float | Tensor
    clip: float | None
    correction: Correction
    clip_over: ClipOver = "tensor"
    gamma_schedule: GammaSchedule = "constant"
    cautious: bool = False
    amsgrad: bool = False
    maximize: bool = False
    ns_steps: int = 5
    ns_coefficients: str | Coefficients | tuple[Coefficients, ...] = NS_COEFFICIENTS
    foreach: bool | None = None
    fused: bool | None = None
    lr_ratio: float = 1.0
    stacked: bool = False
    split: Split | None = None
    state_dtype: torch.dtype | None = None
    last_grad_dtype: torch.dtype | None = None
    stochastic_rounding: bool = False
    capturable: bool = False

    def __post_init__(self) -> None:
        for name, option in _RANGED:
            check_option(name, getattr(self, name), option)
        if self.split is not None and self.rule not in MATRIX_RULES:
            raise ValueError(
                f"split={self.split.given!r} belongs to Newton-Schulz, which "
                f"rule={self.rule!r} does not use: leave it out, or use rule='muon' or "
                "'shampoo'"
            )
        if self.gamma_schedule == "auto" and self.correction != "folded" and self.corrects:
            raise ValueError(
                f"gamma_schedule='auto' needs correction='folded', not {self.correction!r}: "
                "in other forms gamma also acts on the second moment and the clip. Give "
                "gamma='auto' where the group was made, such as in "
                "param_groups(..., gamma='auto'), or leave correction out"
            )
        polynomials(self.ns_coefficients, self.ns_steps)
        check_together(self)
        if self.gamma_schedule in CHOSEN and self.betas[0] == 0.0 and self.corrects:
            raise ValueError(
                f"gamma_schedule={self.gamma_schedule!r} needs betas[0] above 0, not "
                f"betas={self.betas!r}: without momentum there is no lag"
            )

    @classmethod
    def from_group(cls, group: Mapping[str, Any]) -> Settings:
        """Read the settings of a resolved parameter group; numpy's numbers become Python's."""
        values = {name: read(name, group[name]) for name, read in _READ}
        values["gamma"] = gamma_of(group)
        if values["lr_ratio"] != 1.0:
            check_number("lr_ratio", values["lr_ratio"], low=0.0)
            values["lr"] = values["lr"] * values["lr_ratio"]
        values["last_grad_dtype"] = values["last_grad_dtype"] or values["state_dtype"]
        return cls(**values)

    def in_force(self, group: Mapping[str, Any]) -> Settings:
        """The same with the gamma of the step that is due, where the group has a schedule."""
        if self.gamma_schedule == "constant":
            return self
        gamma = gamma_of(group)
        known = not isinstance(gamma, Tensor) and not isinstance(self.gamma, Tensor)
        if known and gamma == self.gamma:
            return self  # on a CPU nine steps of ten; a copy would be checked again
        return replace(self, gamma=gamma)

    def beside(self, param: Tensor) -> Settings:
        """The same, with a gamma that only a device knows where this parameter is."""
        if isinstance(self.gamma, Tensor) and self.gamma.device != param.device:
            return replace(self, gamma=self.gamma.to(param.device, non_blocking=True))
        return self

    @property
    def corrects(self) -> bool:
        """Whether there is a correction. On an accelerator a gamma of the run counts as one."""
        return isinstance(self.gamma, Tensor) or self.gamma != 0.0

    @property
    def gain(self) -> float | Tensor:
        """k = gamma * beta1 / (1 - beta1), the weight of the gradient difference (eq. 3.2)."""
        return self.gain_of(self.gamma)

    def gain_of(self, gamma: Scalar) -> Scalar:
        """The same of another gamma."""
        return gamma * self.betas[0] / (1.0 - self.betas[0])

    @property
    def takes_difference(self) -> bool:
        """Whether c_t needs a previous gradient: the last step's, or this batch's at x_{t-1}."""
        return self.correction != "folded" and self.corrects

    @property
    def exact(self) -> bool:
        """Whether that is this batch's, at the last step's parameters."""
        return self.correction == "exact" and self.corrects

    @property
    def polynomials(self) -> tuple[Coefficients, ...]:
        """(a, b, c) of each step of Newton-Schulz."""
        return polynomials(self.ns_coefficients, self.ns_steps)

    @property
    def plain(self) -> bool:
        """Whether c_t is the gradient itself."""
        return not self.corrects and self.clip is None

    @property
    def clips_together(self) -> bool:
        """Whether the clip looks at the norm over all tensors instead of each one's own."""
        return self.clip is not None and self.clip_over == "global"

    @property
    def folds(self) -> bool:
        """Whether the correction is folded into the momentum."""
        return self.correction == "folded" and self.corrects


def gamma_of(group: Mapping[str, Any]) -> float | Tensor:
    """gamma_t of a group: what its schedule has made of ``gamma``, whose 0 switches it off.

    A tensor where reading it would wait for a device or end a graph.
    """
    gamma = _gamma("gamma", group["gamma"])
    if group["gamma_schedule"] == "constant" or gamma == 0:
        return gamma
    now = group.get("gamma_now", gamma)
    if isinstance(now, Tensor) and (not now.is_cpu or torch.compiler.is_compiling()):
        return now.reshape(())
    return float(now) if isinstance(now, Tensor) else number("gamma_now", now)


def _gamma(name: str, value: Any) -> float:
    """A group's gamma as a number; "auto" is resolved before a group is made."""
    if isinstance(value, str) and value == "auto":
        raise ValueError(
            f"gamma={value!r} in a group that is there already: set gamma_schedule='auto', "
            f"correction='folded', clip=None and gamma={AUTO_GAMMA}, where it begins"
        )
    return at_least_zero(name, value)


def resolve(options: dict[str, Any]) -> dict[str, Any]:
    """The same with what "auto" and None stand for in gamma, correction and clip."""
    found = dict(options)
    resolve_gamma(found)
    schedule = found.get("gamma_schedule", "constant")
    found["correction"] = resolve_correction(found["correction"], schedule)
    found["clip"] = resolve_clip(found["clip"], found["correction"])
    return found


def resolve_gamma(group: dict[str, Any]) -> None:
    """``gamma="auto"`` is ``gamma_schedule="auto"`` from AUTO_GAMMA on."""
    if not is_auto("gamma", group.get("gamma"), "a number of at least 0"):
        return
    schedule = group.get("gamma_schedule", "constant")
    if schedule in BY_LR:
        raise ValueError(
            f"gamma='auto' and gamma_schedule={schedule!r} exclude each other: the schedule "
            "needs a number to start from"
        )
    group["gamma"] = AUTO_GAMMA
    group["gamma_schedule"] = "auto" if schedule == "constant" else schedule


def resolve_correction(correction: Correction | None, schedule: str) -> Correction:
    """None is "folded" where "auto" chooses gamma, for it needs that, and else "approx"."""
    if correction is not None:
        return correction
    return "folded" if schedule == "auto" else "approx"


def resolve_clip(clip: float | str | None, correction: str) -> float | None:
    """Turn ``"auto"`` into the default: 1.0 for approx, None for folded."""
    if is_auto("clip", clip, "a number above 0, or None"):
        return None if correction == "folded" else 1.0
    return cast(float | None, clip)


def _reader(name: str, option: Option) -> Callable[[str, Any], Any]:
    """Function that turns an option's value in a group into the one in the settings."""
    if name == "lr":
        return learning_rate
    if name == "gamma":
        return _gamma
    if option.type == "number":
        return number_or_none if option.none else at_least_zero
    if option.type == "flag":
        return tristate if option.none else flag
    of_type = {"betas": pair, "coefficients": coefficients, "whole": whole, "split": Split.of}
    return of_type.get(option.type, lambda _, value: value)


_SETTINGS = [
    (name, option) for name, option in IN_GROUPS.items() if name in Settings.__dataclass_fields__
]
_READ = [(name, _reader(name, option)) for name, option in _SETTINGS]
_RANGED = [
    (n, option) for n, option in _SETTINGS if option.type not in ("flag", "coefficients", "split")
]
