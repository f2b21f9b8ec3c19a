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
MATRIX_RULES = ("shampoo", "muon")
BY_LR = ("lr", "sqrt_lr")  # schedules that follow the learning rate
CHOSEN = ("auto", "least_error")  # schedules that choose gamma by the gradients
GAMMA_FORMS = {"auto": ("folded",), "least_error": ("approx", "folded")}  # corrections of these

PUBLISHED_GAMMA = 0.025
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an optimizer.

    Args:
        type: of its value; "betas" are two numbers in [0, 1), "coefficients" three.
        default: the constructor's; "auto" and, where ``none`` does not allow it, None stand for
            what the constructor makes of the other options.
        text: what it is, in a line.
        choices: allowed words.
        low: least value.
        above: what a number must be greater than.
        high: greatest value.
        hint: added to the error of a number that is out of range.
        none: whether None is a value.
        kept: whether groups keep it; what they do not keep says how vectors are split off.
    """

    type: Literal["number", "betas", "coefficients", "whole", "flag", "choice", "dtype"]
    default: Any
    text: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None
    hint: str = ""
    none: bool = False
    kept: bool = True


_OWN: dict[str, Any] = dict(hint="None takes the group's own", none=True, kept=False)

TABLE: dict[str, Option] = {
    "lr": Option("number", 3e-3, "learning rate", low=0.0),
    "betas": Option("betas", (0.95, 0.99), "decay of the first and of the second moment"),
    "eps": Option("number", 1e-8, "added to the root of the second moment", low=0.0),
    "weight_decay": Option("number", 0.01, "decoupled, times lr", low=0.0),
    "amsgrad": Option("flag", False, "divide by the running maximum of the second moment"),
    "rule": Option("choice", None, "from momentum to a step; None is the class's own", RULES),
    "gamma": Option(
        "number",
        PUBLISHED_GAMMA,
        "scale of the correction",
        low=0.0,
        hint="0 switches the correction off",
    ),
    "gamma_schedule": Option(
        "choice",
        "constant",
        'gamma over the run: "constant", with the learning rate ("lr", "sqrt_lr"), or chosen in it '
        'by the next gradient ("auto") or the least error of the momentum ("least_error")',
        get_args(GammaSchedule),
    ),
    "clip": Option(
        "number",
        "auto",
        "largest norm of c_t per tensor",
        above=0.0,
        hint="None switches it off",
        none=True,
    ),
    "clip_over": Option(
        "choice",
        "tensor",
        'norm that the clip looks at: each "tensor"\'s, or "global"',
        get_args(ClipOver),
    ),
    "cautious": Option(
        "flag", False, "step only where the direction agrees with the gradient in sign"
    ),
    "correction": Option(
        "choice", None, '"approx", "folded" or "exact" (a second pass a step)', get_args(Correction)
    ),
    "optimize_1d": Option("flag", False, "give vectors the rule and the correction too"),
    "lr_1d": Option("number", None, "learning rate of vectors", low=0.0, **_OWN),
    "betas_1d": Option("betas", (0.9, 0.95), "betas of vectors", kept=False),
    "weight_decay_1d": Option("number", None, "decay of vectors", low=0.0, **_OWN),
    "maximize": Option("flag", False, "ascend"),
    "foreach": Option("flag", None, "multi-tensor arithmetic, or the plain loop", none=True),
    "fused": Option("flag", None, "a fused kernel, or none", none=True),
    "ns_steps": Option("whole", 5, "Newton-Schulz iterations", low=1, high=99),
    "ns_coefficients": Option("coefficients", NS_COEFFICIENTS, "of Newton-Schulz's polynomial"),
    "state_dtype": Option("dtype", None, "of moments and stored gradient", none=True),
    "last_grad_dtype": Option("dtype", None, "of the stored gradient alone", none=True),
    "stochastic_rounding": Option("flag", False, "round steps of bfloat16 by chance"),
    "capturable": Option("flag", False, "keep step counters beside the parameters"),
}

IN_GROUPS: dict[str, Option] = {
    **{name: option for name, option in TABLE.items() if option.kept},
    "stacked": Option("flag", False, "leading dimensions are a batch of matrices (experts)"),
}
"""What every group of an optimizer has, and its settings are made of: ``stacked`` too, for which
the constructor has no argument."""

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
