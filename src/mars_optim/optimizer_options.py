"""Every option of the optimizers, once: what it is, its type, default and range, what it goes with.

``MARS``, its settings and groups, ``describe()`` and the pilot's arms read it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Rule = Literal["adamw", "lion", "shampoo", "muon"]
Correction = Literal["approx", "exact", "folded"]
ClipOver = Literal["tensor", "global"]
Clip = float | Literal["auto"] | None
GammaSchedule = Literal["constant", "lr", "sqrt_lr", "auto", "least_error"]

RULES: tuple[str, ...] = get_args(Rule)
CORRECTIONS: tuple[str, ...] = get_args(Correction)
MATRIX_RULES = ("shampoo", "muon")
BY_LR = ("lr", "sqrt_lr")  # schedules that follow the learning rate
CHOSEN = ("auto", "least_error")  # schedules that choose gamma by the gradients
GAMMA_FORMS = {"auto": ("folded",), "least_error": ("approx", "folded")}  # corrections of these

PUBLISHED_GAMMA = 0.025
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of an optimizer.

    Args:
        type: of its value.
        default: the constructor's; "auto" and, where ``none`` does not allow it, None stand for
            what the constructor makes of the other options.
        text: what it is, in a line.
        low: least value.
        above: what a number must be greater than.
        below: what a number must be less than.
        high: greatest value.
        hint: added to the error of a number that is out of range.
        choices: allowed words.
        none: whether None is a value.
        kept: whether groups keep it; what they do not keep says how vectors are split off.
    """

    type: Literal["number", "betas", "coefficients", "whole", "flag", "choice", "dtype"]
    default: Any
    text: str
    low: float | None = None
    above: float | None = None
    below: float | None = None
    high: float | None = None
    hint: str = ""
    choices: tuple[str, ...] = ()
    none: bool = False
    kept: bool = True


def _number(default: Any, text: str, *, low: float | None = 0.0, **rest: Any) -> Option:
    return Option(type="number", default=default, text=text, low=low, **rest)


def _betas(default: tuple[float, float], text: str, **rest: Any) -> Option:
    return Option(type="betas", default=default, text=text, low=0.0, below=1.0, **rest)


def _choice(default: str | None, words: Any, text: str) -> Option:
    return Option(type="choice", default=default, choices=get_args(words), text=text)


def _flag(text: str, default: bool | None = False) -> Option:
    return Option(type="flag", default=default, text=text, none=default is None)


def _dtype(text: str) -> Option:
    return Option(type="dtype", default=None, text=text, none=True)


_OWN = "None takes the group's own"

TABLE: dict[str, Option] = {
    "lr": _number(3e-3, "learning rate"),
    "betas": _betas((0.95, 0.99), "decay of the first and of the second moment"),
    "eps": _number(1e-8, "added to the root of the second moment"),
    "weight_decay": _number(0.01, "decoupled, times lr"),
    "amsgrad": _flag("divide by the running maximum of the second moment"),
    "rule": _choice(None, Rule, "from momentum to a step; without one the class's own"),
    "gamma": _number(
        PUBLISHED_GAMMA, "scale of the correction", hint="0 switches the correction off"
    ),
    "gamma_schedule": _choice(
        "constant",
        GammaSchedule,
        'gamma over the run: "constant", with the learning rate ("lr", "sqrt_lr"), or chosen in it '
        'by the next gradient ("auto") or the least error of the momentum ("least_error")',
    ),
    "clip": _number(
        "auto",
        "largest norm of c_t per tensor",
        low=None,
        above=0.0,
        hint="None switches it off",
        none=True,
    ),
    "clip_over": _choice(
        "tensor", ClipOver, 'norm that the clip looks at: each "tensor"\'s, or "global"'
    ),
    "cautious": _flag("step only where the direction agrees with the gradient in sign"),
    "correction": _choice(None, Correction, '"approx", "folded" or "exact" (a second pass a step)'),
    "optimize_1d": _flag("give tensors with fewer than two dimensions the rule and correction too"),
    "lr_1d": _number(None, "learning rate of vectors", hint=_OWN, none=True, kept=False),
    "betas_1d": _betas((0.9, 0.95), "betas of vectors", kept=False),
    "weight_decay_1d": _number(None, "decay of vectors", hint=_OWN, none=True, kept=False),
    "maximize": _flag("ascend"),
    "foreach": _flag("multi-tensor arithmetic, or the plain loop", None),
    "fused": _flag("a fused kernel, or none", None),
    "ns_steps": Option(type="whole", default=5, text="Newton-Schulz iterations", low=1, high=99),
    "ns_coefficients": Option(
        type="coefficients", default=NS_COEFFICIENTS, text="of the polynomial of Newton-Schulz"
    ),
    "state_dtype": _dtype("of moments and stored gradient"),
    "last_grad_dtype": _dtype("of the stored gradient alone"),
    "stochastic_rounding": _flag("round steps of bfloat16 parameters up or down by chance"),
    "capturable": _flag("keep step counters beside the parameters, for CUDA graphs"),
}

GROUP_ONLY = {"stacked": _flag("leading dimensions are a batch of matrices, one for each expert")}
"""What groups may have and the constructor has no argument for."""

IN_GROUPS: dict[str, Option] = {k: o for k, o in TABLE.items() if o.kept} | GROUP_ONLY
"""What every group of an optimizer has, and its settings are made of."""


CLASHES: dict[tuple[str, tuple[Any, ...], str, tuple[Any, ...]], str] = {
    ("foreach", (True,), "fused", (True,)): (
        "foreach={value!r} and fused={other!r} exclude each other: give one of them"
    ),
    ("amsgrad", (True,), "rule", ("lion", *MATRIX_RULES)): (
        "amsgrad={value!r} needs rule='adamw', not rule={other!r}"
    ),
    ("clip", (), "correction", ("folded",)): (
        "clip={value!r} cannot be used with correction={other!r}, which keeps no gradient to clip: "
        "leave clip out (or None), or use correction='approx'"
    ),
    ("gamma_schedule", (*BY_LR, *CHOSEN), "capturable", (True,)): (
        "gamma_schedule={value!r} cannot be used with capturable={other!r}: a CUDA graph holds one "
        "gamma. Use gamma_schedule='constant'"
    ),
    ("gamma_schedule", CHOSEN, "correction", ("exact",)): (
        "gamma_schedule={value!r} weighs the noise of two batches, and correction={other!r} has "
        "that of one: use 'lr', 'sqrt_lr' or a number"
    ),
}
"""An option, values of it (none: all but None), another, values of that: they cannot go together.

Each with what is said then, ``{value}`` and ``{other}`` being the two."""


def check_together(options: Any) -> None:
    """Raise ValueError for options, attributes of one object, that cannot go together."""
    for (name, values, of, others), message in CLASHES.items():
        value, other = getattr(options, name), getattr(options, of)
        if other in others and (value in values if values else value is not None):
            raise ValueError(message.format(value=value, other=other))
