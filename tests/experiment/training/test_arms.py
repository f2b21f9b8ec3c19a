"""Every arm of the plan becomes an optimizer on the same parameters, sorted alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from mars_optim import MARS
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.training import build_optimizer, state_bytes
from mars_optim.experiment.training.greedy_alignment import GreedyAlignment
from tests.support.regression import Regression, make_spec, record, rows_of

DECAYED = {"attention.qkv", "attention.out", "mlp.up", "mlp.down"}
ORTHOGONAL = ("shampoo", "muon")


def small_gpt(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(vocabulary=20, context=8, layers=2, width=16, heads=2)


def tokens() -> Tensor:
    return torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(0))


def loss_of(model: nn.Module) -> Tensor:
    batch = tokens()
    logits = model(batch[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def take_steps(model: nn.Module, optimizer: Optimizer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        if any(group.get("correction") == "exact" for group in optimizer.param_groups):
            assert isinstance(optimizer, MARS)
            with optimizer.previous_point(model):
                torch.autograd.backward(loss_of(model))
        loss = loss_of(model)
        losses.append(loss.item())
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return [*losses, loss_of(model).item()]


def group_of(optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Name of the parameter -> its group; fails if one is in two groups or in none."""
    names = {id(p): n for n, p in model.named_parameters()}
    claimed = [(names[id(p)], g) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(n for n, _ in claimed) == sorted(names.values())
    return dict(claimed)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_each_parameter_once_and_decays_the_same(name: str):
    model = small_gpt()
    groups = group_of(build_optimizer(model, ARMS[name], lr=0.01), model)
    decayed = {n for n, g in groups.items() if g["weight_decay"] > 0}
    assert decayed == {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in DECAYED}
    assert {groups[n]["weight_decay"] for n in decayed} == {ARMS[name].weight_decay}
    assert {g["lr"] for g in groups.values()} == {0.01}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_a_small_gpt_at_its_default_lr(name: str):
    model = small_gpt()
    losses = take_steps(model, build_optimizer(model, ARMS[name], lr=ARMS[name].lr), 12)
    assert losses[-1] < losses[0] - 0.01
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.slow_but_one(among=3)
@pytest.mark.parametrize("name", ARMS)
def test_every_arm_moves_all_parameters_and_is_deterministic(name: str):
    models = [small_gpt(), small_gpt()]
    for model in models:
        take_steps(model, build_optimizer(model, ARMS[name], lr=ARMS[name].lr), 3)
    start, first, second = (m.state_dict() for m in (small_gpt(), *models))
    for key in start:
        assert torch.equal(first[key], second[key])
        assert not torch.equal(first[key], start[key])


@pytest.mark.parametrize("name", ARMS)
def test_each_arm_is_the_optimizer_that_its_settings_name(name: str):
    arm, model = ARMS[name], small_gpt()
    optimizer = build_optimizer(model, arm, lr=arm.lr)
    kinds: dict[str, type[Optimizer]] = {
        "torch-adamw": torch.optim.AdamW,
        "torch-nadam": torch.optim.NAdam,
        "greedy-alignment": GreedyAlignment,
        "mars": MARS,
    }
    assert type(optimizer) is kinds[arm.optimizer]
    groups = group_of(optimizer, model)
    assert groups["blocks.0.mlp.up.weight"]["betas"] == arm.betas
    vector_betas = (0.9, 0.95) if arm.optimizer == "mars" else arm.betas
    assert groups["norm.weight"]["betas"] == vector_betas
    if arm.optimizer == "mars":
        matrix, embedding = groups["blocks.0.mlp.up.weight"], groups["wte.weight"]
        assert (matrix["rule"], matrix["gamma"]) == (arm.rule, arm.gamma)
        assert (matrix["clip"], matrix["correction"]) == (arm.clip or None, arm.correction)
        assert {g["gamma_schedule"] for g in groups.values()} == {arm.gamma_schedule}
        assert {g["clip_over"] for g in groups.values()} == {arm.clip_over}
        assert {g["cautious"] for g in groups.values()} == {arm.cautious}
        assert embedding["rule"] == ("adamw" if arm.rule in ORTHOGONAL else arm.rule)
        assert embedding["gamma"] == (0.0 if arm.rule in ORTHOGONAL else arm.gamma)
        assert (groups["norm.weight"]["rule"], groups["norm.weight"]["gamma"]) == ("adamw", 0.0)


@pytest.mark.parametrize(("clip", "expected"), [(0.0, None), (0.5, 0.5), (1.0, 1.0)])
def test_a_clip_of_zero_is_none_and_any_other_is_the_groups(clip: float, expected: float | None):
    model = small_gpt()
    groups = group_of(build_optimizer(model, replace(ARMS["mars-adamw"], clip=clip), lr=1), model)
    assert groups["blocks.0.mlp.up.weight"]["clip"] == expected
    assert groups["norm.weight"]["clip"] is None


def nadamw_by_hand(
    x: Tensor, grads: list[Tensor], *, lr: float, beta1: float, beta2: float, decay: float
) -> Tensor:
    """AdamW whose numerator is beta1 m_t + (1 - beta1) g_t, as Dozat at constant beta1."""
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        ahead = beta1 * m + (1 - beta1) * g
        step = (ahead / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + 1e-8)
        x = x - lr * (step + decay * x)
    return x


def test_the_nadamw_arm_is_adamw_with_nesterov_momentum():
    arm, lr = ARMS["nadamw"], 0.01
    model = nn.Linear(4, 3, bias=False).double()
    start = model.weight.detach().clone()
    grads = [torch.randn(3, 4, dtype=torch.float64) * (i + 1) for i in range(6)]
    optimizer = build_optimizer(model, arm, lr=lr)
    for g in grads:
        model.weight.grad = g.clone()
        optimizer.step()
    beta1, beta2 = arm.betas
    expected = nadamw_by_hand(start, grads, lr=lr, beta1=beta1, beta2=beta2, decay=0.1)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_the_lion_arm_is_lion():
    arm, lr = ARMS["lion"], 0.01
    model = nn.Linear(4, 3, bias=False).double()
    x, m = model.weight.detach().clone(), torch.zeros(3, 4, dtype=torch.float64)
    optimizer = build_optimizer(model, arm, lr=lr)
    for i in range(6):
        g = torch.randn(3, 4, dtype=torch.float64) * (i + 1)
        model.weight.grad = g.clone()
        optimizer.step()
        x = x - lr * ((0.9 * m + 0.1 * g).sign() + arm.weight_decay * x)
        m = 0.99 * m + 0.01 * g
    torch.testing.assert_close(model.weight.detach(), x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "split"), [("muon-split", 3), ("mars-m-split", 3), ("muon", None)]
)
def test_an_arms_split_cuts_the_gpts_qkv_into_three(name: str, split: int | None):
    model = small_gpt()
    groups = group_of(build_optimizer(model, ARMS[name], lr=0.01), model)
    assert groups["blocks.0.attention.qkv.weight"]["split"] == split
    assert groups["blocks.0.mlp.up.weight"]["split"] is None
    by_head = build_optimizer(model, replace(ARMS["muon"], split="heads"), lr=0.01)
    assert group_of(by_head, model)["blocks.0.attention.qkv.weight"]["split"] == 6  # two heads


