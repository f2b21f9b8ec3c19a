"""The two-gradient form: same batch, same randomness, and nothing left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW, MARSLion

Loss = Callable[[], Tensor]


def small_net(dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(5, 8)]
    if norm:
        layers.append(nn.BatchNorm1d(8))
    layers += [nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)]
    return nn.Sequential(*layers).double()


def batches(n: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = dict(generator=generator, dtype=torch.float64)
    return [(torch.randn(6, 5, **shape), torch.randn(6, 2, **shape)) for _ in range(n)]


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(net(batch[0]), batch[1])


def closure_on(net: nn.Module, optimizer: MARS, batch: tuple[Tensor, Tensor]) -> Loss:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net, batch)
        loss.backward()
        return loss

    return closure


def train_by_closure(net: nn.Module, optimizer: MARS, n: int = 6) -> None:
    for batch in batches(n):
        optimizer.step(closure_on(net, optimizer, batch))


def train_by_hand(net: nn.Module, optimizer: MARS, n: int = 6) -> None:
    for batch in batches(n):
        optimizer.zero_grad()
        with optimizer.previous_point():
            loss_of(net, batch).backward()
        loss_of(net, batch).backward()
        optimizer.step()


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("norm", [False, True])
def test_closure_and_hand_written_loop_are_the_same_bit_for_bit(dropout: float, norm: bool) -> None:
    nets = [small_net(dropout, norm), small_net(dropout, norm)]
    for net, train in zip(nets, (train_by_closure, train_by_hand), strict=True):
        torch.manual_seed(7)
        train(net, MARSAdamW(net.parameters(), correction="exact", gamma=0.3, optimize_1d=True))
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rule", ["adamw", "lion", "muon", "shampoo"])
@pytest.mark.parametrize("maximize", [False, True])
def test_on_a_deterministic_loss_exact_equals_approx(rule: str, maximize: bool) -> None:
    batch = batches(1)[0]
    nets = {"exact": small_net(), "approx": small_net()}
    for correction, net in nets.items():
        optimizer = MARS(
            net.parameters(), rule=rule, correction=correction, gamma=0.3, maximize=maximize
        )
        for _ in range(5):
            optimizer.step(closure_on(net, optimizer, batch))
    for a, b in zip(weights(nets["exact"]), weights(nets["approx"]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_on_noisy_batches_it_is_not_approx() -> None:
    nets = {"exact": small_net(), "approx": small_net()}
    for correction, net in nets.items():
        train_by_closure(net, MARSAdamW(net.parameters(), correction=correction, gamma=0.3))
    assert not torch.allclose(nets["exact"][0].weight, nets["approx"][0].weight, atol=1e-6)


def test_gamma_one_without_clip_has_storms_momentum() -> None:
    """d_t = g(x_t, xi_t) + beta (d_{t-1} - g(x_{t-1}, xi_t)), d_1 = g(x_1, xi_1)."""
    net, beta = small_net(), 0.9
    optimizer = MARSAdamW(
        net.parameters(),
        betas=(beta, 0.99),
        gamma=1.0,
        clip=None,
        correction="exact",
        optimize_1d=True,
    )
    previous, storm = None, None
    for batch in batches(6):
        here = copy.deepcopy(net)
        g = torch.autograd.grad(loss_of(here, batch), list(here.parameters()))
        if storm is None:
            storm = list(g)
        else:
            g_prev = torch.autograd.grad(loss_of(previous, batch), list(previous.parameters()))
            storm = [a + beta * (d - b) for a, d, b in zip(g, storm, g_prev, strict=True)]
        previous = here
        optimizer.step(closure_on(net, optimizer, batch))
        for param, d in zip(net.parameters(), storm, strict=True):
            torch.testing.assert_close(optimizer.state[param]["exp_avg"], d, rtol=1e-10, atol=1e-13)


def test_both_passes_share_a_dropout_mask_and_batches_do_not() -> None:
    masks: list[Tensor] = []
    net = small_net(dropout=0.5)
    net[2].register_forward_hook(lambda m, i, o: masks.append((o != 0).clone()))
    optimizer = MARSAdamW(net.parameters(), correction="exact")
    train_by_closure(net, optimizer, 3)
    _, *pairs = masks  # the first step has one pass
    assert len(pairs) == 4
    assert torch.equal(pairs[0], pairs[1])
    assert torch.equal(pairs[2], pairs[3])
    assert not torch.equal(pairs[1], pairs[3])


@pytest.mark.parametrize("given", [False, True])
def test_buffers_are_updated_once_per_batch(given: bool) -> None:
    exact, plain = small_net(norm=True), small_net(norm=True)
    optimizer = MARSAdamW(exact.parameters(), lr=0.0, correction="exact")
    for batch in batches(4):
        with optimizer.previous_point(exact if given else None):
            loss_of(exact, batch).backward()
        loss_of(exact, batch).backward()
        optimizer.step()
        loss_of(plain, batch)
    assert int(exact[1].num_batches_tracked) == 4
    assert torch.equal(exact[1].running_mean, plain[1].running_mean)
    assert torch.equal(exact[1].running_var, plain[1].running_var)


def test_failed_previous_pass_restores_model_and_random_state() -> None:
    net = small_net(dropout=0.5, norm=True)
    optimizer = MARSAdamW(net.parameters(), correction="exact")
    train_by_closure(net, optimizer, 3)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    grads = [p.grad.clone() for p in net.parameters()]
    rng = torch.get_rng_state()

    def broken_pass() -> None:
        with optimizer.previous_point():
            loss_of(net, batches(1)[0]).backward()
            raise KeyError

    with pytest.raises(KeyError):
        broken_pass()
    assert torch.equal(torch.get_rng_state(), rng)
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key])
    for p, grad in zip(net.parameters(), grads, strict=True):
        assert torch.equal(p.grad, grad)
    with pytest.raises(RuntimeError, match="previous_point"):
        optimizer.step()  # the pass did not count


def test_inside_the_parameters_are_those_of_the_last_step() -> None:
    net = small_net()
    optimizer = MARSAdamW(net.parameters(), correction="exact")
    train_by_closure(net, optimizer, 2)
    before = weights(net)
    train_by_hand(net, optimizer, 1)
    with optimizer.previous_point():
        for p, was in zip(net.parameters(), before, strict=True):
            assert torch.equal(p, was)
            assert p.grad is None
    assert not torch.equal(net[0].weight, before[0])


def test_accumulation_adds_the_gradients_of_both_passes() -> None:
    whole, parts = small_net(), small_net()
    options = dict(correction="exact", gamma=0.3, optimize_1d=True)
    one, two = MARSAdamW(whole.parameters(), **options), MARSAdamW(parts.parameters(), **options)
    for x, y in batches(5):
        with one.previous_point():
            loss_of(whole, (x, y)).backward()
        loss_of(whole, (x, y)).backward()
        one.step()
        one.zero_grad()
        for half in ((x[:3], y[:3]), (x[3:], y[3:])):
            with two.previous_point():
                (loss_of(parts, half) / 2).backward()
            (loss_of(parts, half) / 2).backward()
        two.step()
        two.zero_grad()
    for a, b in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_step_without_previous_pass_is_refused_with_advice() -> None:
    net = small_net()
    optimizer = MARSAdamW(net.parameters(), correction="exact")
    batch = batches(1)[0]
    loss_of(net, batch).backward()
    optimizer.step()  # the first step has no previous point
    was = weights(net)
    with pytest.raises(RuntimeError, match="before the usual pass do"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(weights(net), was, strict=True))


def test_gamma_zero_needs_no_second_pass_and_no_memory() -> None:
    net = small_net()
    optimizer = MARSAdamW(net.parameters(), correction="exact", gamma=0.0)
    calls = []
    for batch in batches(3):
        closure = closure_on(net, optimizer, batch)
        optimizer.step(lambda c=closure: calls.append(1) or c())
    assert len(calls) == 3
    assert not any("last_param" in state for state in optimizer.state.values())


@pytest.mark.parametrize("copier", [copy.deepcopy, None], ids=["deepcopy", "state_dict"])
def test_it_resumes_bit_for_bit(copier: Callable[..., object] | None) -> None:
    net = small_net(dropout=0.3)
    optimizer = MARSLion(net.parameters(), lr=1e-3, correction="exact", gamma=0.3)
    train_by_closure(net, optimizer, 3)
    if copier:
        net2, optimizer2 = copier((net, optimizer))
    else:
        net2 = copy.deepcopy(net)
        optimizer2 = MARSLion(net2.parameters(), lr=0.1, correction="approx")
        optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for n, o in ((net, optimizer), (net2, optimizer2)):
        torch.manual_seed(3)
        train_by_closure(n, o, 3)
    for a, b in zip(weights(net), weights(net2), strict=True):
        assert torch.equal(a, b)


class Scaled:
    """A GradScaler's face: a power of two, as real ones have."""

    def __init__(self, scale: float) -> None:
        self.value = scale

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.value

    def get_scale(self) -> float:
        return self.value


