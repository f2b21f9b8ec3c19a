"""Flat partitions (FSDP1, ZeRO): refused, or right element by element, never silently AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mars_optim import MARSM, MARSAdamW, MARSLion

LARGE = 120_000


def test_flat_parameters_at_construction_warn_with_advice() -> None:
    flat = nn.Parameter(torch.zeros(LARGE))
    for cls in (MARSAdamW, MARSLion):
        with pytest.warns(UserWarning, match="flat partitions .*optimize_1d=True, clip=None"):
            cls([flat])


def test_flat_parameters_under_a_matrix_rule_are_refused() -> None:
    with pytest.raises(ValueError, match="MARSM: no matrix reached a rule"):
        MARSM([nn.Parameter(torch.zeros(LARGE))])


def test_vectors_of_their_own_are_fine() -> None:
    for cls in (MARSAdamW, MARSM):
        cls([nn.Parameter(torch.zeros(64))])  # some hosts make an optimizer for each parameter


@pytest.mark.parametrize("cls", [MARSAdamW, MARSLion])
def test_the_element_wise_form_on_partitions_equals_the_whole(cls: type[MARSAdamW]) -> None:
    torch.manual_seed(0)
    whole = nn.Parameter(torch.randn(40, 30, dtype=torch.float64))
    parts = [nn.Parameter(p.detach().clone()) for p in whole.view(-1).split([500, 700])]
    options = dict(lr=0.01, clip=None, gamma=0.1, optimize_1d=True)
    one, many = cls([whole], **options), cls(parts, **options)
    for _ in range(4):
        whole.grad = torch.randn_like(whole)
        for part, grad in zip(parts, whole.grad.view(-1).split([500, 700]), strict=True):
            part.grad = grad.clone()
        one.step()
        many.step()
    joined = torch.cat([p.detach() for p in parts])
    torch.testing.assert_close(joined, whole.detach().view(-1), rtol=1e-14, atol=0)


def partitioned(cls: type[MARSAdamW], clip: float | None) -> torch.optim.Optimizer:
    """As DeepSpeed does: built on the model, then handed flat fp32 partitions."""
    weight = nn.Parameter(torch.randn(20, 10))
    optimizer = cls([weight], clip=clip)
    flat = nn.Parameter(weight.detach().view(-1)[:120].clone())
    flat.grad = torch.randn_like(flat)
    optimizer.param_groups[0]["params"] = [flat]
    return optimizer


def test_partitions_swapped_in_later_are_recognised() -> None:
    with pytest.raises(ValueError, match=r"DeepSpeed ZeRO.*clip=1 .*optimize_1d=True, clip=None"):
        partitioned(MARSAdamW, 1.0).step()
    with pytest.raises(ValueError, match=r"DeepSpeed ZeRO.*rule='muon' orthogonalises .*FSDP2"):
        partitioned(MARSM, None).step()
    partitioned(MARSAdamW, None).step()  # without a clip it is right


def test_clipped_large_vectors_are_mentioned_by_describe() -> None:
    optimizer = MARSAdamW([nn.Parameter(torch.zeros(LARGE))], optimize_1d=True)
    assert "! 1 1-D tensors of 120,000 and more elements are clipped" in optimizer.describe()
