"""Options of a transformation, checked by the ranges of the one table of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..optimizer_options import (
    AUTO_GAMMA,
    CLASHES,
    MATRIX_RULES,
    NS_SETS,
    TABLE,
    Clip,
    ClipOver,
    Coefficients,
    Correction,
    Rule,
    check_choice,
    polynomials,
)

Scalar = ArrayLike
Schedule = Callable[[Any], Any]
Gamma = ArrayLike | Schedule | Literal["auto"]
Axis = Literal["first", "last"]
Dtype = Any


class Options(NamedTuple):
    """Options of :func:`.scale_by_mars`, with "auto" and None resolved.

    The numbers may be traced: ``optax.inject_hyperparams`` makes the transformation in each step.
    """

    b1: Scalar
    b2: Scalar
    eps: Scalar
    amsgrad: bool
    cautious: bool
    split: Any  # Splits of blocks.py, or None
    rule: Rule
    gamma: Scalar | Schedule
    chooses: bool
    correction: Correction
    clip: Scalar | None
    clip_over: ClipOver
    polynomials: tuple[Coefficients, ...]
    ns_dtype: Dtype
    output_axis: Axis
    stacked: bool
    state_dtype: Dtype
    last_grad_dtype: Dtype

    @property
    def corrects(self) -> bool:
        """Whether there is a correction; a gamma that is not known yet counts as one."""
        return not (isinstance(self.gamma, int | float) and self.gamma == 0)

    @property
    def keeps_grad(self) -> bool:
        """Whether the last step's gradient is kept."""
        return self.correction == "approx" and self.corrects

    @property
    def folds(self) -> bool:
        """Whether the correction is folded into the momentum."""
        return self.correction == "folded" and self.corrects


def resolved(
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    amsgrad: bool,
    rule: Rule,
    gamma: Gamma,
    correction: Correction | None,
    clip: Clip | jax.Array,
    clip_over: ClipOver,
    ns_steps: int | None,
    ns_coefficients: str | Coefficients | tuple[Coefficients, ...],
    output_axis: Axis,
    **others: Any,
) -> Options:
    """The options, checked, with what "auto" and None stand for.

    Raises:
        ValueError: naming the argument, its value, the allowed range and the way out.
    """
    for name in ("rule", "correction", "clip_over"):
        value = {"rule": rule, "correction": correction, "clip_over": clip_over}[name]
        if not (name == "correction" and value is None):
            check_choice(name, value, TABLE[name].choices)
    check_choice("output_axis", output_axis, ("first", "last"))
    for name in ("cautious", "stacked"):
        check_flag(name, others[name])
    check_flag("amsgrad", amsgrad)
    for name in ("ns_dtype", "state_dtype", "last_grad_dtype"):
        check_dtype(name, others[name])
    check_beta("b1", b1)
    check_beta("b2", b2)
    check_number("eps", eps, "eps")
    if amsgrad and rule != "adamw":
        message = CLASHES["amsgrad", (True,), "rule", ("lion", *MATRIX_RULES)]
        raise ValueError(message.format(value=amsgrad, other=rule))
    chooses = isinstance(gamma, str)
    if chooses and gamma == "least_error":
        raise ValueError(
            "gamma='least_error' is not in JAX: use 'auto', a number of at least 0, or a schedule"
        )
    if chooses and gamma != "auto":
        raise ValueError(f"gamma={gamma!r} must be 'auto', a number of at least 0, or a schedule")
    check_number("gamma", AUTO_GAMMA if chooses else gamma, "gamma")
    correction = correction or ("folded" if chooses else "approx")
    if chooses and correction != "folded":
        raise ValueError(
            f"gamma='auto' needs correction='folded', not {correction!r}: in other forms "
            "gamma also acts on the second moment and the clip"
        )
    if chooses and isinstance(b1, int | float) and b1 == 0:
        raise ValueError("gamma='auto' needs b1 above 0: without momentum there is no lag")
    if isinstance(clip, str):
        if clip != "auto":
            raise ValueError(f"clip={clip!r} must be 'auto', a number above 0, or None")
        clip = None if correction == "folded" else 1.0
    check_number("clip", clip, "clip")
    if correction == "folded" and clip is not None:
        message = CLASHES["clip", (), "correction", ("folded",)]
        raise ValueError(message.format(value=clip, other=correction))
    return Options(
        b1=b1,
        b2=b2,
        eps=eps,
        amsgrad=amsgrad,
        rule=rule,
        gamma=AUTO_GAMMA if chooses else cast(Any, gamma),
        chooses=chooses,
        correction=correction,
        clip=cast(Any, clip),
        clip_over=clip_over,
        polynomials=checked_polynomials(ns_steps, ns_coefficients),
        output_axis=output_axis,
        **others,
    )


