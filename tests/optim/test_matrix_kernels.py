"""Newton-Schulz of every fast path: near the oracle, in stacks, batches and empty matrices."""

from __future__ import annotations

import pytest
import torch

from mars_optim.optim import backends, orthogonalize, reference
from mars_optim.optim.backends import Bucket
from mars_optim.optimizer_options import MATRIX_RULES
from tests.support.kernel_parity import MATRICES, STRIDED, compare, fill, settings_of


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_float32_newton_schulz_is_within_bf16_noise_of_oracle(rule: str, correction: str) -> None:
    settings = settings_of(rule=rule, correction=correction)
    like = [make() for make in (*MATRICES.values(), *STRIDED.values())]
    start = fill(like, 0, torch.float32)
    grads = fill(like, 7, torch.float32)
    ends = []
    for backend in ("foreach", "reference"):
        params = [x.clone() for x in start]
        states: list[reference.State] = [{} for _ in params]
        for param, state in zip(params, states, strict=True):
            backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
        backends.BACKENDS[backend].step(Bucket(params, grads, states, settings))
        ends.append(params)
    for before, ours, theirs in zip(start, *ends, strict=True):
        assert (ours - theirs).norm() < 0.1 * (theirs - before).norm()


@pytest.mark.parametrize("emulated", [False, True], ids=["bfloat16", "no bfloat16"])
@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_matrices_of_equal_shape_step_as_in_the_oracle(
    rule: str, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthogonalize, "BFLOAT16_CPU", not emulated)
    like = [torch.empty(shape) for shape in ((6, 4), (2, 9), (6, 4), (2, 9), (6, 2, 2), (4, 4))]
    compare("foreach", settings_of(rule=rule), like=like)
    compare("foreach", settings_of(rule=rule, stacked=True), like=like)
    apart = []
    for limit in (1, 1 << 21):
        monkeypatch.setattr(orthogonalize, "_BATCH_CPU", limit)
        params = fill(like, 0, torch.float32)
        states: list[reference.State] = [{} for _ in params]
        for param, state in zip(params, states, strict=True):
            dtypes = backends.state_dtypes(param.dtype, settings_of(rule=rule))
            backends.init_state(param, state, dtypes)
        grads = fill(like, 7, torch.float32)
        backends.BACKENDS["foreach"].step(Bucket(params, grads, states, settings_of(rule=rule)))
        apart.append(params)
    for start, one, together in zip(fill(like, 0, torch.float32), *apart, strict=True):
        assert (one - together).norm() <= (1e-4 if emulated else 0.05) * (one - start).norm()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4, 0, 3, 3), (0, 2, 3, 3)], ids=str)
@pytest.mark.parametrize("backend", ["reference", "foreach"])
@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_empty_matrix_passes_through_newton_schulz(
    rule: str, backend: str, shape: tuple[int, ...]
) -> None:
    settings, empty, state = settings_of(rule=rule), torch.empty(shape), {}
    backends.init_state(empty, state, backends.state_dtypes(empty.dtype, settings))
    backends.BACKENDS[backend].step(Bucket([empty], [torch.empty(shape)], [state], settings))
    assert state["step"] == 1.0


@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_stack_of_matrices_is_orthogonalised_matrix_by_matrix(rule: str) -> None:
    stacked = settings_of(rule=rule, stacked=True)
    like = [torch.empty(3, 4, 2), torch.empty(2, 2, 2, 5), torch.empty(4, 2)]
    compare("foreach", stacked, like=like)
