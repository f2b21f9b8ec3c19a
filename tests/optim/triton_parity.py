"""The Triton kernels compute what the oracle ``reference.update`` computes.

Not collected by itself. ``test_triton_kernels.py`` runs it, and ``triton_dtypes.py``, on a GPU as
they are and without one by ``TRITON_INTERPRET=1 pytest tests/optim/triton_parity.py``: in a process
of its own, because Triton has to be imported with that set. The interpreter is slow and cuts
float32 off to bfloat16.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from mars_optim import MARSAdamW
from mars_optim.optim import reference
from mars_optim.optim.backends import Amp, Bucket, dispatch, loop
from mars_optim.optim.backends.cuda import triton_backend
from mars_optim.optim.backends.cuda.triton_tables import CHUNK
from mars_optim.optim.hyperparameters import Settings
from tests.support.cases import make_grads, make_params
from tests.support.kernel_parity import fill, settings_of
from tests.support.triton_kernels import DEVICE, SHAPES, SMALL, compare, number, states_of, tensors

pytest.importorskip("triton")
from mars_optim.optim.backends.cuda import triton_kernels


def table() -> list[Any]:
    """Every combination of options that is one."""
    rows = []
    for rule, correction, clip, amsgrad, maximize, gamma in product(
        ("adamw", "lion"),
        ("approx", "exact", "folded"),
        (None, 0.1),
        (False, True),
        (False, True),
        (0.0, 0.3),
    ):
        refused = (correction == "folded" and clip) or (amsgrad and rule != "adamw")
        if refused or (gamma == 0.0 and correction != "approx"):
            continue
        settings = settings_of(
            rule=rule,
            correction=correction,
            clip=clip,
            amsgrad=amsgrad,
            maximize=maximize,
            gamma=gamma,
        )
        switches = "-amsgrad" * amsgrad + "-maximize" * maximize
        name = f"{rule}-{correction}-clip={clip}-gamma={gamma}{switches}"
        rows.append(pytest.param(settings, id=name))
    return rows


@pytest.mark.parametrize("settings", table())
def test_kernels_equal_the_oracle(settings: Settings) -> None:
    compare(settings)


@pytest.mark.parametrize("rule", ["adamw", "lion"])
@pytest.mark.parametrize("correction", ["approx", "exact"])
def test_a_clip_over_all_tensors_equals_the_oracle(correction: str, rule: str) -> None:
    settings = settings_of(
        rule=rule, correction=correction, clip=0.1, clip_over="global", gamma=0.3
    )
    compare(settings)


LARGE: dict[str, Settings] = {
    "adamw": settings_of(rule="adamw", clip=1.0, amsgrad=True),
    "lion": settings_of(rule="lion", clip=1.0),
    "folded": settings_of(rule="adamw", correction="folded", weight_decay=0.0),
}


@pytest.mark.parametrize("settings", LARGE.values(), ids=LARGE)
def test_tensors_of_several_programs_equal_the_oracle(settings: Settings) -> None:
    compare(settings, shapes=SHAPES)


@pytest.mark.parametrize("done", [0, 1, 9, 5000])
@pytest.mark.parametrize("betas", [(0.95, 0.99), (0.0, 0.0), (0.9, 0.999999)], ids=str)
def test_bias_correction_is_right_at_any_step(betas: tuple[float, float], done: int) -> None:
    compare(settings_of(rule="adamw", betas=betas), done=done, steps=1)


@pytest.mark.parametrize("rule", ["adamw", "lion"])
def test_learning_rate_is_read_from_a_tensor(rule: str) -> None:
    settings = settings_of(rule=rule)
    lr = torch.tensor(settings.lr, device=DEVICE)
    params = fill(tensors(SMALL), 0, torch.float32)
    others = [x.clone() for x in params]
    grads = fill(tensors(SMALL), 7, torch.float32, grads=True)
    by_tensor = replace(settings, lr=lr)
    triton_backend.step(Bucket(params, grads, states_of(params, settings), by_tensor))
    triton_backend.step(Bucket(others, grads, states_of(others, settings), settings))
    for x, y in zip(params, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rule", ["adamw", "lion"])
@pytest.mark.parametrize(("correction", "clip"), [("approx", 0.1), ("folded", None)])
def test_gamma_is_read_from_a_tensor(correction: Any, clip: float | None, rule: str) -> None:
    settings = settings_of(rule=rule, correction=correction, clip=clip, gamma=0.3)
    gamma = torch.tensor(settings.gamma, dtype=torch.float64, device=DEVICE)
    params = fill(tensors(SMALL), 0, torch.float32)
    others = [x.clone() for x in params]
    states, other_states = states_of(params, settings), states_of(others, settings)
    for step in (7, 8):
        grads = fill(tensors(SMALL), step, torch.float32, grads=True)
        by_tensor = replace(settings, gamma=gamma)
        triton_backend.step(Bucket(params, grads, states, by_tensor))
        triton_backend.step(Bucket(others, grads, other_states, settings))
    for x, y in zip(params, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
    reference.update(others, grads, other_states, settings)
    reference.update(params, grads, states, by_tensor)
    for x, y in zip(params, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("correction", ["approx", "exact", "folded"])
def test_gradients_are_divided_by_the_scale_of_amp(correction: str) -> None:
    clip = None if correction == "folded" else 0.1
    settings = settings_of(rule="adamw", clip=clip, correction=correction)
    compare(settings, grad_scale=1024.0, found_inf=0.0)


def test_step_with_an_overflow_changes_nothing() -> None:
    settings = settings_of(rule="adamw", clip=0.1, amsgrad=True)
    params = fill(tensors(SHAPES), 0, torch.float32)
    grads = fill(tensors(SHAPES), 7, torch.float32, grads=True)
    states = states_of(params, settings)
    triton_backend.step(Bucket(params, grads, states, settings))
    values = [*params, *(v for state in states for v in state.values())]
    before = [v.clone() for v in values]
    grads[0][0] = math.inf
    amp = Amp(number(2.0), torch.ones(1, device=DEVICE))
    triton_backend.step(Bucket(params, grads, states, settings, amp=amp))
    assert all(torch.equal(a, b) for a, b in zip(values, before, strict=True))


@pytest.mark.parametrize("correction", ["approx", "folded"])
def test_optimizer_takes_the_same_steps_by_the_kernels(
    correction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = "tensor" if correction == "folded" else "global"
    ends = []
    for backend in ("triton", "reference"):
        monkeypatch.setattr(dispatch, "choose", lambda bucket, backend=backend: backend)
        params = [
            torch.nn.Parameter(p.detach().to(DEVICE)) for p in make_params(dtype=torch.float32)
        ]
        optimizer = MARSAdamW(params, correction=correction, clip_over=over)
        for step in range(3):
            for param, grad in zip(params, make_grads(params, step), strict=True):
                param.grad = grad.to(DEVICE)
            optimizer.step()
        ends.append(params)
    for x, y in zip(*ends, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


class OtherShards:
    """Shards of which this process has one; the others' squared norms are given."""

    def __init__(self, squares: Tensor) -> None:
        self.squares = squares

    def whole_norms(self, norms: Tensor) -> Tensor:
        assert norms.shape == self.squares.shape
        return (norms.double().square() + self.squares).sqrt().to(norms.dtype)


