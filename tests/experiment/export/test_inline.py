"""A function that is called once, or is one statement, stands where it is called."""

from __future__ import annotations

import pytest

from mars_optim.experiment.export.inline import inlined


def test_statements_take_the_place_of_their_call() -> None:
    text = '''\
def scaled_(xs, factor, *, settings):
    """x <- f x."""
    # first of all
    for x in xs:
        x.mul_(factor)  # in place
    # and then
    return xs + [settings.last]


def step(ys, settings):
    ys = scaled_(ys, settings.lr, settings=settings)
    return ys
'''
    assert (
        inlined(text)
        == """\
def step(ys, settings):
    # x <- f x
    # first of all
    for x in ys:
        x.mul_(settings.lr)  # in place
    # and then
    ys = ys + [settings.last]
    return ys
"""
    )


def test_expression_takes_the_place_of_its_call() -> None:
    text = "def half(x):\n    return x / 2\n\n\ndef f(a):\n    return 3 - half(a + 1)\n"
    assert inlined(text) == "def f(a):\n    return 3 - ((a + 1) / 2)\n"


def test_one_expression_takes_the_place_of_every_call() -> None:
    text = (
        "def g(b, t):\n    return 1 - b**t\n\n\ny = [g(2, t) ** 0.5 for t in x]\nz = 1 / g(3, y)\n"
    )
    assert inlined(text) == "y = [(1 - 2**t) ** 0.5 for t in x]\nz = 1 / (1 - 3**y)\n"


def test_one_statement_takes_the_place_of_every_call() -> None:
    text = "def g(x):\n    if x:\n        x.clear()\n\n\ng(a)\nh(a)\ng(b)\n"
    assert inlined(text) == "if a:\n    a.clear()\nh(a)\nif b:\n    b.clear()\n"


def test_function_within_a_function_goes_too() -> None:
    text = "def a(x):\n    return x.T\n\n\ndef b(x):\n    return a(x)\n\n\ny = b(z)\n"
    assert inlined(text) == "y = z.T\n"


FIRST = "def f(x):\n    two = x + x\n    return two\n\n\n"


def test_statements_go_above_an_expression_with_the_call_first() -> None:
    assert inlined(f"{FIRST}y = f(z).real(1).T\n") == "two = z + z\ny = two.real(1).T\n"


def test_name_that_the_call_sets_anyway_is_set_in_its_place() -> None:
    text = "def f(x):\n    low = x - 1\n    return low, x + low\n\n\nlow, high = f(z)\ng(low)\n"
    assert inlined(text) == "low = z - 1\nhigh = z + low\ng(low)\n"


NAMED_BEFORE = {
    "used twice": ("    g(x)\n    return x + x\n", "g(x)\ny = x + x\n"),
    "used after something else": ("    g(1)\n    return x\n", "g(1)\ny = x\n"),
    "used in each round": ("    return [x + i for i in w]\n", "y = [x + i for i in w]\n"),
}


@pytest.mark.parametrize("case", NAMED_BEFORE)
def test_what_must_be_computed_once_and_before_is_named(case: str) -> None:
    body, made = NAMED_BEFORE[case]
    assert inlined(f"def f(x):\n{body}\n\ny = f(h(z))\n") == f"x = h(z)\n{made}"


STAY = {
    "twice": "def f(x):\n    x = x + 1\n    return x\n\n\na = f(1)\nb = f(2)\n",
    "twice, once as a value": "def f(x):\n    return x\n\n\ny = map(f, f(z))\n",
    "within itself": "def f(x):\n    return x + x\n\n\ny = f(f(z))\n",
    "not called": "def f(x):\n    return x\n\n\ny = map(f, z)\n",
    "early return": "def f(x):\n    if x:\n        return 1\n    return 2\n\n\ny = f(z)\n",
    "generator": "def f(x):\n    yield x\n\n\ny = f(z)\n",
    "statements in an expression": "def f(x):\n    g(x)\n    return x\n\n\ny = 1 + f(z)\n",
    "a local name that is taken": (
        "def f(x):\n    t = g(x)\n    h(t)\n\n\ndef k(t):\n    f(t)\n    return t\n"
    ),
    "a parameter that is changed and read after": (
        "def f(x):\n    x = x + 1\n    h(x)\n\n\ndef k(x):\n    f(x)\n    return x\n"
    ),
    "a call behind another": f"{FIRST}y = h(k(), f(z))\n",
    "a local name that the rest of the statement reads": f"{FIRST}two = f(z).plus(two)\n",
    "a default that is not given": "def f(x, y=2):\n    return x + y\n\n\nz = f(1)\n",
    "itself": "def f(x):\n    return f(x)\n",
}


@pytest.mark.parametrize("case", STAY)
def test_function_stays_where_the_text_would_mean_something_else(case: str) -> None:
    assert inlined(STAY[case]) == STAY[case]


def test_no_line_grows_too_long() -> None:
    wide = " + ".join(["x"] * 25)
    text = f"def f(x):\n    return {wide}\n\n\nname = g(f(value))\n"
    assert inlined(text) == text
