"""Newton-Schulz on the small Gram matrix: as right as on the whole one, in every dtype."""

from __future__ import annotations

import pytest
import torch

from benchmarks.coefficients import greatest, matrices, small_matrices
from mars_optim import MARSM
from mars_optim.optim import orthogonalize
from mars_optim.optim.orthogonalize import newton_schulz, runs
from mars_optim.optimizer_options import polynomials

SETS = [("simple", 5), ("simple", 10), ("simple", 30), ("quintic", 5), ("polar_express", 5),
        ("polar_express", 8), ("cans", 5), ("cans", 7), ("deepseek_v4", 10)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "steps"), SETS)
def test_gram_form_lifts_no_value_above_the_plain_forms(
    name: str, steps: int, dtype: torch.dtype
) -> None:
    options = dict(steps=steps, coefficients=name, dtype=dtype)
    for stack in small_matrices(200):
        plain = greatest(stack, **options)
        assert greatest(stack, **options, gram=True) < plain + 0.05


def test_step_by_a_named_set_leaves_weights_finite() -> None:
    """Weights were NaN where bfloat16 took two steps on one A (on CPUs with its products)."""
    grad = torch.tensor(
        [[776, 918], [219, 154], [128, 12], [-669, -732], [-139, -20], [-120, -320]]
    )
    weight = torch.nn.Parameter(torch.zeros(6, 2))
    optimizer = MARSM([weight], gamma=0, clip=None, ns_coefficients="polar_express", ns_steps=8)
    weight.grad = grad * 1e-4
    optimizer.step()
    assert weight.abs().max() < 0.01


@pytest.mark.parametrize("gram", [False, True])
def test_norm_that_overflows_gives_no_step_and_no_nan(gram: bool) -> None:
    m = torch.full((2, 8), 1e30)
    assert torch.equal(newton_schulz(m, dtype=torch.float32, gram=gram), torch.zeros(2, 8))


@pytest.mark.parametrize(("name", "steps"), SETS)
@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (32, 48), (16, 512)], ids=str)
def test_gram_form_in_bfloat16_loses_less_than_a_digit(
    shape: tuple[int, int], name: str, steps: int
) -> None:
    """Against float64; where the plain form has no digit left, it has none either."""
    for what, m in matrices(*shape).items():
        single = m.float()
        exact = newton_schulz(single.double(), steps=steps, coefficients=name)
        errors = []
        for gram in (False, True):
            options = dict(steps=steps, coefficients=name, dtype=torch.bfloat16, gram=gram)
            found = newton_schulz(single, **options).double()
            errors.append(float((found - exact).norm() / exact.norm()))
        plain, restarted = errors
        assert restarted < max(5 * plain, 0.05), (what, plain, restarted)


def test_gram_form_without_restarts_loses_all_bf16_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m = matrices(24, 96)["one large value"].float()
    exact = newton_schulz(m.double())
    monkeypatch.setattr(orthogonalize, "runs", lambda steps, dtype: [steps])
    found = newton_schulz(m, dtype=torch.bfloat16, gram=True).double()
    assert (found - exact).norm() > 10 * exact.norm()


def test_runs_are_as_long_as_the_dtype_can_bear() -> None:
    simple, express = polynomials("simple", 5), polynomials("polar_express", 8)
    lengths = lambda steps, dtype: [len(run) for run in runs(steps, dtype)]  # noqa: E731
    assert lengths(simple, torch.bfloat16) == [1] * 5
    assert lengths(express, torch.bfloat16) == [1] * 8
    assert lengths(simple, torch.float32) == [5]
    assert lengths(express, torch.float32) == [4, 4]
    assert lengths(polynomials("simple", 99), torch.float32) == [5] * 19 + [4]
    assert sum(runs(express, torch.float32), ()) == express


def test_gram_form_in_float32_bears_a_hundred_steps() -> None:
    m = matrices(24, 96)["condition 1e4"]
    found = newton_schulz(m.float(), steps=99, dtype=torch.float32, gram=True)
    assert torch.linalg.svdvals(found.double()).max() < 1.3