def test_an_arm_with_a_split_is_its_twin_in_all_but_qkv():
    ends = []
    for name in ("muon", "muon-split"):
        model = small_gpt()
        take_steps(model, build_optimizer(model, ARMS[name], lr=0.01), 1)
        ends.append(model.state_dict())
    differing = {key for key in ends[0] if not torch.equal(ends[0][key], ends[1][key])}
    assert differing == {f"blocks.{i}.attention.qkv.weight" for i in (0, 1)}


def test_an_arms_lr_1d_ratio_follows_the_tuned_lr():
    for name in ("adamw", "muon"):
        arm, model = replace(ARMS[name], lr_1d_ratio=0.25), small_gpt()
        groups = group_of(build_optimizer(model, arm, lr=0.04), model)
        assert groups["norm.weight"]["lr"] == 0.01
        assert groups["blocks.0.mlp.up.weight"]["lr"] == 0.04


def test_an_arms_coefficients_reach_every_matrix():
    arm, model = replace(ARMS["muon"], ns_coefficients="polar_express", ns_steps=8), small_gpt()
    groups = group_of(build_optimizer(model, arm, lr=0.01), model)
    matrix = groups["blocks.0.mlp.up.weight"]
    assert (matrix["ns_coefficients"], matrix["ns_steps"]) == ("polar_express", 8)


