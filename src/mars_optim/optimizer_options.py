"""Every option of the optimizers, once: what it is, its type, default and range, what it goes with.

``MARS``, its settings and groups, ``describe()`` and the pilot's arms read it. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from .errors import did_you_mean

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
AUTO_GAMMA = 0.1  # from which gamma="auto" begins, as in the runs that measured it
Coefficients = tuple[float, float, float]
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _safe(*rows: Coefficients) -> tuple[Coefficients, ...]:
    """Polynomials of x / 1.01: a value that rounding puts above the greatest stays below it."""
    return tuple((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in rows)


_CUBING = (1.875, -1.25, 0.375)  # Newton-Schulz's own of degree 5: near 1 it cubes the error
NS_SETS: dict[str, tuple[Coefficients, ...]] = {
    "simple": (NS_COEFFICIENTS,),
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (
        *_safe(
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
            (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
            (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        ),
        _CUBING,
    ),
    "cans": (
        *_safe(
            (8.4703, -25.1081, 18.6293),
            (4.1828, -3.1087, 0.5806),
            (3.9619, -2.9541, 0.5630),
            (3.2866, -2.4647, 0.5074),
            (2.2737, -1.6447, 0.4162),
            (1.8887, -1.2652, 0.3765),
        ),
        _CUBING,
    ),
    "deepseek_v4": (*[NS_COEFFICIENTS] * 8, *[(2.0, -1.5, 0.5)] * 2),
}
"""(a, b, c) of each step of Newton-Schulz; the last one is repeated where there are more steps.

- "simple": Keller Jordan's, steepest at 0; values end in about [0.7, 1.2].
- "quintic": You Jiacheng's five (modded-nanogpt), by Emerging-Optimizers' name for them.
- "polar_express": arXiv 2505.16932, Alg. 1, with its division of x by 1.01.
- "cans": arXiv 2506.10935, on [1e-3, 1]: five as in Emerging-Optimizers, and a sixth of our own
  from the same program. Also of x / 1.01: as published it diverges in bfloat16.
- "deepseek_v4": eight steps of "simple", then two that bring the values to 1; all ten are needed,
  as Emerging-Optimizers quotes the report of DeepSeek-V4.

The minimax program in the tests makes "polar_express" and "cans" anew, to their last digits.
"""


def polynomials(value: Any, steps: int) -> tuple[Coefficients, ...]:
    """(a, b, c) of each of so many steps: of a set or list the last one is repeated.

    Args:
        value: three numbers, three for each step, or a name of :data:`NS_SETS`.
        steps: how many.

    Raises:
        ValueError: for more polynomials than steps, where all of them are needed.
    """
    rows: tuple[Any, ...] = NS_SETS[value] if isinstance(value, str) else value
    if not isinstance(rows[0], tuple):
        return (cast(Coefficients, rows),) * steps
    if len(rows) > steps and (value == "deepseek_v4" or not isinstance(value, str)):
        raise ValueError(
            f"ns_steps={steps} leaves out some of the {len(rows)} polynomials of "
            f"ns_coefficients={value!r}: give ns_steps={len(rows)}"
        )
    return (*rows, *[rows[-1]] * steps)[:steps]


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

    type: Literal["number", "betas", "coefficients", "whole", "flag", "choice", "dtype", "split"]
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
        'norm that the clip uses: of each "tensor", or "global"',
        get_args(ClipOver),
    ),
    "cautious": Option("flag", False, "step only where direction and gradient have the same sign"),
    "correction": Option(
        "choice", None, '"approx", "folded" or "exact" (a second pass a step)', get_args(Correction)
    ),
    "optimize_1d": Option("flag", False, "give vectors the rule and the correction too"),
    "lr_1d": Option("number", None, "learning rate of vectors", low=0.0, **_OWN),
    "lr_1d_ratio": Option("number", None, "the same as a multiple of lr", low=0.0, **_OWN),
    "betas_1d": Option("betas", (0.9, 0.95), "betas of vectors", kept=False),
    "weight_decay_1d": Option("number", None, "decay of vectors", low=0.0, **_OWN),
    "maximize": Option("flag", False, "ascend"),
    "foreach": Option("flag", None, "multi-tensor arithmetic, or the plain loop", none=True),
    "fused": Option("flag", None, "a fused kernel, or none", none=True),
    "ns_steps": Option("whole", 5, "Newton-Schulz iterations", low=1, high=99),
    "ns_coefficients": Option(
        "coefficients",
        NS_COEFFICIENTS,
        "of Newton-Schulz's polynomial, the name of a set, or one for each step",
        tuple(NS_SETS),
    ),
    "state_dtype": Option("dtype", None, "of moments and stored gradient", none=True),
    "last_grad_dtype": Option("dtype", None, "of the stored gradient alone", none=True),
    "stochastic_rounding": Option("flag", False, "round steps of bfloat16 by chance"),
    "capturable": Option("flag", False, "keep step counters beside the parameters"),
}

IN_GROUPS: dict[str, Option] = {
    **{name: option for name, option in TABLE.items() if option.kept},
    "lr_ratio": Option("number", 1.0, "what lr is multiplied by in each step", low=0.0),
    "stacked": Option("flag", False, "leading dimensions are a batch of matrices (experts)"),
    "split": Option(
        "split", None, "blocks of each matrix that are matrices of their own", none=True
    ),
}
"""Options in every group of an optimizer, from which its settings are made: ``lr_ratio``,
``stacked`` and ``split`` too, for which the constructor has no argument."""

CLASHES: dict[tuple[str, tuple[Any, ...], str, tuple[Any, ...]], str] = {
    ("foreach", (True,), "fused", (True,)): (
        "foreach={value!r} and fused={other!r} exclude each other: give one of them"
    ),
    ("amsgrad", (True,), "rule", ("lion", *MATRIX_RULES)): (
        "amsgrad={value!r} needs rule='adamw', not rule={other!r}"
    ),
    ("clip", (), "correction", ("folded",)): (
        "clip={value!r} cannot be combined with correction={other!r}, which keeps no gradient to "
        "clip: leave clip out (or None), or use correction='approx' with a number as gamma"
    ),
    ("gamma_schedule", CHOSEN, "correction", ("exact",)): (
        "gamma_schedule={value!r} compares the noise of two batches, and correction={other!r} "
        "has the noise of one: use 'lr', 'sqrt_lr' or a number"
    ),
}
"""An option, values of it (none: all but None), another, values of that: they cannot go together.