def test_scaled_passes_are_unscaled_exactly() -> None:
    nets, scaler = [small_net(), small_net()], Scaled(2.0**10)
    for net, given in zip(nets, (None, scaler), strict=True):
        optimizer = MARSAdamW(net.parameters(), correction="exact", gamma=0.3)
        for batch in batches(4):
            optimizer.zero_grad()
            with optimizer.previous_point(scaler=given):
                loss = loss_of(net, batch)
                (given.scale(loss) if given else loss).backward()
            loss_of(net, batch).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(*map(weights, nets), strict=True))


def test_overflow_in_scaled_previous_pass_means_no_correction() -> None:
    net = small_net()
    optimizer = MARSAdamW(net.parameters(), correction="exact", gamma=0.3, clip=None)
    train_by_closure(net, optimizer, 2)
    momentum = optimizer.state[net[0].weight]["exp_avg"].clone()
    optimizer.zero_grad()
    with optimizer.previous_point(scaler=Scaled(2.0**10)):
        (loss_of(net, batches(1)[0]) * float("inf")).backward()
    loss_of(net, batches(1)[0]).backward()
    grad = net[0].weight.grad.clone()
    optimizer.step()
    expected = torch.lerp(momentum, grad, 1 - 0.95)
    torch.testing.assert_close(optimizer.state[net[0].weight]["exp_avg"], expected)
