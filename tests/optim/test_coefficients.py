"""Sets of coefficients for Newton-Schulz: where they come from, and what they do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import coefficients
from mars_optim import MARS, MARSM
from mars_optim.optim.orthogonalize import newton_schulz
from mars_optim.optimizer_options import NS_COEFFICIENTS, NS_SETS, polynomials
from tests.support.cases import make_params, run

Triple = tuple[float, float, float]


def minimax(low: float, high: float) -> tuple[Triple, float]:
    """The odd polynomial of degree 5 that is nearest to 1 on [low, high], by Remez' exchange."""
    if 1 - low / high < 5e-6:  # where four points are one, the limit
        return (1.875 / high, -1.25 / high**3, 0.375 / high**5), 0.0
    inner = torch.tensor([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high], dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    a = b = c = error = 0.0
    for _ in range(60):
        x = torch.cat([inner.new_tensor([low]), inner, inner.new_tensor([high])])
        system = torch.stack([x, x**3, x**5, signs], 1)
        a, b, c, error = torch.linalg.solve(system, torch.ones_like(x)).tolist()
        root = (9 * b * b - 20 * a * c) ** 0.5
        inner = torch.tensor([-3 * b - root, -3 * b + root], dtype=torch.float64).div(10 * c).sqrt()
    return (a, b, c), error


def at(polynomial: Triple, x: float) -> float:
    a, b, c = polynomial
    return a * x + b * x**3 + c * x**5


def test_cans_is_the_minimax_polynomial_of_each_interval_in_turn() -> None:
    low, high = 1e-3, 1.0
    for a, b, c in NS_SETS["cans"][:-1]:
        found, error = minimax(low, high)
        rounded = tuple(round(number, 4) for number in found)
        assert (a * 1.01, b * 1.01**3, c * 1.01**5) == pytest.approx(rounded, rel=1e-12)
        low, high = 1 - error, 1 + error
    assert NS_SETS["cans"][-1] == pytest.approx(minimax(low, high)[0], abs=1e-3)


def test_polar_express_is_the_cushioned_minimax_polynomial() -> None:
    """Their Alg. 1's program: no narrower interval than the cushion, and the middle set to 1."""
    low, high, cushion = 1e-3, 1.0, 0.02407327424182761
    for a, b, c in NS_SETS["polar_express"][:-1]:
        found, _ = minimax(max(low, cushion * high), high)
        scale = 2 / (at(found, low) + at(found, high)) if cushion * high > low else 1.0
        found = (found[0] * scale, found[1] * scale, found[2] * scale)
        assert (a * 1.01, b * 1.01**3, c * 1.01**5) == pytest.approx(found, rel=1e-9)
        low = at(found, low)
        high = 2 - low


def test_cans_as_published_would_diverge_in_bfloat16() -> None:
    m = coefficients.matrices(24, 96)["one large value"]
    *safe, last = NS_SETS["cans"]
    published = tuple((a * 1.01, b * 1.01**3, c * 1.01**5) for a, b, c in safe)
    norms = []
    for given in ((*published, last), NS_SETS["cans"]):
        x = newton_schulz(m, steps=7, coefficients=given, dtype=torch.bfloat16)
        norms.append(float(x.double().norm()))
    assert not norms[0] < 100.0  # NaN, too
    assert norms[1] < 1.2 * 24**0.5


@pytest.mark.skipif(not coefficients.PAGE.exists(), reason="docs are not in this copy")
def test_page_has_the_ranges_that_its_command_finds() -> None:
    page = coefficients.PAGE.read_text(encoding="utf-8")
    for name, steps in coefficients.SETS:
        low, high = coefficients.value_range(name, steps)
        row = f'| "{name}" | {coefficients.WHERE[name]} | {steps} | {steps / 5:.1f} |'
        assert f"{row} {low:.3f} | {high:.3f} |" in page


def test_last_polynomials_bring_what_is_near_to_one() -> None:
    for name, second in (("polar_express", 0.0), ("cans", 0.0), ("deepseek_v4", 1.0)):
        a, b, c = NS_SETS[name][-1]
        assert a + b + c == pytest.approx(1.0, abs=1e-15)
        assert a + 3 * b + 5 * c == pytest.approx(0.0, abs=1e-15)  # its slope there
        assert 6 * b + 20 * c == pytest.approx(second, abs=1e-15)  # cubes the error, or squares it


# set, steps, least and greatest value of what lies in [1e-3, 1]
RANGES: list[tuple[str, int, float, float]] = [
    ("simple", 5, 0.40, 1.21),
    ("quintic", 5, 0.47, 1.16),
    ("polar_express", 5, 0.84, 1.14),
    ("polar_express", 8, 0.9999, 1.0001),
    ("cans", 5, 0.85, 1.12),
    ("cans", 7, 0.9999, 1.0001),
    ("deepseek_v4", 10, 0.999, 1.001),
]


@pytest.mark.parametrize(("name", "steps", "least", "greatest"), RANGES)
def test_singular_values_of_a_set_end_where_the_table_says(
    name: str, steps: int, least: float, greatest: float
) -> None:
    x = torch.logspace(-3, 0, 4001, dtype=torch.float64)
    for a, b, c in polynomials(name, steps):
        x = a * x + b * x**3 + c * x**5
    assert x.min() > least
    assert x.max() < greatest


@pytest.mark.parametrize("name", NS_SETS)
def test_each_set_makes_a_matrix_orthogonal(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(24, 40, generator=generator, dtype=torch.float64)
    values = torch.linalg.svdvals(newton_schulz(m, steps=10, coefficients=name))
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_listed_steps_are_taken_in_turn_the_last_repeated() -> None:
    rows = ((2.0, -1.5, 0.5), (1.5, -0.5, 0.0))
    m = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    s = s / s.norm()
    for a, b, c in (rows[0], rows[1], rows[1]):
        s = a * s + b * s**3 + c * s**5
    for gram in (False, True):
        found = newton_schulz(m, steps=3, coefficients=rows, gram=gram)
        torch.testing.assert_close(found, u @ (s[:, None] * vh), rtol=1e-11, atol=1e-12)


def test_a_set_by_its_name_is_the_set_by_its_numbers() -> None:
    assert NS_SETS["simple"] == (NS_COEFFICIENTS,)
    for name in NS_SETS:
        ends = []
        for value in (name, NS_SETS[name]):
            params = make_params([(6, 4)])
            ends.append(run(MARSM(params, ns_coefficients=value, ns_steps=10), params))
        assert torch.equal(ends[0][0], ends[1][0])


@pytest.mark.parametrize("value", [*NS_SETS, ((2.0, -1.5, 0.5), (1.5, -0.5, 0.0))], ids=str)
@pytest.mark.parametrize("rule", ["muon", "shampoo"])
def test_backend_equals_the_oracle_with_each_set(rule: Any, value: Any) -> None:
    ends: list[list[Tensor]] = []
    for foreach in (True, False):
        params = make_params([(6, 4), (3, 9)])
        options = dict(ns_coefficients=value, ns_steps=10, foreach=foreach)
        ends.append(run(MARS(params, rule=rule, **options), params))
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"ns_coefficients": "polar_expres"},
        r"'polar_expres' must be one of 'simple', .*did you mean 'polar_express'",
    ),
    ({"ns_coefficients": "deepseek_v4"}, r"ns_steps=5 leaves out .* 10 polynomials .*ns_steps=10"),
    (
        {"ns_coefficients": [(2.0, -1.5, 0.5)] * 3, "ns_steps": 2},
        r"ns_steps=2 leaves out some of the 3 polynomials .*: give ns_steps=3",
    ),
    ({"ns_coefficients": [(2.0, -1.5, 0.5), (2.0, -1.5)]}, r"three for each step"),
    ({"ns_coefficients": ()}, r"three for each step, or one of 'simple'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_wrong_coefficients_are_named_before_the_first_step(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MARSM([nn.Parameter(torch.ones(3, 2))], **options)


def test_more_steps_of_a_set_that_ends_in_one_only_bring_nearer() -> None:
    m = torch.randn(16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for name in ("polar_express", "cans"):
        errors = []
        for steps in (5, 7, 9, 12):
            x = newton_schulz(m, steps=steps, coefficients=name)
            errors.append(float((x @ x.T - torch.eye(16, dtype=torch.float64)).norm()))
        assert all(after < before for before, after in pairwise(errors))
        assert errors[-1] < 1e-6