Each with what is said then, ``{value}`` and ``{other}`` being the two."""


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``, suggesting the nearest."""
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return
    words = ", ".join(map(repr, allowed))
    raise ValueError(f"{name}={value!r} must be one of {words}{did_you_mean(value, allowed)}")


def check_together(options: Any) -> None:
    """Raise ValueError for options, attributes of one object, that cannot go together."""
    for (name, values, of, others), message in CLASHES.items():
        value, other = getattr(options, name), getattr(options, of)
        if other in others and (value in values if values else value is not None):
            raise ValueError(message.format(value=value, other=other))


NAMED: dict[str, dict[str, Any]] = {
    # AdamW with Nesterov momentum at constant beta1: folded MARS at gamma = 1 - beta1
    "nadamw": dict(
        lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.1, clip=None, correction="folded"
    ),
    "nadamw-auto": dict(
        lr=1e-3,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        gamma=0.1,
        clip=None,
        correction="folded",
        gamma_schedule="auto",
    ),
    "mars-adamw": dict(),
    "mars-adamw-exact": dict(correction="exact"),
    # in the form whose gamma can change without changing the length of the steps
    "mars-adamw-auto": dict(lr=1e-3, clip=None, correction="folded", gamma_schedule="auto"),
    # highest where the learning rate is: in the published grid, and four times the default
    "mars-adamw-decay": dict(gamma=0.1, gamma_schedule="lr"),
    "mars-adamw-cautious": dict(cautious=True),
    "mars-adamw-clip-all": dict(clip_over="global"),
    # C-AdamW of "Cautious Optimizers", with AdamW's defaults
    "cautious-adamw": dict(
        lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.0, clip=None, cautious=True
    ),
    # Lion(0.9, 0.99): folded MARS-Lion at beta 0.99, gamma = (0.99 - 0.9) / 0.99
    "lion": dict(
        rule="lion",
        lr=3e-4,
        betas=(0.99, 0.99),
        weight_decay=0.3,
        gamma=1 / 11,
        clip=None,
        correction="folded",
    ),
    "mars-lion": dict(rule="lion", lr=3e-4, weight_decay=0.1),
    # Muon(momentum 0.95, Nesterov): folded MARS-M at gamma = 0.05
    "muon": dict(
        rule="muon", lr=6e-3, weight_decay=0.1, gamma=0.05, clip=None, correction="folded"
    ),
    "mars-m": dict(rule="muon", lr=6e-3, weight_decay=0.1),
    # the same with queries, keys and values as matrices of their own
    "muon-split": dict(
        rule="muon",
        lr=6e-3,
        weight_decay=0.1,
        gamma=0.05,
        clip=None,
        correction="folded",
        split="fused",
    ),
    "mars-m-split": dict(rule="muon", lr=6e-3, weight_decay=0.1, split="fused"),
    "mars-shampoo": dict(rule="shampoo", lr=3e-3),
}
"""Ready settings by name, published defaults but where a line says so; the rest is as in TABLE."""
