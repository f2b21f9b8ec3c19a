"""The gradient estimate: its formula, and the norm and the clip of each tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mars_optim.optim.correction import (
    clipped,
    corrected_,
    norms_of,
    remember_,
    scales_of,
    tensor_norm,
)


def test_correction_adds_scaled_difference_from_last_gradient() -> None:
    last, g = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 2.0])
    (c,) = corrected_([last], [g], gain=0.5)
    assert c.tolist() == [2.5, 4.0]
    assert g.tolist() == [2.0, 2.0]


def test_remembered_gradient_is_a_copy() -> None:
    last, g = torch.zeros(2), torch.tensor([1.0, 2.0])
    remember_([last], [g])
    g.zero_()
    assert last.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x,
        lambda x: x.t(),
        lambda x: x.view(64, 64, 32, 32).to(memory_format=torch.channels_last),
    ],
    ids=["contiguous", "transposed", "channels_last"],
)
def test_norm_of_a_large_float32_tensor_is_accurate(layout: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = layout(torch.randn(2048, 2048))  # 4.2 M: vector_norm is 8e-5 off here
    exact = float(x.double().norm())
    assert abs(float(tensor_norm(x)) / exact - 1.0) < 1e-5
    assert abs(float(scales_of(norms_of([x]), 1.0)) * exact - 1.0) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_norm_of_a_small_tensor_has_its_dtype_and_value(dtype: torch.dtype) -> None:
    x = torch.tensor([3.0, 4.0], dtype=dtype)
    assert tensor_norm(x).dtype == dtype
    assert tensor_norm(x) == 5.0


def test_clip_scales_large_gradients_and_leaves_small_and_zero() -> None:
    zeros, small, large = torch.zeros(3), torch.tensor([0.3, 0.4]), torch.tensor([3.0, 4.0])
    scales = scales_of(norms_of([zeros, small, large]), 1.0).tolist()
    assert scales == pytest.approx([1.0, 1.0, 0.2], rel=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_clip_bounds_the_norm_of_each_tensor_by_itself(in_place: bool) -> None:
    given = [torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.zeros(2)]
    cs = [c.clone() for c in given]
    result = clipped(cs, scales_of(norms_of(cs), 2.0), in_place=in_place)
    wanted = [torch.tensor([1.2, 1.6]), *given[1:]]
    torch.testing.assert_close(result, wanted)
    torch.testing.assert_close(cs, wanted if in_place else given, rtol=1e-6, atol=0.0)


def test_clip_of_nan_is_nan_and_leaves_the_other_tensors_alone() -> None:
    cs = [torch.tensor([1.0, float("nan")]), torch.ones(1)]
    spoilt, good = clipped(cs, scales_of(norms_of(cs), 1.0), in_place=False)
    assert spoilt.isnan().all()
    assert good.tolist() == [1.0]
