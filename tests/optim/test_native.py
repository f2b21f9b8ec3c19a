"""The CPU kernels: built when needed, done without if need be, the same on any threads."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARSAdamW, MARSLion
from mars_optim.optim import backends, reference
from mars_optim.optim.backends import Bucket, loop, mixed_dtype
from mars_optim.optim.backends.cpu import build, native
from mars_optim.optim.hyperparameters import Settings
from tests.support.cases import needs_compiler

pytestmark = needs_compiler
BLOCK = 65536


@pytest.fixture
def fresh_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and nothing loaded yet in this process."""
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    build.library.cache_clear()
    yield tmp_path / "cache"
    build.library.cache_clear()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def settings_of(**options: Any) -> Settings:
    defaults = dict(lr=0.01, betas=(0.95, 0.99), eps=1e-8, weight_decay=0.1, gamma=0.1)
    return Settings(**{**defaults, "rule": "adamw", "clip": 1.0, "correction": "approx", **options})


def one_step(
    step: Any, settings: Settings, shapes: list[tuple[int, ...]], dtypes: list[torch.dtype]
) -> tuple[list[Tensor], list[reference.State]]:
    """Parameters and states after two steps; dtypes of parameter, moments and history."""
    generator = torch.Generator().manual_seed(3)
    dtype, moment_dtype, last_dtype = dtypes
    params = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    states: list[reference.State] = []
    for x in params:
        state = {"step": torch.tensor(0.0)}
        for name in backends.state_dtypes(dtype, settings):
            own = last_dtype if name == "last_grad" else moment_dtype
            state[name] = torch.zeros_like(x, dtype=own)
        states.append(state)
    for _ in range(2):
        grads = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
        step(Bucket(params, grads, states, settings))
    return params, states