@pytest.mark.parametrize("rule", ["adamw", "lion"])
def test_shards_are_clipped_by_the_norm_of_the_whole_tensor(rule: str) -> None:
    settings = settings_of(rule=rule, clip=0.5, gamma=0.0)
    cuts = [(4500, 4501), (2, 3), (0, 2)]
    grads = [torch.randn(sum(cut), dtype=torch.float64).to(DEVICE) for cut in cuts]
    whole = [torch.zeros_like(g) for g in grads]
    states = states_of(whole, settings)
    reference.update(whole, grads, states, settings)
    wanted = [state["exp_avg"].split(cut) for state, cut in zip(states, cuts, strict=True)]
    for rank in (0, 1):
        gs = [g.split(cut)[rank].float() for g, cut in zip(grads, cuts, strict=True)]
        xs = [torch.zeros_like(g) for g in gs]
        states = states_of(xs, settings)
        squares = [
            g.split(cut)[1 - rank].square().sum() for g, cut in zip(grads, cuts, strict=True)
        ]
        others: Any = OtherShards(torch.stack(squares))
        triton_backend.step(Bucket(xs, gs, states, settings, others))
        for state, want in zip(states, wanted, strict=True):
            torch.testing.assert_close(state["exp_avg"].double(), want[rank], rtol=1e-6, atol=1e-9)


def test_norm_is_the_sum_of_all_programs_and_of_no_others() -> None:
    partials = torch.arange(1000.0, device=DEVICE)
    first = torch.tensor([0, 0, 1, 7, 990], device=DEVICE)
    norms = torch.empty(4, device=DEVICE)
    triton_kernels.norms_kernel[(4,)](partials, first, norms, lanes=256)
    wanted = [partials[a:b].sum().sqrt() for a, b in pairwise(first.tolist())]
    torch.testing.assert_close(norms, torch.stack(wanted))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("rule", ["adamw", "lion"])
def test_nan_in_a_gradient_spreads_as_in_the_oracle(rule: str, clip: float | None) -> None:
    settings = settings_of(rule=rule, clip=clip)
    ends = []
    for step in (triton_backend.step, loop.step):
        params = [torch.ones(4, device=DEVICE) for _ in range(2)]
        grads = [torch.ones(4, device=DEVICE) for _ in range(2)]
        grads[1][1] = math.nan
        states = states_of(params, settings)
        step(Bucket(params, grads, states, settings))
        assert params[0].isfinite().all()
        ends.append((params[1].isnan().tolist(), states[1]["exp_avg"].isnan().tolist()))
    assert ends[0] == ends[1]


def test_parameters_at_odd_addresses_are_updated_to_the_end() -> None:
    settings = settings_of(rule="adamw", clip=1.0)
    ends = []
    for step, dtype in ((triton_backend.step, torch.float32), (loop.step, torch.float64)):
        like = [torch.empty(n + 2, device=DEVICE) for n in (3, 513, CHUNK + 9)]
        storages = [x.to(dtype) for x in fill(like, 0, torch.float32)]
        params = [storage[1:-1] for storage in storages]
        grads = [g.to(dtype)[1:-1] for g in fill(like, 7, torch.float32)]
        step(Bucket(params, grads, states_of(params, settings), settings))
        ends.append(storages)
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)


def test_the_same_step_gives_the_same_bits() -> None:
    settings = settings_of(rule="adamw", clip=0.1)
    start = fill(tensors(SHAPES), 0, torch.float32)
    grads = fill(tensors(SHAPES), 7, torch.float32, grads=True)
    ends = []
    for _ in range(2):
        params = [x.clone() for x in start]
        triton_backend.step(Bucket(params, grads, states_of(params, settings), settings))
        ends.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