def check_number(argument: str, value: Any, option: str) -> None:
    """Raise ValueError for a number that is out of the range of a row of the table.

    Schedules and JAX's arrays are left alone: their values are not known yet.
    """
    row = TABLE[option]
    if callable(value) or _unknown(value) or (value is None and row.none):
        return
    known = _python(value)
    if not isinstance(known, Real) or isinstance(known, bool):
        raise ValueError(f"{argument}={value!r} must be a number, not {type(value).__name__}")
    low, real = row.low if row.above is None else row.above, float(known)
    assert low is not None
    if math.isfinite(real) and (real >= low if row.above is None else real > low):
        return
    bound = f"a finite number {'of at least' if row.above is None else 'above'} {low:g}"
    raise ValueError(f"{argument}={known!r} must be {bound}" + f" ({row.hint})" * bool(row.hint))


def check_beta(argument: str, value: Any) -> None:
    """Raise ValueError for a decay that is known and not in [0, 1)."""
    if callable(value) or _unknown(value):
        return
    known = _python(value)
    if not isinstance(known, Real) or isinstance(known, bool) or not 0.0 <= float(known) < 1.0:
        raise ValueError(f"{argument}={known!r} must be a number in [0, 1)")


def check_flag(argument: str, value: Any) -> None:
    """Raise ValueError unless it is a bool, of Python or of an array."""
    if not (isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_):
        raise ValueError(f"{argument}={value!r} must be True or False")


def check_dtype(argument: str, value: Any) -> None:
    """Raise ValueError unless it is None or a floating dtype."""
    try:
        fits = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"{argument}={value!r} must be None or a floating dtype, such as jnp.bfloat16"
        )


def _unknown(value: Any) -> bool:
    """Whether it is an array of JAX's, perhaps traced, or one of several numbers."""
    numpys = isinstance(value, np.generic | np.ndarray)
    return hasattr(value, "dtype") and not (numpys and value.size == 1)


def _python(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if hasattr(value, "dtype") else value


def checked_polynomials(steps: int | None, coefficients: Any) -> tuple[Coefficients, ...]:
    """(a, b, c) of each step of Newton-Schulz."""
    row = TABLE["ns_steps"]
    steps = row.default if steps is None else steps
    if type(steps) is not int or not (row.low or 0) <= steps <= (row.high or math.inf):
        raise ValueError(
            f"ns_steps={steps!r} must be a whole number from {row.low} to {row.high}, and static "
            "under inject_hyperparams: static_args=('ns_steps',)"
        )
    if isinstance(coefficients, str):
        check_choice("ns_coefficients", coefficients, NS_SETS)
        return polynomials(coefficients, steps)
    rows = _items(coefficients)
    if rows and all(len(_items(row)) == 3 for row in rows):
        return polynomials(tuple(_triple(row) for row in rows), steps)
    return polynomials(_triple(coefficients), steps)


def _items(value: Any) -> tuple[Any, ...]:
    """Its items; none where it is a word or has none."""
    try:
        return () if isinstance(value, str) else tuple(value)
    except TypeError:
        return ()


def _triple(value: Any) -> Coefficients:
    items = _items(value)
    known = [_python(x) for x in items if not _unknown(x)]
    numbers = all(isinstance(x, Real) and math.isfinite(x) for x in known)
    if len(items) != 3 or not numbers:
        raise ValueError(
            f"ns_coefficients={value!r} must be three numbers (a, b, c), all finite, three for "
            f"each step, or one of {', '.join(map(repr, NS_SETS))}"
        )
    return cast(Coefficients, items)


def wide(dtype: Dtype) -> Dtype:
    """Dtype for the arithmetic of arrays of this dtype: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def like(value: Scalar, array: jax.Array) -> Scalar:
    """A number that does not widen the array; Python's own never does."""
    return value if isinstance(value, int | float) else jnp.asarray(value, array.dtype)


def debias(decay: Scalar, count: jax.Array) -> jax.Array:
    """1 - decay^t, without the rounding of a difference where decay is near 1."""
    log = math.log(decay) if isinstance(decay, int | float) and decay else jnp.log(decay)
    return -jnp.expm1(jnp.asarray(count, precise()) * log)


def precise() -> Dtype:
    """The dtype of numbers that are kept once: float64 where JAX has it."""
    return jnp.result_type(float)
