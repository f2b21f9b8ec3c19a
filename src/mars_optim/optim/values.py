"""Numbers from users, schedulers and hosts, as Python's own; and checks of them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import did_you_mean
from ..optimizer_options import NS_SETS, Coefficients, Option, check_choice
from .blocks import Split

# A schedule that ends at 0 may end this far below it by rounding (torch's LinearLR: -1e-20).
ROUNDING = 1e-12


def check_number(
    name: str, value: object, *, low: float, above: bool = False, hint: str = ""
) -> None:
    """Raise ValueError unless ``value`` is a finite number >= ``low`` (> with ``above``)."""
    real = number(name, value)
    finite = -math.inf < real < math.inf  # torch.compile cannot trace math.isfinite
    if finite and (real > low if above else real >= low):
        return
    bound = f"a finite number {'above' if above else 'of at least'} {low:g}"
    raise ValueError(f"{name}={value!r} must be {bound}" + (f" ({hint})" if hint else ""))


def is_auto(name: str, value: object, numbers: str) -> bool:
    """Whether it is the word "auto"; where it is another, ValueError names the ``numbers``, too."""
    if isinstance(value, str) and value != "auto":
        hint = did_you_mean(value, ("auto",))
        raise ValueError(f"{name}={value!r} must be 'auto' or {numbers}{hint}")
    return isinstance(value, str)


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


def coefficients(name: str, value: object) -> str | Coefficients | tuple[Coefficients, ...]:
    """``value`` as the name of a set, as three floats, or as three floats for each step."""
    if isinstance(value, str):
        check_choice(name, value, NS_SETS)
        return value
    rows = list(cast(Any, value)) if hasattr(value, "__iter__") else []
    if rows and all(map(_is_row, rows)):
        return tuple(_triple(name, row) for row in rows)
    return _triple(name, value)


def _is_row(value: object) -> bool:
    try:
        return not isinstance(value, str) and len(cast(Any, value)) == 3
    except TypeError:
        return False


def _triple(name: str, value: object) -> Coefficients:
    try:
        a, b, c = (float(number(name, x)) for x in cast(Any, value))
        if not all(map(math.isfinite, (a, b, c))):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}={value!r} must be three numbers (a, b, c), all finite, three for each step, "
            f"or one of {', '.join(map(repr, NS_SETS))}"
        ) from None
    return a, b, c


def check_option(name: str, value: Any, option: Option) -> None:
    """Raise ValueError for a value that is out of the option's range."""
    if value is None and option.none:
        return
    if option.type == "choice":
        check_choice(name, value, option.choices)
    elif option.type == "betas":
        for i, beta in enumerate(pair(name, value)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"{name}[{i}]={beta!r} must be in [0, 1)")
    elif option.type == "number":
        if not (name in ("lr", "gamma") and isinstance(value, Tensor)):  # reading it would wait
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
        coefficients(name, value)
    elif option.type == "split":
        Split.of(name, value)
    elif not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise ValueError(f"{name}={value!r} must be None or a floating torch.dtype")
