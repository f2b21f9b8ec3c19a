"""What one parameter group asks for, checked once and read at every step."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from ..optimizer_options import (
    BY_LR,
    CHOSEN,
    IN_GROUPS,
    NS_COEFFICIENTS,
    PUBLISHED_GAMMA,
    ClipOver,
    Correction,
    GammaSchedule,
    Option,
    Rule,
    check_together,
)

# A schedule that ends at 0 may end this far below it by rounding (torch's LinearLR: -1e-20).
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The hyper-parameters of one group, in torch's names and then the paper's.

    Built anew from the group at every step, so that schedulers and hand edits take effect.

    Raises:
        ValueError: naming the argument, its value, the allowed range and the way out.
    """

    rule: Rule
    lr: float | Tensor
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    gamma: float
    clip: float | None
    correction: Correction
    clip_over: ClipOver = "tensor"
    gamma_schedule: GammaSchedule = "constant"
    cautious: bool = False
    amsgrad: bool = False
    maximize: bool = False
    ns_steps: int = 5
    ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS
    foreach: bool | None = None
    fused: bool | None = None
    stacked: bool = False
    state_dtype: torch.dtype | None = None
    last_grad_dtype: torch.dtype | None = None
    stochastic_rounding: bool = False
    capturable: bool = False

    def __post_init__(self) -> None:
        for name, option in _RANGED:
            check_option(name, getattr(self, name), option)
        check_together(self)
        if self.gamma_schedule in BY_LR and isinstance(self.lr, Tensor):
            raise ValueError(
                f"gamma_schedule={self.gamma_schedule!r} reads lr at each step: give it as a "
                "number, or on a CPU"
            )
        if self.gamma_schedule in CHOSEN and self.betas[0] == 0.0:
            raise ValueError(
                f"gamma_schedule={self.gamma_schedule!r} needs betas[0] above 0: without an "
                "average there is no lag"
            )

    @classmethod
    def from_group(cls, group: Mapping[str, Any]) -> Settings:
        """Read the settings of a resolved parameter group; numpy's numbers become Python's."""
        values = {name: read(name, group[name]) for name, read in _READ}
        values["gamma"] = gamma_of(group)
        values["last_grad_dtype"] = values["last_grad_dtype"] or values["state_dtype"]
        return cls(**values)

    @property
    def gain(self) -> float:
        """k = gamma * beta1 / (1 - beta1), the weight of the gradient difference (eq. 3.2)."""
        beta1 = self.betas[0]
        return self.gamma * beta1 / (1.0 - beta1)

    @property
    def takes_difference(self) -> bool:
        """Whether c_t needs a previous gradient: the last step's, or this batch's at x_{t-1}."""
        return self.correction != "folded" and self.gamma != 0.0

    @property
    def exact(self) -> bool:
        """Whether that is this batch's, at the last step's parameters."""
        return self.correction == "exact" and self.gamma != 0.0

    @property
    def plain(self) -> bool:
        """Whether c_t is the gradient itself."""
        return self.gamma == 0.0 and self.clip is None

    @property
    def clips_together(self) -> bool:
        """Whether the clip looks at the norm over all tensors instead of each one's own."""
        return self.clip is not None and self.clip_over == "global"

    @property
    def folds(self) -> bool:
        """Whether the correction is folded into the momentum."""
        return self.correction == "folded" and self.gamma != 0.0


def gamma_of(group: Mapping[str, Any]) -> float:
    """gamma_t of a group: what its schedule has made of ``gamma``, whose 0 switches it off."""
    gamma = at_least_zero("gamma", group["gamma"])
    if group["gamma_schedule"] == "constant" or gamma == 0:
        return gamma
    return number("gamma_now", group.get("gamma_now", gamma))


def resolve(options: dict[str, Any]) -> dict[str, Any]:
    """The same with what "auto" and None stand for in gamma, correction and clip."""
    found = dict(options)
    resolve_gamma(found)
    schedule = found.get("gamma_schedule", "constant")
    found["correction"] = resolve_correction(found["correction"], schedule)
    found["clip"] = resolve_clip(found["clip"], found["correction"])
    return found


def resolve_gamma(group: dict[str, Any]) -> None:
    """``gamma="auto"`` is ``gamma_schedule="auto"`` from the published gamma on."""
    gamma = group.get("gamma")
    if not (isinstance(gamma, str) and gamma == "auto"):
        return
    schedule = group.get("gamma_schedule", "constant")
    if schedule in ("lr", "sqrt_lr"):
        raise ValueError(
            f"gamma='auto' and gamma_schedule={schedule!r} exclude each other: the schedule needs "
            "a number to begin with"
        )
    group["gamma"] = PUBLISHED_GAMMA
    group["gamma_schedule"] = "auto" if schedule == "constant" else schedule


def resolve_correction(correction: Correction | None, schedule: str) -> Correction:
    """None is "folded" where "auto" chooses gamma, for it needs that, and else "approx"."""
    if correction is not None:
        return correction
    return "folded" if schedule == "auto" else "approx"


