"""What one parameter group asks for, checked once and read at every step."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

Rule = Literal["adamw", "lion", "shampoo", "muon"]
Correction = Literal["approx", "exact", "folded"]
ClipOver = Literal["tensor", "all"]
GammaSchedule = Literal["constant", "lr", "sqrt_lr", "auto", "least_error"]

RULES: tuple[str, ...] = get_args(Rule)
CORRECTIONS: tuple[str, ...] = get_args(Correction)
CLIP_OVER: tuple[str, ...] = get_args(ClipOver)
GAMMA_SCHEDULES: tuple[str, ...] = get_args(GammaSchedule)
MATRIX_RULES = ("shampoo", "muon")
CHOSEN = ("auto", "least_error")  # schedules that choose gamma by the gradients

PUBLISHED_GAMMA = 0.025
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# The keys of a parameter group that mars-optim owns. Hosts add their own (``initial_lr``, ...).
GROUP_KEYS = frozenset(
    "params param_names rule lr betas eps weight_decay amsgrad gamma clip clip_over correction "
    "cautious maximize foreach fused ns_steps ns_coefficients stacked optimize_1d "
    "gamma_schedule gamma_now gamma_steps gamma_sums lr_peak "
    "lr_1d betas_1d weight_decay_1d state_dtype last_grad_dtype stochastic_rounding capturable "
    "kind why".split()
)
# Keys that hosts and schedulers are known to add and that look like typos of ours.
HOST_KEYS = frozenset("initial_lr max_lr min_lr base_lr lr_scale momentum".split())


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
    stacked: bool = False
    state_dtype: torch.dtype | None = None
    last_grad_dtype: torch.dtype | None = None
    stochastic_rounding: bool = False
    capturable: bool = False

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_choice("correction", self.correction, CORRECTIONS)
        check_choice("clip_over", self.clip_over, CLIP_OVER)
        check_choice("gamma_schedule", self.gamma_schedule, GAMMA_SCHEDULES)
        if not isinstance(self.lr, Tensor):
            check_number("lr", self.lr, low=0.0)
        check_number("eps", self.eps, low=0.0)
        check_number("weight_decay", self.weight_decay, low=0.0)
        check_number("gamma", self.gamma, low=0.0, hint="0 switches the correction off")
        check_betas("betas", self.betas)
        if self.clip is not None:
            check_number("clip", self.clip, low=0.0, above=True, hint="None switches it off")
            if self.correction == "folded":
                raise ValueError(
                    f"clip={self.clip!r} cannot be used with correction='folded', which keeps no "
                    "gradient to clip: leave clip out (or None), or use correction='approx'"
                )
        if self.gamma_schedule != "constant":
            self._check_schedule()
        if self.amsgrad and self.rule != "adamw":
            raise ValueError(f"amsgrad=True needs rule='adamw', not rule={self.rule!r}")
        for name in ("state_dtype", "last_grad_dtype"):
            dtype = getattr(self, name)
            if dtype is not None and not (
                isinstance(dtype, torch.dtype) and dtype.is_floating_point
            ):
                raise ValueError(f"{name}={dtype!r} must be None or a floating torch.dtype")
        for name in ("amsgrad", "cautious", "maximize", "stochastic_rounding", "capturable"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False")
        if type(self.ns_steps) is not int or not 1 <= self.ns_steps < 100:
            raise ValueError(f"ns_steps={self.ns_steps!r} must be a whole number from 1 to 99")

    @classmethod
    def from_group(cls, group: Mapping[str, Any]) -> Settings:
        """Read the settings of a resolved parameter group."""
        beta1, beta2 = pair("betas", group["betas"])
        if group["foreach"] and group["fused"]:
            raise ValueError("foreach=True and fused=True exclude each other: give one of them")
        return cls(
            rule=group["rule"],
            lr=learning_rate(group["lr"]),
            betas=(beta1, beta2),
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            gamma=gamma_of(group),
            clip=group["clip"],
            correction=group["correction"],
            clip_over=group["clip_over"],
            gamma_schedule=group["gamma_schedule"],
            cautious=group["cautious"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
            ns_steps=group["ns_steps"],
            ns_coefficients=triple("ns_coefficients", group["ns_coefficients"]),
            stacked=group["stacked"],
            state_dtype=group["state_dtype"],
            last_grad_dtype=group["last_grad_dtype"] or group["state_dtype"],
            stochastic_rounding=group["stochastic_rounding"],
            capturable=group["capturable"],
        )

    def _check_schedule(self) -> None:
        """Raise ValueError where gamma cannot change, or be chosen, in the run."""
        name = f"gamma_schedule={self.gamma_schedule!r}"
        if self.capturable:
            raise ValueError(
                f"{name} cannot be used with capturable=True: a CUDA graph holds one gamma. Use "
                "gamma_schedule='constant'"
            )
        if self.gamma_schedule in ("lr", "sqrt_lr"):
            if isinstance(self.lr, Tensor):
                raise ValueError(f"{name} reads lr at each step: give it as a number, or on a CPU")
            return
        if self.gamma_schedule == "auto" and self.correction != "folded" and self.gamma:
            raise ValueError(
                f"{name} needs correction='folded', not {self.correction!r}: there gamma acts on "
                "the step alone, elsewhere on the second moment and the clip too"
            )
        if self.correction == "exact":
            raise ValueError(
                f"{name} weighs the noise of two batches, and correction='exact' has that of one: "
                "use 'lr', 'sqrt_lr' or a number"
            )
        if self.betas[0] == 0.0:
            raise ValueError(f"{name} needs betas[0] above 0: without an average there is no lag")

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
        return self.clip is not None and self.clip_over == "all"

    @property
    def folds(self) -> bool:
        """Whether the correction is folded into the momentum."""
        return self.correction == "folded" and self.gamma != 0.0


def gamma_of(group: Mapping[str, Any]) -> float:
    """gamma_t of a group: what its schedule has made of ``gamma``, whose 0 switches it off."""
    gamma: float = group["gamma"]
    if group["gamma_schedule"] == "constant" or gamma == 0:
        return gamma
    return float(group.get("gamma_now", gamma))


def resolve_gamma(group: dict[str, Any]) -> None:
    """``gamma="auto"`` is ``gamma_schedule="auto"`` from the published gamma on."""
    if group.get("gamma") != "auto":
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
    if clip == "auto":
        return None if correction == "folded" else 1.0
    if isinstance(clip, str):
        raise ValueError(f"clip={clip!r} must be 'auto', None or a number above 0")
    return clip


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``, suggesting the nearest."""
    allowed = tuple(allowed)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}{hint}")