@pytest.mark.parametrize("rule", ["adamw", "lion"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_result_is_bit_identical_on_any_number_of_threads(
    rule: str, clip: float | None, threads: None
) -> None:
    shapes = [(3 * BLOCK + 5,), (7,), (BLOCK,), (1,), (0,), (300, 400)]
    settings, ends = settings_of(rule=rule, clip=clip), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        ends.append(one_step(native.step, settings, shapes, [torch.float32] * 3))
    for params, states in ends[1:]:
        for x, y in zip(params, ends[0][0], strict=True):
            assert torch.equal(x, y)
        for state, other in zip(states, ends[0][1], strict=True):
            assert all(torch.equal(state[k], other[k]) for k in other)


@pytest.mark.parametrize("size", [1, 3, 127, 4099, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
def test_every_element_of_every_block_is_the_oracles(size: int) -> None:
    settings, double = settings_of(), [torch.float64] * 3
    ours, our_states = one_step(native.step, settings, [(size,)], double)
    theirs, their_states = one_step(loop.step, settings, [(size,)], double)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(our_states, their_states, rtol=1e-12, atol=1e-14)


DTYPES = list(product((torch.float32, torch.bfloat16, torch.float16), repeat=3))


@pytest.mark.parametrize("rule", ["adamw", "lion"])
@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda d: "-".join(str(x)[6:] for x in d))
def test_mixed_dtypes_compute_in_float32_and_store_in_their_own(
    rule: str, dtypes: list[torch.dtype]
) -> None:
    settings = settings_of(rule=rule)

    wanted = partial(mixed_dtype.step, loop.step)
    ours, our_states = one_step(native.step, settings, [(1500,), (3, 5)], dtypes)
    theirs, their_states = one_step(wanted, settings, [(1500,), (3, 5)], dtypes)
    for x, y, state, other in zip(ours, theirs, our_states, their_states, strict=True):
        for got, want in ((x, y), *((state[k], other[k]) for k in other)):
            assert got.dtype == want.dtype
            # sums of products round differently: at most the last bit of the stored dtype
            bit = torch.finfo(want.dtype).eps
            size = float(want.abs().max())
            torch.testing.assert_close(got, want, rtol=2 * bit, atol=max(0.1 * bit, 1e-6) * size)


def test_long_norm_keeps_its_digits() -> None:
    # 38 M equal elements: a float32 sum in one run would be off by parts in a thousand
    c = torch.full((38_597_376,), 0.01)
    x, last, m = torch.zeros_like(c), torch.zeros_like(c), torch.zeros_like(c)
    state = {"step": torch.tensor(0.0), "exp_avg": m, "last_grad": last}
    native.step(Bucket([x], [c], [state], settings_of(rule="lion", gamma=0.0, clip=1.0)))
    norm = 0.01 * 38_597_376**0.5
    torch.testing.assert_close(m[0].item(), 0.05 * 0.01 / norm, rtol=1e-6, atol=0.0)


def test_lazy_negative_is_not_read_as_its_opposite() -> None:
    z = torch.randn(6, dtype=torch.complex64)
    g = z.conj().imag
    assert g.is_neg()
    x, twin = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
    ours, theirs = MARSLion([x], optimize_1d=True), MARSLion([twin], optimize_1d=True)
    x.grad, twin.grad = g, -z.imag.clone()
    ours.step()
    theirs.step()
    assert torch.equal(x, twin)


LAYOUTS = {
    "gradient in another order": (torch.ones(4, 3), torch.ones(3, 4).t()),
    "gaps": (torch.ones(6, 3)[::2], torch.ones(6, 3)[::2]),
    "overlaps": (torch.ones(1, 3).expand(4, 3), torch.ones(1, 3).expand(4, 3)),
}


@pytest.mark.parametrize(("x", "g"), LAYOUTS.values(), ids=LAYOUTS)
def test_kernel_declines_gaps_overlaps_and_unequal_layouts(x: Tensor, g: Tensor) -> None:
    state = {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(x)}
    assert native.why_not(Bucket([x], [g], [state], settings_of(rule="lion", gamma=0.0)))


@pytest.mark.parametrize(
    "last",
    [
        torch.ones(2, 4),
        torch.ones(3, 3),
        torch.ones(2, 3, device="meta"),
        torch.ones(2, 3, dtype=torch.float64),
        torch._neg_view(torch.ones(2, 3)),
    ],
    ids=["larger", "smaller", "elsewhere", "wider", "lazy negative"],
)
def test_sums_decline_gradients_that_do_not_fit(last: Tensor) -> None:
    assert native.sums_with([torch.ones(2, 3)], [last], 0.5) is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_sums_are_those_of_any_layout(memory_format: torch.memory_format) -> None:
    g, last = (torch.randn(2, 3, 4, 5).to(memory_format=memory_format) for _ in range(2))
    found = native.sums_with([g], [last], 0.0)
    assert found is not None
    wanted = [g.square().sum(), g.square().sum(), last.square().sum(), (g * last).sum()]
    torch.testing.assert_close(found[0], torch.stack(wanted).double(), rtol=1e-5, atol=1e-5)


def test_channels_last_is_no_obstacle() -> None:
    param = nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    twin = nn.Parameter(param.detach().contiguous())
    grad = torch.randn(4, 3, 5, 5)
    ours, theirs = MARSAdamW([param], fused=True), MARSAdamW([twin], foreach=True)
    for _ in range(3):
        param.grad, twin.grad = grad.to(memory_format=torch.channels_last), grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-7)


# --- the build ------------------------------------------------------------------------------


def test_library_is_built_once_and_found_again(
    fresh_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mars_optim"):
        first = build.library("float")
        assert first.c is not None
        assert "built in" in first.note
        assert "built in" in caplog.text  # the wait is shown
        build.library.cache_clear()
        second = build.library("float")
    assert "built in" not in second.note
    assert caplog.text.count("built in") == 1
    assert len(list(fresh_library.iterdir())) == 1


def test_everything_works_without_a_compiler_and_says_why(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    found = build.library("float")
    assert found.c is None
    assert "no C compiler found (no-such-compiler)" in found.note
    param = nn.Parameter(torch.ones(3, 2))
    optimizer = MARSLion([param])
    param.grad = torch.ones(3, 2)
    optimizer.step()
    assert param.ne(1.0).all()


def test_compiler_that_fails_is_no_error(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = fresh_library.parent / "cc"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho no header >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    found = build.library("float")
    assert found.c is None
    assert "no header" in found.note
    assert not list(fresh_library.iterdir())


@pytest.mark.slow
def test_damaged_library_in_the_cache_is_built_anew(fresh_library: Path) -> None:
    assert build.library("float").c is not None
    (path,) = fresh_library.iterdir()
    path.unlink()
    path.write_bytes(b"no library")
    code = "from mars_optim.optim.backends.cpu.build import library; assert library('float').c"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # none is loaded there
    assert path.stat().st_size > 1000


def test_switch_in_the_environment_forbids_it(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.library("float") == build.Library(None, "switched off by MARS_OPTIM_NATIVE=0")
    assert not fresh_library.exists()


@pytest.mark.slow
def test_processes_that_build_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = "from mars_optim.optim.backends.cpu.build import library; assert library('float').c"
    environment = {**os.environ, build.CACHE: str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_forked_process_steps_with_threads_of_its_own(threads: None) -> None:
    torch.set_num_threads(2)
    param = nn.Parameter(torch.ones(3 * BLOCK))
    optimizer = MARSLion([param], optimize_1d=True)
    param.grad = torch.ones_like(param)
    optimizer.step()
    pid = os.fork()
    if pid == 0:  # no pytest in the child, and no operation of torch's that would use its threads
        signal.alarm(20)
        before = param[-1].item()
        optimizer.step()
        os._exit(0 if param[-1].item() < before else 1)
    assert os.waitpid(pid, 0)[1] == 0


# --- what a step may find after edits -----------------------------------------------------------


def test_amsgrad_switched_off_in_a_run_is_off() -> None:
    ends = []
    for way in ({}, {"foreach": True}):
        param = nn.Parameter(torch.ones(4, 3))
        optimizer = MARSAdamW([param], amsgrad=True, betas=(0.9, 0.5), **way)
        for t in range(4):
            optimizer.param_groups[0]["amsgrad"] = t < 2
            param.grad = torch.full_like(param, (5.0, 3.0, 0.01, 0.01)[t])
            optimizer.step()
        ends.append(param)
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


WRONG: dict[str, Any] = {
    "another dtype": lambda v: v.bfloat16(),
    "another size": lambda v: v[:2].clone(),
    "another device": lambda v: v.to("meta"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_state_unlike_its_parameter_is_never_read_by_address(change: Any) -> None:
    param = nn.Parameter(torch.ones(4, 3))
    optimizer = MARSAdamW([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    state = optimizer.state[param]
    state["exp_avg_sq"] = change(state["exp_avg_sq"])
    settings = settings_of()
    assert native.why_not(Bucket([param], [param.grad], [state], settings))