def resolve_clip(clip: float | str | None, correction: str) -> float | None:
    """Turn ``"auto"`` into the default: 1.0 for approx, None for folded."""
    if isinstance(clip, str) and clip == "auto":
        return None if correction == "folded" else 1.0
    if isinstance(clip, str):
        raise ValueError(f"clip={clip!r} must be 'auto', None or a number above 0")
    return clip


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``, suggesting the nearest."""
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}{hint}")


def check_number(
    name: str, value: object, *, low: float, above: bool = False, hint: str = ""
) -> None:
    """Raise ValueError unless ``value`` is a finite number >= ``low`` (> with ``above``)."""
    real = number(name, value)
    if math.isfinite(real) and (real > low if above else real >= low):
        return
    bound = f"a finite number {'above' if above else 'of at least'} {low:g}"
    raise ValueError(f"{name}={value!r} must be {bound}" + (f" ({hint})" if hint else ""))


def number(name: str, value: object) -> float:
    """``value`` as a number of Python's.

    Python's and numpy's real numbers count, and so does a tensor or array of one real element.
    Neither bools nor strings do.
    """
    if type(value) in (int, float):
        return cast(float, value)  # as it is, for messages
    if isinstance(value, Tensor):
        real = not value.is_complex() and value.dtype != torch.bool
        if value.numel() == 1 and real:
            return float(value)
        if value.numel() != 1:
            shape = tuple(value.shape)
            raise ValueError(f"{name}=tensor of shape {shape} must be a number or have one element")
    elif isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    elif _kind(value) in ("f", "i", "u") and getattr(value, "size", 0) == 1:
        return float(cast(Any, value).item())  # an array of numpy's, or one like it
    raise ValueError(f"{name}={value!r} must be a number, not {type(value).__name__}")


def at_least_zero(name: str, value: object) -> float:
    """``value`` as a float, where what a schedule has rounded to just below 0 is 0."""
    real = number(name, value)
    return 0.0 if -ROUNDING <= real < 0.0 else real


def number_or_none(name: str, value: object) -> float | None:
    """``value`` as a number, or None."""
    return None if value is None else number(name, value)


def as_it_is(name: str, value: Any) -> Any:
    """``value`` itself."""
    return value


def whole(name: str, value: object) -> int:
    """``value`` as an int; numpy's integers count, 2.0 does not."""
    if type(value) is int:
        return value
    if _kind(value) in ("i", "u") and getattr(value, "size", 0) == 1:
        return int(cast(Any, value).item())
    raise ValueError(f"{name}={value!r} must be a whole number, not {type(value).__name__}")


def flag(name: str, value: object) -> bool:
    """``value`` as a bool; numpy's count, 0 and 1 do not."""
    if isinstance(value, bool):
        return value
    if _kind(value) == "b" and getattr(value, "size", 0) == 1:
        return bool(cast(Any, value).item())
    raise ValueError(f"{name}={value!r} must be True or False")


def tristate(name: str, value: object) -> bool | None:
    """``value`` as a bool, or None."""
    return None if value is None else flag(name, value)


def _kind(value: object) -> str:
    """numpy's letter for what ``value`` holds (f, i, u, b, ...); "" if it is none of numpy's."""
    return str(getattr(getattr(value, "dtype", None), "kind", ""))


def plain(value: Any) -> Any:
    """A number or bool of numpy's as Python's, for a checkpoint must not need numpy; pairs too."""
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value)) if type(value) in (tuple, list) else value
    if _kind(value) in ("f", "i", "u", "b") and getattr(value, "size", 0) == 1:
        return value.item()
    return value


def learning_rate(name: str, lr: object) -> float | Tensor:
    """As a number; a tensor stays one where reading it would wait for a device or end a graph."""
    if (
        isinstance(lr, Tensor)
        and lr.numel() == 1
        and (lr.device.type != "cpu" or torch.compiler.is_compiling())
    ):
        return lr
    return float(at_least_zero(name, lr))


def pair(name: str, value: object) -> tuple[float, float]:
    """``value`` as two floats."""
    try:
        first, second = cast(Any, value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be a pair of numbers (beta1, beta2)") from None
    return float(number(f"{name}[0]", first)), float(number(f"{name}[1]", second))


def triple(name: str, value: object) -> tuple[float, float, float]:
    """``value`` as three floats."""
    try:
        a, b, c = (float(number(name, x)) for x in cast(Any, value))
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be three numbers (a, b, c)") from None
    return a, b, c


def check_betas(name: str, betas: object) -> None:
    """Raise ValueError unless both betas lie in [0, 1)."""
    for i, beta in enumerate(pair(name, betas)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name}[{i}]={beta!r} must be in [0, 1)")


def check_option(name: str, value: Any, option: Option) -> None:
    """Raise ValueError for a value that is out of the option's range."""
    if value is None and option.none:
        return
    if option.type == "choice":
        check_choice(name, value, option.choices)
    elif option.type == "betas":
        check_betas(name, value)
    elif option.type == "number":
        if not (name == "lr" and isinstance(value, Tensor)):  # reading it would wait
            low = option.low if option.above is None else option.above
            above = option.above is not None
            check_number(name, value, low=low or 0.0, above=above, hint=option.hint)
    elif option.type == "whole":
        if not (option.low or 0) <= value <= (option.high or math.inf):
            raise ValueError(
                f"{name}={value!r} must be a whole number from {option.low} to {option.high}"
            )
    elif option.type == "flag":
        flag(name, value)
    elif option.type == "coefficients":
        triple(name, value)
    elif not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise ValueError(f"{name}={value!r} must be None or a floating torch.dtype")


def _reader(name: str, option: Option) -> Callable[[str, Any], Any]:
    """What makes of an option's value in a group the one in the settings."""
    if name == "lr":
        return learning_rate
    if option.type == "number":
        return number_or_none if option.none else at_least_zero
    if option.type == "flag":
        return tristate if option.none else flag
    return {"betas": pair, "coefficients": triple, "whole": whole}.get(option.type, as_it_is)


_SETTINGS = [
    (name, option) for name, option in IN_GROUPS.items() if name in Settings.__dataclass_fields__
]
_READ = [(name, _reader(name, option)) for name, option in _SETTINGS]
_RANGED = [(n, option) for n, option in _SETTINGS if option.type not in ("flag", "coefficients")]
