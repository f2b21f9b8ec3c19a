"""The step inside backward is the usual step, and no gradient is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, release_gradients


class Tied(nn.Module):
    """An embedding that is the head too, a vector, a matrix, and a part that is not always used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 6)
        self.spare = nn.Linear(6, 6)

    def forward(self, tokens: Tensor, *, spare: bool = False) -> Tensor:
        x = torch.tanh(self.inner(self.embedding(tokens)))
        x = self.spare(x) if spare else x
        return x @ self.embedding.weight.T


CASES: dict[str, tuple[type[MARS], dict[str, Any]]] = {
    "folded": (MARSAdamW, dict(correction="folded")),
    "approx and clip": (MARSAdamW, dict(clip=0.05)),
    "gamma 0": (MARSAdamW, dict(gamma=0.0, clip=None)),
    "amsgrad": (MARSAdamW, dict(amsgrad=True)),
    "lion": (MARSLion, dict(clip=0.05)),
    "muon": (MARSM, dict(correction="folded")),
    "by foreach": (MARSAdamW, dict(foreach=True)),
}


def pair(name: str, **options: Any) -> list[tuple[Tied, MARS]]:
    """Twice the same model and optimizer."""
    cls, own = CASES[name]
    torch.manual_seed(0)
    model = Tied().double()
    models = [model, copy.deepcopy(model)]
    return [(m, cls(m.parameters(), lr=0.01, **own, **options)) for m in models]


def loss(model: Tied, step: int, **options: Any) -> Tensor:
    tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(tokens, **options).flatten(0, 1), tokens.flatten())


def train(model: Tied, optimizer: MARS, steps: range, passes: int = 1, **options: Any) -> None:
    for step in steps:
        for i in range(passes):
            loss(model, passes * step + i, **options).backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", CASES)
def test_it_ends_where_the_usual_loop_ends(name: str) -> None:
    (usual, optimizer), (released, in_backward) = pair(name)
    release_gradients(in_backward)
    train(usual, optimizer, range(5))
    train(released, in_backward, range(5))
    assert_same(usual, released)


def test_backward_leaves_no_gradient_and_moves_parameters() -> None:
    _, (model, optimizer) = pair("folded")
    release_gradients(optimizer)
    before = copy.deepcopy(model.state_dict())
    loss(model, 0).backward()
    assert all(p.grad is None for p in model.parameters())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if not k.startswith("spare")}


def test_it_follows_a_scheduler_and_a_group_edited_by_hand() -> None:
    sides = pair("folded")
    release_gradients(sides[1][1])
    for model, optimizer in sides:
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for step in range(4):
            train(model, optimizer, range(step, step + 1))
            schedule.step()
            optimizer.param_groups[0]["weight_decay"] = 0.1 * step
    assert_same(sides[0][0], sides[1][0])


def test_it_resumes_bit_for_bit() -> None:
    (whole, optimizer), (_, _) = pair("approx and clip")
    release_gradients(optimizer)
    train(whole, optimizer, range(3))
    (resumed, again), _ = pair("approx and clip")
    resumed.load_state_dict(whole.state_dict())
    release_gradients(again)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(whole, optimizer, range(3, 6))
    train(resumed, again, range(3, 6))
    assert_same(whole, resumed)


def test_declared_passes_accumulate_as_in_the_usual_step() -> None:
    (usual, optimizer), (released, in_backward) = pair("folded")
    release_gradients(in_backward, passes=3)
    train(usual, optimizer, range(3), passes=3)
    train(released, in_backward, range(3), passes=3)
    assert_same(usual, released)


def test_parameter_that_missed_a_pass_is_stepped_by_step() -> None:
    ends = []
    for (model, optimizer), releases in zip(pair("folded"), (False, True), strict=True):
        if releases:
            release_gradients(optimizer, passes=2)
        for step in range(3):
            loss(model, 2 * step, spare=True).backward()
            loss(model, 2 * step + 1).backward()
            assert (model.spare.weight.grad is not None) is True
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model)
    assert_same(*ends)


def test_undeclared_accumulation_is_refused_before_second_step() -> None:
    _, (model, optimizer) = pair("folded")
    release_gradients(optimizer)
    loss(model, 0).backward()
    before = copy.deepcopy(model)
    with pytest.raises(RuntimeError, match=r"call optimizer.step\(\) after each backward.*passes="):
        loss(model, 1).backward()
    assert_same(model, before)


def test_closure_is_stepped_inside_and_its_loss_returned() -> None:
    (usual, optimizer), (released, in_backward) = pair("folded")
    release_gradients(in_backward)
    for step in range(3):
        losses = []
        for model, opt in ((usual, optimizer), (released, in_backward)):

            def closure(model: Tied = model, opt: MARS = opt, step: int = step) -> Tensor:
                opt.zero_grad()
                value = loss(model, step)
                value.backward()
                return value

            losses.append(opt.step(closure))
        assert losses[0] == losses[1]
    assert_same(usual, released)


