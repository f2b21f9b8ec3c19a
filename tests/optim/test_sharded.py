"""Parameters sharded by FSDP2 are DTensors: one process is enough to see that a step takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mars_optim import MARS
from tests.support.cases import BACKENDS, OPTIMIZERS, make_grads, make_params, run


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_sharded_parameters_step_like_whole_ones(
    make: Callable[..., MARS], backend: str, mesh: DeviceMesh
) -> None:
    def shard(x: torch.Tensor) -> Any:
        return distribute_tensor(x.detach(), mesh, [Shard(0)])

    shapes = [(6, 4), (7,)]
    whole = make_params(shapes)
    sharded = [nn.Parameter(shard(p)) for p in make_params(shapes)]
    one, other = make(whole, **BACKENDS[backend]), make(sharded, **BACKENDS[backend])
    for step in range(3):
        run(one, whole, [step])
        for param, grad in zip(sharded, make_grads(whole, step), strict=True):
            param.grad = shard(grad)
        other.step()
    for p, q in zip(whole, sharded, strict=True):
        assert isinstance(other.state[q]["exp_avg"], DTensor)
        torch.testing.assert_close(q.full_tensor(), p, rtol=1e-9, atol=1e-12)