def check_number(
    name: str, value: object, *, low: float, above: bool = False, hint: str = ""
) -> None:
    """Raise ValueError unless ``value`` is a finite number >= ``low`` (> with ``above``)."""
    number(name, value)
    real = cast(float, value)
    if math.isfinite(real) and (real > low if above else real >= low):
        return
    bound = f"a finite number {'above' if above else 'of at least'} {low:g}"
    raise ValueError(f"{name}={real!r} must be {bound}" + (f" ({hint})" if hint else ""))


def number(name: str, value: object) -> float:
    """``value`` as a float; a one-element tensor counts, a bool or a string does not."""
    numel = getattr(value, "numel", None)
    if numel is not None and numel() == 1:
        return float(cast(Any, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}={value!r} must be a number, not {type(value).__name__}")
    return float(value)


def learning_rate(lr: object) -> float | Tensor:
    """As a number; a tensor stays one where reading it would wait for a device or end a graph."""
    if (
        isinstance(lr, Tensor)
        and lr.numel() == 1
        and (lr.device.type != "cpu" or torch.compiler.is_compiling())
    ):
        return lr
    return number("lr", lr)


def pair(name: str, value: object) -> tuple[float, float]:
    """``value`` as two floats."""
    try:
        first, second = cast(Any, value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be a pair of numbers (beta1, beta2)") from None
    return number(f"{name}[0]", first), number(f"{name}[1]", second)


def triple(name: str, value: object) -> tuple[float, float, float]:
    """``value`` as three floats."""
    try:
        a, b, c = (number(name, x) for x in cast(Any, value))
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be three numbers (a, b, c)") from None
    return a, b, c


def check_betas(name: str, betas: object) -> None:
    """Raise ValueError unless both betas lie in [0, 1)."""
    for i, beta in enumerate(pair(name, betas)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name}[{i}]={beta!r} must be in [0, 1)")


def check_group_keys(keys: Iterable[str]) -> None:
    """Raise ValueError for a group key that looks like a misspelling of one of ours.

    Keys unlike any of ours pass: hosts and schedulers keep their own data in groups.
    """
    for key in keys:
        if key in GROUP_KEYS or key in HOST_KEYS:
            continue
        near = difflib.get_close_matches(key, GROUP_KEYS, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"unknown key {key!r} in a parameter group; did you mean {near[0]!r}?")
