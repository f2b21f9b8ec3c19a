"""The documented arguments and defaults are those of the signatures."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from mars_optim import MARS, param_groups

ARGUMENT = re.compile(r"^        (\w+): ", re.MULTILINE)
DEFAULT = re.compile(r"\(default:\s+(\([^)]*\)|[^,):]+)")


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """Text of the section ``Args`` on each argument."""
    doc = (function.__doc__ or "").partition("    Args:\n")[2]
    doc = re.split(r"^    (?:Returns|Raises):", doc, maxsplit=1, flags=re.MULTILINE)[0]
    _, *pieces = ARGUMENT.split(doc)
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


@pytest.mark.parametrize("function", [MARS, param_groups], ids=["MARS", "param_groups"])
def test_docstring_lists_every_argument_in_signature_order(
    function: Callable[..., Any],
) -> None:
    assert list(documented(function)) == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("function", [MARS, param_groups], ids=["MARS", "param_groups"])
def test_documented_default_is_the_default(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    stated = {name: DEFAULT.search(text) for name, text in documented(function).items()}
    assert sum(match is not None for match in stated.values()) >= 12
    for name, match in stated.items():
        if match is not None:
            assert ast.literal_eval(match[1]) == parameters[name].default, name