# tensors of state per parameter: (of matrices, of embeddings, of vectors), besides the step
BUFFERS = {
    "adamw": (2, 2, 2),
    "nadamw": (2, 2, 2),
    "torch-nadam": (2, 2, 2),
    "greedy-alignment": (4, 4, 4),
    "mars-adamw": (3, 3, 2),
    "mars-adamw-exact": (4, 4, 3),
    "nadamw-auto": (2, 2, 2),  # the sample of the gradient is in the groups
    "mars-adamw-auto": (2, 2, 2),
    "mars-adamw-decay": (3, 3, 2),
    "mars-adamw-cautious": (3, 3, 2),
    "mars-adamw-clip-all": (3, 3, 2),
    "cautious-adamw": (2, 2, 2),
    "lion": (1, 1, 2),
    "mars-lion": (2, 2, 2),
    "muon": (1, 2, 2),
    "muon-split": (1, 2, 2),
    "mars-m-split": (2, 2, 2),
    "mars-m": (2, 2, 2),
    "mars-shampoo": (2, 2, 2),
    "mars-adamw-plain": (2, 2, 2),
    "mars-adamw-no-clip": (3, 3, 2),
    "mars-adamw-clip-only": (2, 2, 2),
    "mars-adamw-baseline-betas": (3, 3, 2),
}


@pytest.mark.parametrize("name", ARMS)
def test_the_state_is_counted_to_the_byte(name: str):
    model = small_gpt()
    optimizer = build_optimizer(model, ARMS[name], lr=0.01)
    assert state_bytes(optimizer) == 0
    take_steps(model, optimizer, 1)
    matrix, embedding, vector = BUFFERS[name]
    expected = 0
    for n, p in model.named_parameters():
        buffers = vector if p.ndim < 2 else embedding if n[:3] in ("wte", "wpe") else matrix
        # the step, NAdam's product of momenta, and of each candidate how well it agreed
        scalars = {"torch-nadam": 2, "greedy-alignment": 4}.get(name, 1)
        expected += 4 * (buffers * p.numel() + scalars)
    assert state_bytes(optimizer) == expected


EDGES = {
    "lr": (1e-12, 1e6),
    "betas": ((0.0, 0.0), (0.999999, 0.999999)),
    "weight_decay": (0.0, 1e3),
    "gamma": (0.0, 1.0, 10.0),
    "clip": (0.0, 1e-9, 1e9),
}


@pytest.mark.slow_but_one(among=7)
@pytest.mark.parametrize("key", EDGES)
@pytest.mark.parametrize("name", ARMS)
def test_whatever_the_plan_allows_can_be_trained_with(name: str, key: str):
    for value in EDGES[key]:
        if key == "clip" and value and ARMS[name].correction == "folded":
            continue  # the plan refuses this one
        if key == "betas" and not value[0] and ARMS[name].gamma_schedule == "auto":
            continue  # and this
        arm, model = replace(ARMS[name], **{key: value}), small_gpt()
        losses = take_steps(model, build_optimizer(model, arm, lr=arm.lr), 1)
        assert len(losses) == 2


def test_the_outcome_counts_parameters_and_state(tmp_path: Any):
    run = record(tmp_path, Regression(), make_spec(arm="adamw"))
    assert run.outcome is not None
    assert run.outcome.parameters == 8
    assert run.outcome.state_bytes == 8 * 2 * 8 + 2 * 4  # two float64 moments, two steps
    assert len(rows_of(run, "loss")) == 20
