"""gamma="auto" where nothing can be chosen: no matrix, or none that gets a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mars_optim import (
    MARS,
    MARSM,
    MARSLion,
    MARSShampoo,
    param_groups,
    release_gradients,
)


class Vectors(nn.Module):
    """A matrix and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x))
        return out


WORDS = r"gamma='auto' corrects nothing, since vectors get plain AdamW and .*optimize_1d=True"


@pytest.mark.parametrize("kind", [MARS, MARSLion, MARSShampoo, MARSM])
def test_auto_for_vectors_alone_is_told_at_once(kind: type[MARS]) -> None:
    with pytest.warns(UserWarning, match=WORDS):
        kind([nn.Parameter(torch.ones(5))], gamma="auto")


@pytest.mark.parametrize("kind", [MARS, MARSLion, MARSShampoo, MARSM])
def test_auto_with_frozen_matrices_is_told_in_the_first_step(kind: type[MARS]) -> None:
    model = Vectors()
    optimizer = kind(model.parameters(), gamma="auto")
    model.linear.weight.requires_grad_(False)
    for expected in (True, False):  # once
        model(torch.randn(2, 4)).square().sum().backward()
        if expected:
            with pytest.warns(UserWarning, match=WORDS):
                optimizer.step()
        else:
            optimizer.step()


@pytest.mark.parametrize("release", [False, True])
def test_auto_beside_embeddings_alone_is_told(release: bool) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    optimizer = MARS(param_groups(model, rule="muon", gamma="auto"))
    model[1].weight.requires_grad_(False)
    if release:
        release_gradients(optimizer)
    model(torch.arange(3)).square().sum().backward()
    with pytest.warns(UserWarning, match=WORDS):
        optimizer.step()
    assert "has seen no gradient in the last 1 of 1 steps" in optimizer.describe()


def test_param_groups_tell_of_auto_without_a_matrix() -> None:
    model = Vectors()
    model.linear.weight.requires_grad_(False)
    words = r"param_groups: gamma='auto' corrects nothing: all that the model trains \(vector\)"
    with pytest.warns(UserWarning, match=words):
        param_groups(model, gamma="auto")


def test_a_matrix_of_another_group_is_no_vector() -> None:
    auto, other = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [auto], "gamma": "auto"}, {"params": [other], "gamma": 0.025}]
    optimizer = MARS(groups)
    other.grad = torch.ones(2, 2)  # the other's turn comes later
    optimizer.step()
