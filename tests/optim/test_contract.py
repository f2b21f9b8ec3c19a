"""Duties of a torch optimizer, for every optimizer of the package: step and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from tests.support.cases import (
    BACKENDS,
    OPTIMIZERS,
    RULE_OF,
    copies,
    make_grads,
    make_params,
    run,
    same,
)

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
Make = Callable[..., MARS]


# --- gradients ------------------------------------------------------------------------------------


@every_optimizer
@every_backend
@pytest.mark.parametrize("maximize", [False, True])
def test_step_leaves_gradients_as_they_are(make: Make, backend: str, maximize: bool) -> None:
    params = make_params()
    optimizer = make(params, maximize=maximize, **BACKENDS[backend])
    for step in range(3):
        grads = make_grads(params, step)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        owned = [param.grad for param in params]
        optimizer.step()
        assert same(owned, grads)
        assert all(param.grad is grad for param, grad in zip(params, owned, strict=True))


@every_optimizer
@every_backend
def test_state_shares_no_memory_with_gradients(make: Make, backend: str) -> None:
    params = make_params()
    optimizer = make(params, **BACKENDS[backend])
    run(optimizer, params, range(2))
    for param in params:
        assert param.grad is not None
        for value in optimizer.state[param].values():
            assert value.untyped_storage().data_ptr() != param.grad.untyped_storage().data_ptr()


def zeroed(optimizer: MARS, params: list[nn.Parameter]) -> None:
    optimizer.zero_grad(set_to_none=False)


def overwritten(optimizer: MARS, params: list[nn.Parameter]) -> None:
    for param in params:
        assert param.grad is not None
        param.grad.fill_(1e6)


@every_optimizer
@every_backend
@pytest.mark.parametrize("afterwards", [zeroed, overwritten])
def test_trajectory_does_not_depend_on_reuse_of_gradient_memory(
    make: Make, backend: str, afterwards: Callable[[MARS, list[nn.Parameter]], None]
) -> None:
    replaced, reused = make_params(), make_params()
    one = make(replaced, **BACKENDS[backend])
    other = make(reused, **BACKENDS[backend])
    for param in reused:
        param.grad = torch.zeros_like(param)
    for step in range(4):
        run(one, replaced, [step])
        one.zero_grad(set_to_none=True)
        for param, grad in zip(reused, make_grads(reused, step), strict=True):
            assert param.grad is not None
            param.grad.copy_(grad)  # the same memory at every step
        other.step()
        assert same(replaced, reused)
        afterwards(other, reused)


@every_optimizer
def test_sparse_gradient_is_refused_by_the_name_of_its_parameter(make: Make) -> None:
    embedding = nn.Embedding(4, 3, sparse=True)
    optimizer = make([("tokens.weight", embedding.weight)])
    embedding(torch.tensor([1, 2])).sum().backward()
    before = copies([embedding.weight])
    with pytest.raises(ValueError, match=r"sparse.*tokens\.weight.*sparse=False"):
        optimizer.step()
    assert same([embedding.weight], before)


@every_optimizer
def test_step_without_any_gradient_does_nothing(make: Make) -> None:
    params = make_params()
    optimizer = make(params)
    before = copies(params)
    assert optimizer.step() is None
    assert same(params, before)
    assert not optimizer.state


@every_optimizer
def test_parameter_without_gradient_stays_and_has_no_state(make: Make) -> None:
    params = make_params()
    optimizer = make(params)
    before = copies(params)
    for param, grad in zip(params[1:], make_grads(params[1:], 0), strict=True):
        param.grad = grad
    optimizer.step()
    assert same(params[:1], before[:1])
    assert params[0] not in optimizer.state
    assert not any(same([p], [q]) for p, q in zip(params[1:], before[1:], strict=True))


@every_optimizer
def test_late_first_gradient_moves_parameter_as_if_fresh(make: Make) -> None:
    shapes = [(5, 3), (7,)]
    early, late, fresh = (make_params(shapes, seed=s) for s in (1, 2, 2))
    together, alone = make([*early, *late]), make(fresh)
    run(together, early, range(5))  # ``late`` has no gradient yet
    for step in range(3):
        for param, grad in zip(late, make_grads(late, step), strict=True):
            param.grad = grad
        together.step()
        torch.testing.assert_close(copies(late), run(alone, fresh, [step]), rtol=1e-12, atol=0)


# --- state ----------------------------------------------------------------------------------------


@every_optimizer
def test_state_is_empty_until_the_first_step(make: Make) -> None:
    assert not make(make_params()).state


@pytest.mark.parametrize("optimize_1d", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.025])
@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("cls", RULE_OF)
def test_state_holds_what_the_rule_needs_and_no_more(
    cls: type[MARS], correction: str, gamma: float, optimize_1d: bool
) -> None:
    matrix, vector = params = make_params([(5, 3), (7,)])
    optimizer = cls(params, correction=correction, gamma=gamma, optimize_1d=optimize_1d)
    run(optimizer, params, range(2))
    base = {"step", "exp_avg"}
    second = {"exp_avg_sq"}
    history = {"last_grad"} if correction == "approx" and gamma else set()
    lion_vector = optimize_1d and cls is MARSLion
    vector_keys = base | (set() if lion_vector else second) | (history if optimize_1d else set())
    assert optimizer.state[matrix].keys() == base | history | (
        second if cls is MARSAdamW else set()
    )
    assert optimizer.state[vector].keys() == vector_keys
    for param in params:
        for key, value in optimizer.state[param].items():
            assert value.shape == (() if key == "step" else param.shape)


def test_amsgrad_keeps_the_maximum_of_the_second_moment() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, amsgrad=True)
    run(optimizer, params, range(3))
    for param in params:
        state = optimizer.state[param]
        assert (state["max_exp_avg_sq"] >= state["exp_avg_sq"]).all()


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        *((make, torch.float64) for make in OPTIMIZERS.values()),
        (MARSAdamW, torch.complex128),
        (MARSLion, torch.complex128),
    ],
    ids=[*OPTIMIZERS, "MARSAdamW-complex", "MARSLion-complex"],
)
def test_foreign_entries_in_the_state_do_no_harm(make: Make, dtype: torch.dtype) -> None:
    plain, marked = make_params(dtype=dtype), make_params(dtype=dtype)
    one, other = make(plain), make(marked)
    for param in marked:
        other.state[param]["host"] = {"frozen": False}
    assert same(run(one, plain), run(other, marked))
    assert all(other.state[param]["host"] == {"frozen": False} for param in marked)


# --- closure and learning rate --------------------------------------------------------------------


@every_optimizer
def test_closure_is_called_once_with_grad_and_its_loss_returned(make: Make) -> None:
    params = make_params()
    optimizer = make(params)
    before = copies(params)
    modes = []

    def closure() -> Tensor:
        modes.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = sum((param**2).sum() for param in params)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert modes == [True]
    assert loss.item() == pytest.approx(sum(float((x**2).sum()) for x in before))
    assert not any(same([x], [y]) for x, y in zip(params, before, strict=True))


@every_optimizer
@every_backend
def test_step_at_learning_rate_zero_leaves_parameters(make: Make, backend: str) -> None:
    params = make_params()
    optimizer = make(params, lr=0.0, weight_decay=0.5, **BACKENDS[backend])
    before = copies(params)
    assert same(run(optimizer, params), before)
    assert all(optimizer.state[param]["step"] == 4 for param in params)


@every_optimizer
def test_learning_rate_may_be_a_tensor(make: Make) -> None:
    plain, tensor = make_params(), make_params()
    one, other = make(plain, lr=0.125), make(tensor, lr=torch.tensor(0.125))
    assert same(run(one, plain), run(other, tensor))
    for group, its_twin in zip(one.param_groups, other.param_groups, strict=True):
        group["lr"] = its_twin["lr"] / 2
        its_twin["lr"] = its_twin["lr"] / 2
    assert same(run(one, plain), run(other, tensor))


@every_optimizer
def test_priming_step_with_zero_gradients_changes_no_momentum(make: Make) -> None:
    primed, plain = make_params(), make_params()
    one, other = make(primed, lr=0.0), make(plain)
    for param in primed:
        param.grad = torch.zeros_like(param)
    before = copies(primed)
    one.step()  # as torch.distributed.checkpoint does to allocate state
    assert same(primed, before)
    run(one, primed, range(3))
    run(other, plain, range(3))
    for p, q in zip(primed, plain, strict=True):
        assert torch.equal(one.state[p]["exp_avg"], other.state[q]["exp_avg"])


# --- dtypes ---------------------------------------------------------------------------------------


@every_optimizer
@every_backend
def test_bfloat16_parameters_step(make: Make, backend: str) -> None:
    shapes = [(8, 4), (7,)]
    half, full = make_params(shapes, dtype=torch.bfloat16), make_params(shapes)
    for params in (half, full):
        run(make(params, lr=0.3, **BACKENDS[backend]), params, range(3))
    for p, q, start in zip(half, full, make_params(shapes), strict=True):
        assert p.dtype == torch.bfloat16
        assert (p.detach().double() - q).norm() < 0.2 * (q - start).norm()


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize("cls", [MARSAdamW, MARSLion])
def test_complex_parameters_step_as_pairs_of_reals(cls: type[MARS], correction: str) -> None:
    complexes = make_params([(5, 3), (7,)], dtype=torch.complex128)
    pairs = [nn.Parameter(torch.view_as_real(p.detach()).clone()) for p in complexes]
    options = dict(optimize_1d=True, correction=correction, lr=0.1)
    one, other = cls(complexes, **options), cls(pairs, **options)
    for step in range(4):
        for p, q, grad in zip(complexes, pairs, make_grads(pairs, step), strict=True):
            p.grad, q.grad = torch.view_as_complex(grad.clone()), grad
        one.step()
        other.step()
        assert same([torch.view_as_real(p.detach()) for p in complexes], pairs)


@pytest.mark.parametrize("cls", [MARSAdamW, MARSLion])
def test_conjugate_view_is_taken_as_a_gradient(cls: type[MARS]) -> None:
    (param,) = make_params([(5, 3)], dtype=torch.complex128)
    optimizer = cls([param], gamma=0.0, clip=None)
    (param.conj() * torch.tensor([1 + 2j])).real.sum().backward()
    assert param.grad is not None
    assert param.grad.is_conj()  # which autograd hands out unasked
    optimizer.step()
    torch.testing.assert_close(optimizer.state[param]["exp_avg"] / 0.05, param.grad.resolve_conj())


@pytest.mark.parametrize("cls", [MARSShampoo, MARSM])
def test_matrix_rules_refuse_complex_parameters(cls: type[MARS]) -> None:
    with pytest.raises(ValueError, match=r"complex.*'adamw' or 'lion'"):
        cls(make_params([(5, 3)], dtype=torch.complex64))