def test_after_remove_gradients_are_kept_until_step() -> None:
    (usual, optimizer), (released, in_backward) = pair("folded")
    handle = release_gradients(in_backward)
    train(usual, optimizer, range(2))
    train(released, in_backward, range(2))
    handle.remove()
    loss(released, 9).backward()
    assert released.inner.weight.grad is not None
    released.zero_grad()
    train(usual, optimizer, range(2, 4))
    train(released, in_backward, range(2, 4))
    assert_same(usual, released)


def test_exact_form_is_refused_at_once_and_when_edited_in() -> None:
    model = Tied()
    with pytest.raises(ValueError, match="use correction='folded'"):
        release_gradients(MARSAdamW(model.parameters(), correction="exact"))
    optimizer = MARSAdamW(model.parameters())
    release_gradients(optimizer)
    optimizer.param_groups[0]["correction"] = "exact"
    with pytest.raises(ValueError, match="use correction='folded'"):
        loss(model, 0).backward()


@pytest.mark.parametrize("passes", [0, -1, 1.5, True])
def test_number_of_passes_must_be_a_whole_number_above_zero(passes: Any) -> None:
    with pytest.raises(ValueError, match="passes="):
        release_gradients(MARSAdamW(Tied().parameters()), passes=passes)


def test_another_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a MARS optimizer, not AdamW"):
        release_gradients(torch.optim.AdamW(Tied().parameters()))


def test_gradient_scaler_is_refused_in_plain_words() -> None:
    model = Tied()
    optimizer = MARSAdamW(model.parameters(), correction="folded")
    release_gradients(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(model, 0)).backward()
    with pytest.raises(RuntimeError, match="cannot be used with a GradScaler"):
        scaler.step(optimizer)


def test_job_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tied()
    optimizer = MARSAdamW(model.parameters())
    release_gradients(optimizer)  # before the process group exists
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="in a job of 2 processes"):
        release_gradients(MARSAdamW(Tied().parameters()))
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="in a job of 2 processes"):
        loss(model, 0).backward()
    assert_same(model, before)


class Segments(nn.Module):
    """A layer in two reentrant segments, one in a segment and outside, one in one segment alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.both, self.once = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        def segment(x: Tensor) -> Tensor:
            return torch.tanh(self.twice(x))

        def others(x: Tensor) -> Tensor:
            return torch.tanh(self.both(self.once(x)))

        x = self.first(x)
        x = checkpoint(segment, x, use_reentrant=True)
        x = checkpoint(others, x, use_reentrant=True)
        x = checkpoint(segment, x, use_reentrant=True)
        return self.both(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("passes", [1, 2])
def test_reentrant_checkpoint_gradient_pieces_wait_for_step(passes: int) -> None:
    torch.manual_seed(0)
    models = [Segments().double()]
    models.append(copy.deepcopy(models[0]))
    optimizers = [MARSAdamW(m.parameters(), lr=0.1, correction="folded") for m in models]
    release_gradients(optimizers[1], passes=passes)
    for step in range(3 * passes):
        x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip(models, optimizers, strict=True):
            with torch.no_grad():
                model.eval()(x)  # which is no pass
            model.train()(x).square().sum().backward()
            if step % passes == passes - 1:
                if optimizer is optimizers[1]:
                    kept = {n for n, p in model.named_parameters() if p.grad is not None}
                    assert kept == {
                        f"{m}.{w}" for m in ("twice", "both") for w in ("weight", "bias")
                    }
                optimizer.step()
                optimizer.zero_grad()
        assert passes > 1 or all(
            torch.allclose(p, q, rtol=1e-12, atol=0)
            for p, q in zip(*(m.parameters() for m in models), strict=True)
        )
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("where", [0, -1])
def test_setting_refused_in_one_group_moves_no_other_group(where: int) -> None:
    model = Tied()
    optimizer = MARSAdamW(model.parameters())
    release_gradients(optimizer)
    before = copy.deepcopy(model)
    optimizer.param_groups[where]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr=-1"):
        loss(model, 0).backward()
    assert_same(model, before)


def test_gradients_are_released_by_one_handle() -> None:
    model = nn.Linear(3, 3)
    optimizer = MARSAdamW(model.parameters(), gamma="auto")
    handle = release_gradients(optimizer)
    with pytest.raises(ValueError, match=r"releases its gradients already: call remove\(\)"):
        release_gradients(optimizer)
    handle.remove()
    release_gradients(optimizer)
