"""AdamW whose beta1 is picked by the alignment of gradient and update, against loops in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mars_optim.errors import UserError
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.training import build_optimizer, optimizer
from mars_optim.experiment.training.greedy_alignment import ENDS, GreedyAlignment
from tests.support.regression import Regression, make_spec, record

SHAPES = [(4, 3), (5,), ()]
EXACT: dict[str, Any] = dict(rtol=1e-12, atol=1e-14)


def gradients(steps: int, kind: str) -> list[list[Tensor]]:
    """Steady ones hardly change, alternating ones turn around, noisy ones do by chance."""
    generator = torch.Generator().manual_seed(3)
    fixed = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    made = []
    for t in range(steps):
        noise = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
        sign, scale = {"steady": (1, 0.1), "alternating": ((-1) ** t, 0.1), "noisy": (1, 1.2)}[kind]
        made.append([sign * f + scale * n for f, n in zip(fixed, noise, strict=True)])
    return made


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]


def by_hand(
    grads: list[list[Tensor]], *, lr: float, beta2: float, decay: float, smoothing: float
) -> tuple[list[Tensor], list[int]]:
    """The formula, a tensor at a time, its averages as plain sums; weights and choices."""
    betas, x, chosen = (0.5, 0.9, 0.99), weights(), []
    score, squares = [0.0] * 3, [torch.zeros_like(w) for w in x]
    sums = [[torch.zeros_like(w) for w in x] for _ in betas]
    for t, gs in enumerate(grads, start=1):
        now, scales = [0.0] * 3, []
        for i, g in enumerate(gs):
            squares[i] = beta2 * squares[i] + (1 - beta2) * g**2
            scale = 1 / ((squares[i] / (1 - beta2**t)).sqrt() + 1e-8)
            scales.append(scale)
            for j, beta in enumerate(betas):
                sums[j][i] = beta * sums[j][i] + g
                along = float((g * scale * sums[j][i]).sum())
                now[j] += along * ((1 - beta**2) / float(scale.mean())) ** 0.5
        score = [smoothing * s + (1 - smoothing) * n for s, n in zip(score, now, strict=True)]
        best = max(range(3), key=score.__getitem__)
        chosen.append(best)
        for i, scale in enumerate(scales):
            step = scale * sums[best][i] * (1 - betas[best]) / (1 - betas[best] ** t)
            x[i] = x[i] - lr * (step + decay * x[i])
    return x, chosen


def run(opt: torch.optim.Optimizer, params: list[Tensor], grads: list[list[Tensor]]) -> None:
    for of_step in grads:
        for p, g in zip(params, of_step, strict=True):
            p.grad = g.clone()
        opt.step()


def parameters() -> list[Tensor]:
    return [torch.nn.Parameter(w) for w in weights()]


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
@pytest.mark.parametrize(
    ("kind", "favourite"), [("steady", 2), ("alternating", 0), ("noisy", None)]
)
def test_weights_are_those_of_the_formula(kind: str, favourite: int | None, smoothing: float):
    settings: dict[str, Any] = dict(lr=0.01, weight_decay=0.1, smoothing=smoothing)
    grads, params = gradients(80, kind), parameters()
    run(GreedyAlignment(params, betas=(0.9, 0.95), **settings), params, grads)
    expected, chosen = by_hand(grads, lr=0.01, beta2=0.95, decay=0.1, smoothing=smoothing)
    torch.testing.assert_close([p.detach() for p in params], expected, **EXACT)
    if favourite is not None:
        assert chosen[-1] == favourite
    else:
        assert len(set(chosen)) > 1, "the choice must have moved, or this shows little"


def test_equal_candidates_are_adamw():
    ours, theirs, grads = parameters(), parameters(), gradients(12, "noisy")
    settings: dict[str, Any] = dict(lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    run(GreedyAlignment(ours, ends=(0.9, 0.9), **settings), ours, grads)
    run(torch.optim.AdamW(theirs, **settings), theirs, grads)
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_one_choice_holds_for_all_groups():
    grads, joint, apart = gradients(20, "noisy"), parameters(), parameters()
    settings: dict[str, Any] = dict(lr=0.01, betas=(0.9, 0.95))
    run(GreedyAlignment(joint, **settings), joint, grads)
    run(GreedyAlignment([dict(params=[p]) for p in apart], **settings), apart, grads)
    torch.testing.assert_close(joint, apart, **EXACT)


def test_the_choice_does_not_know_the_gradients_scale():
    grads, plain, scaled = gradients(20, "noisy"), parameters(), parameters()
    run(GreedyAlignment(plain, eps=0.0), plain, grads)
    run(GreedyAlignment(scaled, eps=0.0), scaled, [[1e6 * g for g in gs] for gs in grads])
    torch.testing.assert_close(plain, scaled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_dict_resumes_to_the_same_bits(dtype: torch.dtype):
    grads = [[g.to(dtype) for g in gs] for gs in gradients(20, "noisy")]
    params = [torch.nn.Parameter(w.to(dtype)) for w in weights()]
    opt = GreedyAlignment(params, lr=0.01)
    run(opt, params, grads[:9])
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = GreedyAlignment(others, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    for o, p in ((opt, params), (resumed, others)):
        run(o, p, grads[9:])
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_parameters_without_a_gradient_stay_and_do_not_count():
    params, grads = parameters(), gradients(3, "noisy")
    opt = GreedyAlignment(params)
    params[0].grad = grads[0][0]
    opt.step()
    assert torch.equal(params[1], weights()[1])
    assert not opt.state[params[1]]
    opt.zero_grad()
    opt.step()  # nothing at all


def test_a_closure_is_called_with_gradients_on():
    (p, *_) = parameters()
    opt = GreedyAlignment([p], lr=0.1)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = p.square().sum()
        torch.autograd.backward(loss)
        return loss

    losses = [opt.step(closure).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_the_arm_picks_among_the_published_three():
    arm = ARMS["greedy-alignment"]
    opt = build_optimizer(torch.nn.Linear(3, 2), arm, lr=0.1)
    assert {(*g["ends"], g["betas"]) for g in opt.param_groups} == {(*ENDS, (0.9, 0.95))}


def test_sharded_parameters_are_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "mars_optim.experiment.training.greedy_alignment.is_sharded", lambda tensor: True
    )
    with pytest.raises(UserError, match=r'no sharded parameters.*execution\.sharding = "ddp"'):
        optimizer.build_optimizer(torch.nn.Linear(3, 2), ARMS["greedy-alignment"], lr=0.1)


def test_a_run_of_the_arm_learns(tmp_path: Path):
    run_ = record(tmp_path, Regression(), make_spec(arm="greedy-alignment", steps=40))
    losses = [row["loss"] for row in run_.rows if "loss" in row]
    assert losses[-1] < losses[0]
