"""Every fast path computes what the oracle ``reference.update`` computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.optim import backends, reference
from mars_optim.optim.backends import Bucket
from mars_optim.optim.backends.cpu import native
from mars_optim.optim.backends.cpu.build import Library
from mars_optim.optim.backends.cuda import triton_backend
from mars_optim.optim.hyperparameters import Settings
from tests.support.cases import needs_compiler
from tests.support.kernel_parity import FAST, HERE, compare, fill, settings_of


def can_do(backend: str, settings: Settings) -> bool:
    if backend == "fused":
        return settings.rule == "adamw" and not settings.folds and not settings.cautious
    if backend == "native":
        return settings.rule in ("adamw", "lion") and not settings.cautious
    return True


def table() -> list[Any]:
    """Every combination of options that is one."""
    rows = []
    for rule, correction, clip, amsgrad, maximize, decay, gamma in product(
        ("adamw", "lion", "shampoo", "muon"),
        ("approx", "folded"),
        (None, 1.0, 0.1),
        (False, True),
        (False, True),
        (0.0, 0.1),
        (0.0, 0.025, 0.3),
    ):
        if (correction == "folded" and clip) or (amsgrad and rule != "adamw"):
            continue
        settings = settings_of(
            rule=rule,
            correction=correction,
            clip=clip,
            amsgrad=amsgrad,
            maximize=maximize,
            weight_decay=decay,
            gamma=gamma,
        )
        switches = "amsgrad" * amsgrad + "maximize" * maximize
        name = f"{rule}-{correction}-clip={clip}-gamma={gamma}-decay={decay}-{switches}"
        for backend in HERE:
            if can_do(backend, settings):
                rows.append(pytest.param(backend, settings, id=f"{backend}-{name}"))
    return rows


@pytest.mark.slow_but_one(among=7)
@pytest.mark.parametrize(("backend", "settings"), table())
def test_backend_equals_the_oracle(backend: str, settings: Settings) -> None:
    compare(backend, settings)


def later_options() -> list[Any]:
    """The options that came later, in fewer combinations with the first ones."""
    rows = []
    for rule, (correction, clip), clip_over, cautious, maximize, amsgrad in product(
        ("adamw", "lion", "shampoo", "muon"),
        (("approx", 1.0), ("approx", None), ("folded", None), ("approx", 0.1)),
        ("tensor", "global"),
        (False, True),
        (False, True),
        (False, True),
    ):
        late = cautious or (clip_over == "global" and clip)
        if not late or (amsgrad and rule != "adamw") or (clip_over == "global" and not clip):
            continue
        options = dict(clip_over=clip_over, cautious=cautious, maximize=maximize, amsgrad=amsgrad)
        settings = settings_of(rule=rule, correction=correction, clip=clip, gamma=0.3, **options)
        switches = "-".join(k for k, v in options.items() if v is True)
        for backend in HERE:
            if can_do(backend, settings):
                name = f"{backend}-{rule}-{correction}-clip={clip}-{clip_over}-{switches}"
                rows.append(pytest.param(backend, settings, id=name))
    return rows


@pytest.mark.slow_but_one(among=7)
@pytest.mark.parametrize(("backend", "settings"), later_options())
def test_backend_equals_the_oracle_with_later_options(backend: str, settings: Settings) -> None:
    compare(backend, settings)


@pytest.mark.parametrize("backend", ["fused", "native", "triton"])
def test_a_kernel_that_cannot_be_cautious_says_so(backend: str) -> None:
    x, state = torch.ones(3), {}
    settings = settings_of(rule="adamw", cautious=True)
    backends.init_state(x, state, backends.state_dtypes(x.dtype, settings))
    stepper = backends.BACKENDS[backend]
    unfit = triton_backend.tensors_unfit if backend == "triton" else stepper.why_not
    assert "cautious" in (unfit(Bucket([x], [x], [state], settings)) or "")


# rule, gamma, foreach=, fused=, what is taken with our CPU kernels, and without
CHOICES: list[tuple[str, float, bool | None, bool | None, str, str]] = [
    ("adamw", 0.1, None, None, "native", "fused"),
    ("adamw", 0.1, None, True, "native", "fused"),
    ("adamw", 0.1, False, True, "native", "fused"),
    ("adamw", 0.0, None, None, "fused", "fused"),  # torch's own AdamW, bit for bit
    ("adamw", 0.1, None, False, "foreach", "foreach"),
    ("adamw", 0.1, True, None, "foreach", "foreach"),
    ("adamw", 0.1, False, None, "reference", "reference"),
    ("adamw", 0.1, False, False, "reference", "reference"),
    ("lion", 0.1, None, None, "native", "foreach"),
    ("lion", 0.1, None, False, "foreach", "foreach"),
    ("lion", 0.1, False, None, "reference", "reference"),
    ("muon", 0.1, None, None, "foreach", "foreach"),
]


@pytest.mark.parametrize(
    "compiler",
    [pytest.param(True, marks=needs_compiler, id="compiler"), pytest.param(False, id="none")],
)
@pytest.mark.parametrize(("rule", "gamma", "use_foreach", "use_fused", "best", "plain"), CHOICES)
def test_backend_is_the_fastest_or_the_one_asked_for(
    rule: str,
    gamma: float,
    use_foreach: bool | None,
    use_fused: bool | None,
    best: str,
    plain: str,
    compiler: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not compiler:
        none = Library(None, "no CPU kernels: no C compiler found")
        monkeypatch.setattr(native, "library", lambda real: none)
    x, g, state = torch.ones(3), torch.ones(3), {}
    settings = settings_of(rule=rule, gamma=gamma, foreach=use_foreach, fused=use_fused)
    backends.init_state(x, state, backends.state_dtypes(x.dtype, settings))
    chosen = backends.choose(Bucket([x], [g], [state], settings))
    assert chosen == (best if compiler else plain)


@pytest.mark.parametrize("done", [0, 1, 9], ids=["t=1", "t=2", "t=10"])
@pytest.mark.parametrize("backend", FAST)
def test_bias_correction_is_right_from_the_first_step(backend: str, done: int) -> None:
    compare(backend, settings_of(rule="adamw", clip=1.0), done=done, steps=1)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(
    ("backend", "rule", "correction"),
    [
        ("foreach", "adamw", "approx"),
        ("fused", "adamw", "approx"),
        *(
            pytest.param("native", rule, correction, marks=needs_compiler)
            for rule, correction in (("adamw", "approx"), ("lion", "approx"), ("adamw", "folded"))
        ),
        ("foreach", "lion", "approx"),
        ("foreach", "adamw", "folded"),
        ("foreach", "lion", "folded"),
    ],
)
def test_float32_backend_is_near_the_float64_oracle(
    backend: str, rule: str, correction: str, clip: float | None
) -> None:
    if correction == "folded" and clip:
        clip = None
    settings = settings_of(rule=rule, correction=correction, clip=clip)
    # a step is lr = 0.01 long: one part in ten thousand of it
    compare(backend, settings, dtype=torch.float32, rtol=1e-6, atol=1e-6)


@given(
    lr=st.floats(0.0, 1.0),
    betas=st.tuples(st.floats(0.0, 0.999), st.floats(0.0, 0.9999)),
    gamma=st.floats(0.0, 2.0),
    clip=st.none() | st.floats(1e-3, 1e3),
    size=st.integers(0, 70),
    backend=st.sampled_from(HERE),
)
def test_backend_equals_the_oracle_at_any_hyper_parameters(
    lr: float,
    betas: tuple[float, float],
    gamma: float,
    clip: float | None,
    size: int,
    backend: str,
) -> None:
    settings = settings_of(rule="adamw", lr=lr, betas=betas, gamma=gamma, clip=clip)
    like = [torch.empty(size), torch.empty(2, size), torch.empty(1)]
    compare(backend, settings, like=like, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("backend", FAST)
def test_nan_in_a_gradient_spreads_as_in_the_oracle(backend: str, clip: float | None) -> None:
    settings = settings_of(rule="adamw", clip=clip)
    results = []
    for name in (backend, "reference"):
        params = [torch.ones(4), torch.ones(4)]
        grads = [torch.ones(4), torch.tensor([1.0, float("nan"), 1.0, 1.0])]
        states: list[reference.State] = [{}, {}]
        for param, state in zip(params, states, strict=True):
            backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
        backends.BACKENDS[name].step(Bucket(params, grads, states, settings))
        assert params[0].isfinite().all()
        results.append(params[1].isnan().tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("backend", FAST)
def test_parameters_at_odd_addresses_are_updated_to_the_end(backend: str) -> None:
    settings = settings_of(rule="adamw", clip=1.0)
    ends = []
    for name in (backend, "reference"):
        storages = fill([torch.empty(n + 2) for n in (3, 513, 4097)], 0, torch.float64)
        params = [storage[1:-1] for storage in storages]
        grads = [g[1:-1] for g in fill(storages, 7, torch.float64)]
        states: list[reference.State] = [{} for _ in params]
        for param, state in zip(params, states, strict=True):
            backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
        backends.BACKENDS[name].step(Bucket(params, grads, states, settings))
        ends.append(storages)
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)
