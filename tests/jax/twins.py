"""The same run twice: by PyTorch's reference loop, and by JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
import torch
from torch import Tensor, nn

from mars_optim import MARS
from mars_optim.jax import mars

SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (6, 4),
    "kernel": (3, 2, 2, 2),
    "vector": (5,),
    "scalar": (),
}
Arrays = dict[str, np.ndarray[Any, Any]]


def drawn(seed: int, size: float = 1.0, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: np.asarray(size * random.standard_normal(s)) for name, s in shapes.items()}


def gradients(steps: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> list[Arrays]:
    """Every third is long enough for the clip."""
    return [drawn(100 + t, 0.05 if t % 3 else 3.0, shapes) for t in range(steps)]


def by_torch(
    start: Arrays,
    grads: Sequence[Arrays],
    edit: Callable[[MARS, int], None] = lambda optimizer, t: None,
    before: Sequence[Arrays] = (),
    splits: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Arrays]:
    """The parameters after each step of the plain loop.

    ``before`` are the exact form's g_{t-1}, ``splits`` the blocks of arrays by their names.
    """
    params = {name: nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = (
        [
            {"params": [param], **({"split": splits[name]} if name in splits else {})}
            for name, param in params.items()
        ]
        if splits
        else list(params.values())
    )
    optimizer = MARS(groups, foreach=False, fused=False, **options)
    found = []
    for t, given in enumerate(grads):
        edit(optimizer, t)
        if before:
            with optimizer.previous_point(nn.ParameterList(params.values())):
                _set(params, before[t])
        _set(params, given)
        optimizer.step()
        found.append({name: param.detach().numpy().copy() for name, param in params.items()})
    return found


def _set(params: dict[str, nn.Parameter], grads: Arrays) -> None:
    for name, param in params.items():
        param.grad = torch.tensor(grads[name], dtype=param.dtype)


def by_jax(
    start: Arrays,
    grads: Sequence[Arrays],
    transform: optax.GradientTransformationExtraArgs,
    before: Sequence[Arrays] = (),
) -> Iterator[tuple[Arrays, Any]]:
    """The parameters and the state after each step, compiled once."""
    params = jax.tree.map(jax.numpy.asarray, start)
    state = transform.init(params)
    step = jax.jit(lambda g, s, p, **extra: _applied(transform, g, s, p, **extra))
    for t, given in enumerate(grads):
        extra = {"previous_grads": before[t]} if before else {}
        params, state = step(given, state, params, **extra)
        yield jax.tree.map(np.asarray, params), state


def _applied(transform: Any, grads: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
    updates, state = transform.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def of_torch(options: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
    """``mars`` by the options of PyTorch's class."""
    options = dict(options)
    (b1, b2), (b1_1d, b2_1d) = (
        options.pop("betas", (0.95, 0.99)),
        options.pop("betas_1d", (0.9, 0.95)),
    )
    renamed = {"lr": "learning_rate", "lr_1d": "learning_rate_1d"}
    named = {renamed.get(name, name): value for name, value in options.items()}
    return mars(b1=b1, b2=b2, b1_1d=b1_1d, b2_1d=b2_1d, output_axis="first", **named)


def assert_twins(ours: Arrays, theirs: Arrays, rtol: float = 1e-12) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=1e-15, err_msg=name)


def as_tensor(value: Any) -> Tensor:
    return torch.tensor(np.asarray(value))
