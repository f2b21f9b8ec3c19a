"""The Triton kernels on a GPU. ``benchmarks/gpu.sh`` runs these, too."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mars_optim import MARSAdamW, MARSLion
from mars_optim.optim import backends
from mars_optim.optim.backends import Bucket, wrappers
from mars_optim.optim.backends.cuda import triton_backend
from tests.support.cases import copies, make_params, same
from tests.support.kernel_parity import settings_of

from .test_triton_kernels import run_parity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here"),
]


def test_kernels_equal_the_oracle_on_a_gpu() -> None:
    run_parity()


def gpu_bucket(settings: Any, dtype: torch.dtype = torch.float32) -> Bucket:
    shapes = [(300, 700), (4099,), (1,), (0,)]
    params = [x.detach().cuda() for x in make_params(shapes, dtype=dtype)]
    grads = [x.detach().cuda() for x in make_params(shapes, dtype=dtype, seed=1)]
    states: list[dict[str, Tensor]] = [{} for _ in params]
    for param, state in zip(params, states, strict=True):
        backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
    bucket = Bucket(params, grads, states, settings)
    wrappers.counted_beside(bucket, bucket)
    return bucket


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_kernels_are_chosen_on_a_gpu(dtype: torch.dtype) -> None:
    settings = settings_of(rule="adamw", clip=1.0)
    bucket = gpu_bucket(settings, dtype)
    assert triton_backend.why_not(bucket) is None
    assert backends.choose(bucket) == "triton"


@pytest.mark.parametrize("cls", [MARSAdamW, MARSLion])
def test_step_never_waits_for_the_gpu(cls: Any) -> None:
    params = [torch.nn.Parameter(torch.randn(s, device="cuda")) for s in ((300, 70), (4099,))]
    optimizer = cls(params, optimize_1d=True)
    for step in range(4):
        for param in params:
            param.grad = torch.randn_like(param)  # at new addresses
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(param.isfinite().all() for param in params)


@pytest.mark.parametrize("rule", ["adamw", "lion"])
@pytest.mark.parametrize("fresh_grads", [False, True])
def test_replayed_graph_takes_the_steps_that_eager_code_takes(fresh_grads: bool, rule: str) -> None:
    settings = settings_of(rule=rule, clip=1.0)
    ends = []
    for captured in (False, True):
        bucket = gpu_bucket(settings)
        triton_backend.step(bucket)
        graph = torch.cuda.CUDAGraph()
        if fresh_grads:
            bucket = replace(bucket, grads=[g.clone() for g in bucket.grads])
        if captured:
            with torch.cuda.graph(graph):
                triton_backend.step(bucket)
        for step in range(4):
            for g in bucket.grads:
                g.mul_(0.5 + step)
            if captured:
                graph.replay()
            else:
                triton_backend.step(bucket)
        torch.cuda.synchronize()
        ends.append([*bucket.params, *(v for s in bucket.states for v in s.values())])
    assert same(*ends)


@pytest.mark.parametrize("fused", [None, True])  # by the scaler, which waits; in the kernels
def test_grad_scaler_skips_a_step_with_an_overflow(fused: bool | None) -> None:
    params = [torch.nn.Parameter(torch.randn(300, 70, device="cuda"))]
    optimizer = MARSAdamW(params, fused=fused)
    scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    for factor in (1.0, 1.0, math.inf, 1.0):
        before = copies([params[0], *optimizer.state[params[0]].values()])
        loss = (params[0] * factor).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        after = copies([params[0], *optimizer.state[params[0]].values()])
        assert same(before, after) == (factor == math.inf)
    assert params[0].isfinite().all()


def test_step_allocates_next_to_nothing() -> None:
    settings = settings_of(rule="adamw", clip=1.0)
    bucket = gpu_bucket(settings)
    triton_backend.step(bucket)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    triton_backend.step(bucket)
    assert torch.cuda.max_memory_allocated() - before < 20_000  # of 858 kB of parameters


def test_tensor_above_2_to_the_31_elements_is_stepped_to_its_end() -> None:
    numel = (1 << 31) + 5
    if torch.cuda.mem_get_info()[0] < 4 * 2 * numel:
        pytest.skip("needs 17 GB of free GPU memory")
    settings = settings_of(rule="lion", gamma=0.0, lr=0.5, weight_decay=0.0)
    x = torch.zeros(numel, dtype=torch.bfloat16, device="cuda")
    states = [{"exp_avg": torch.zeros_like(x), "step": torch.zeros((), device="cuda")}]
    triton_backend.step(Bucket([x], [torch.ones_like(x)], states, settings))
    assert x.min().item() == x.max().item() == -0.5
