"""Newton-Schulz: what comes out is nearly the orthogonal factor of what goes in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mars_optim.optim.orthogonalize import as_matrix, newton_schulz

SHAPES = [(6, 6), (4, 9), (9, 4), (1, 7), (7, 1), (3, 5, 4), (2, 2, 4, 6), (65, 33)]


def well_conditioned(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Singular values between 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    u, _, vh = torch.linalg.svd(
        torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    s = 1.0 + torch.rand(u.shape[:-2] + vh.shape[-2:-1], generator=generator, dtype=torch.float64)
    return u @ (s[..., None] * vh)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_singular_values_end_near_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    u_vt = newton_schulz(well_conditioned(shape).to(dtype))
    assert u_vt.shape == shape
    values = torch.linalg.svdvals(u_vt.double())
    assert values.min() > 0.6
    assert values.max() < 1.3


@given(
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    scale=st.floats(1e-3, 1e6),
    seed=st.integers(0, 99),
)
def test_singular_vectors_are_kept_and_scale_does_not_matter(
    rows: int, cols: int, scale: float, seed: int
) -> None:
    m = well_conditioned((rows, cols), seed)
    u_vt = newton_schulz(m)
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    core = u.T @ u_vt @ vh.T  # diagonal when the singular vectors are those of m
    torch.testing.assert_close(core, core.diagonal().diag(), rtol=0.0, atol=1e-9)
    torch.testing.assert_close(newton_schulz(scale * m), u_vt, rtol=1e-9, atol=1e-9)


def test_transposing_the_input_transposes_the_output() -> None:
    m = well_conditioned((4, 9))
    torch.testing.assert_close(newton_schulz(m.T), newton_schulz(m).T, rtol=1e-12, atol=1e-12)


def test_stack_is_the_same_as_its_matrices_one_by_one() -> None:
    m = well_conditioned((3, 5, 4)) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    apart = torch.stack([newton_schulz(matrix) for matrix in m])
    torch.testing.assert_close(newton_schulz(m), apart, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (5, 2), (2, 3, 4)], ids=str)
def test_zeros_stay_zeros(shape: tuple[int, ...]) -> None:
    assert torch.equal(newton_schulz(torch.zeros(shape)).float(), torch.zeros(shape))


@pytest.mark.parametrize(
    ("given_dtype", "asked", "computed"),
    [
        (torch.float64, None, torch.float64),
        (torch.float32, None, torch.bfloat16),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, None, torch.bfloat16),
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
    ],
    ids=str,
)
def test_dtype_is_float64_for_float64_and_else_bfloat16_unless_asked(
    given_dtype: torch.dtype, asked: torch.dtype | None, computed: torch.dtype
) -> None:
    m = well_conditioned((4, 3)).to(given_dtype)
    assert newton_schulz(m, dtype=asked).dtype == computed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 4)], ids=str)
def test_input_is_not_changed(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    m = well_conditioned(shape).to(dtype)
    before = m.clone()
    newton_schulz(m)
    assert torch.equal(m, before)


def test_coefficients_and_steps_are_those_of_the_iteration() -> None:
    (a, b, c), x = (2.0, -1.5, 0.5), 0.6 / (0.6**2 + 0.8**2) ** 0.5
    wanted = a * x + b * x**3 + c * x**5
    m = torch.diag(torch.tensor([0.6, 0.8], dtype=torch.float64))
    once = newton_schulz(m, steps=1, coefficients=(a, b, c))
    assert once[0, 0].item() == pytest.approx(wanted, rel=1e-12)
    twice = newton_schulz(m, steps=2, coefficients=(a, b, c))
    assert twice[0, 0].item() == pytest.approx(
        a * wanted + b * wanted**3 + c * wanted**5, rel=1e-12
    )


@pytest.mark.parametrize(
    ("shape", "stacked", "viewed"),
    [
        ((4, 3), False, (4, 3)),
        ((4, 3), True, (4, 3)),
        ((4, 2, 3, 3), False, (4, 18)),
        ((4, 2, 3), False, (4, 6)),
        ((4, 2, 3), True, (4, 2, 3)),
        ((0, 2, 3), False, (0, 6)),
        ((0, 4), False, (0, 4)),
    ],
    ids=str,
)
def test_weight_is_viewed_as_the_matrix_its_layer_multiplies_by(
    shape: tuple[int, ...], stacked: bool, viewed: tuple[int, ...]
) -> None:
    assert as_matrix(torch.ones(shape), stacked=stacked).shape == viewed
