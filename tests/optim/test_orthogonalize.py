"""Newton-Schulz: what comes out is nearly the orthogonal factor of what goes in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mars_optim.optim import orthogonalize
from mars_optim.optim.orthogonalize import (
    as_matrix,
    batches,
    newton_schulz,
    prefers_gram,
    working_dtype,
)

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
@pytest.mark.parametrize("options", [{}, {"gram": True, "dtype": torch.float32}], ids=str)
def test_zeros_stay_zeros(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    u_vt = newton_schulz(torch.zeros(shape), **options)
    assert torch.equal(u_vt.float(), torch.zeros(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)], ids=str
)
def test_gram_form_is_the_same_iteration(
    shape: tuple[int, ...], steps: int, dtype: torch.dtype, tolerance: float
) -> None:
    m = well_conditioned(shape)
    plain = newton_schulz(m, steps=steps)
    gram = newton_schulz(m.to(dtype), steps=steps, dtype=dtype, gram=True)
    assert gram.shape == m.shape
    assert gram.dtype == dtype
    torch.testing.assert_close(gram.double(), plain, rtol=0.0, atol=tolerance)


def test_float32_gram_form_keeps_small_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(
        torch.randn(48, 160, generator=generator, dtype=torch.float64), full_matrices=False
    )
    m = u @ (torch.logspace(0, -8, 48, dtype=torch.float64)[:, None] * vh)
    gram = newton_schulz(m.float(), dtype=torch.float32, gram=True)
    assert (gram - newton_schulz(m)).norm() < 1e-3 * newton_schulz(m).norm()


# --- which form, and how many at once -----------------------------------------------------------

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_bfloat16_is_left_to_processors_that_multiply_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, on_cpu in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(orthogonalize, "BFLOAT16_CPU", has)
        assert working_dtype(torch.float32, CPU) == on_cpu
        assert working_dtype(torch.bfloat16, CPU) == on_cpu
        assert working_dtype(torch.float32, GPU) == torch.bfloat16
        assert working_dtype(torch.float64, CPU) == torch.float64


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        ((4, 4), torch.float32, False),
        ((4, 5), torch.float32, False),
        ((4, 6), torch.float32, True),
        ((7, 6, 4), torch.float32, True),
        ((4, 6), torch.bfloat16, False),
        ((4, 400), torch.bfloat16, False),
        ((4, 6), torch.float64, False),
    ],
    ids=str,
)
def test_gram_form_is_for_long_matrices(
    shape: tuple[int, ...], dtype: torch.dtype, wanted: bool
) -> None:
    assert prefers_gram(torch.empty(shape), dtype) is wanted


def test_cpu_batches_hold_equal_shapes_up_to_2_million_elements() -> None:
    large, wide, small = torch.Size((1024, 1024)), torch.Size((2048, 2048)), torch.Size((8, 8))
    shapes = [large, small, wide, large, large, small, wide, torch.Size((0, 3))]
    found = list(batches([torch.empty(shape) for shape in shapes]))
    assert found == [[0, 3], [4], [1, 5], [2], [6], [7]]
    elsewhere = batches([torch.empty(shape, device="meta") for shape in shapes])
    assert list(elsewhere) == [[0, 3, 4], [1, 5], [2, 6], [7]]


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
def test_float64_stays_float64_and_others_use_bf16_unless_asked(
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
