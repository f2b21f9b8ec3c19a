"""One rank of a Megatron run on a CPU: trained, saved, resumed; says what came out.

python -m tests.integrations.real.megatron_ranks RANK WORLD TENSOR_PARALLEL FOLDER CLASS OPTIONS
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn

warnings.simplefilter("ignore")

import megatron.core.optimizer as host  # noqa: E402
from megatron.core import dist_checkpointing, parallel_state  # noqa: E402
from megatron.core.optimizer import emerging_optimizers  # noqa: E402
from megatron.core.tensor_parallel import (  # noqa: E402
    ColumnParallelLinear,
    RowParallelLinear,
)
from megatron.core.transformer import TransformerConfig  # noqa: E402
from megatron.core.transformer.module import MegatronModule  # noqa: E402

import mars_optim  # noqa: E402

WIDTH, HIDDEN = 12, 24


class Block(MegatronModule):
    """Two layers cut over the tensor-parallel processes, as an MLP of Megatron's."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = {"config": config, "init_method": config.init_method, "bias": False}
        self.up = ColumnParallelLinear(WIDTH, HIDDEN, gather_output=False, **options)
        self.down = RowParallelLinear(
            HIDDEN, WIDTH, input_is_parallel=True, skip_bias_add=False, **options
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x)[0].tanh())[0]


def on_cpu(make: Any) -> Any:
    def tensor(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return make(*args, **kwargs)

    return tensor


def made(tensor_parallel: int, name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A model and Megatron's optimizer around ours."""
    config = TransformerConfig(
        num_layers=1,
        hidden_size=WIDTH,
        num_attention_heads=2,
        use_cpu_initialization=True,
        tensor_model_parallel_size=tensor_parallel,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
    )
    model = Block(config)
    # the whole matrices are those of one process
    generator = torch.Generator().manual_seed(0)
    for layer, shape, dim in ((model.up, (HIDDEN, WIDTH), 0), (model.down, (WIDTH, HIDDEN), 1)):
        whole = torch.randn(shape, generator=generator) / WIDTH**0.5
        rank = parallel_state.get_tensor_model_parallel_rank()
        with torch.no_grad():
            layer.weight.copy_(whole.chunk(tensor_parallel, dim)[rank])
    emerging_optimizers._EMERGING_OPTIMIZERS["mars"] = emerging_optimizers.EmergingOptimizerEntry(
        getattr(mars_optim, name), config_to_kwargs=lambda *_: options
    )
    settings = host.OptimizerConfig(optimizer="mars", lr=options["lr"], clip_grad=0.0)
    with (
        mock.patch.object(host, "HAVE_EMERGING_OPTIMIZERS", True),
        mock.patch("torch.tensor", on_cpu(torch.tensor)),
    ):
        return model, host.get_megatron_optimizer(settings, [model])


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for t in steps:
        torch.manual_seed(t)
        x, y = torch.randn(16, WIDTH), torch.randn(16, WIDTH)
        optimizer.zero_grad()
        (model(x) - y).square().mean().mul(10).backward()
        optimizer.prepare_grads()  # step(), without a norm of the gradients on CUDA
        optimizer.step_with_ready_grads()


def gathered(model: Any) -> list[list[Any]]:
    """Both whole matrices."""
    world = parallel_state.get_tensor_model_parallel_world_size()
    result = []
    for weight, dim in ((model.up.weight, 0), (model.down.weight, 1)):
        parts = [torch.empty_like(weight) for _ in range(world)]
        group = parallel_state.get_tensor_model_parallel_group()
        distributed.all_gather(parts, weight.detach().contiguous(), group=group)
        result.append(torch.cat(parts, dim).tolist())
    return result


def main() -> None:
    rank, world, tensor_parallel = map(int, sys.argv[1:4])
    folder, name, options = Path(sys.argv[4]), sys.argv[5], json.loads(sys.argv[6])
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tensor_parallel)
    with (
        mock.patch("torch.cuda.current_device", return_value="cpu"),
        mock.patch("torch.cuda.synchronize"),
    ):
        model, optimizer = made(tensor_parallel, name, options)
        train(model, optimizer, range(25))
        kept = {"model": model.sharded_state_dict()}
        kept["optimizer"] = optimizer.sharded_state_dict(kept["model"])
        (folder / "saved").mkdir(exist_ok=True)
        distributed.barrier()
        dist_checkpointing.save(kept, str(folder / "saved"))
        again, resumed = made(tensor_parallel, name, options)
        asked = {"model": again.sharded_state_dict()}
        asked["optimizer"] = resumed.sharded_state_dict(asked["model"], is_loading=True)
        loaded = dist_checkpointing.load(asked, str(folder / "saved"))
        again.load_state_dict(loaded["model"])
        resumed.load_state_dict(loaded["optimizer"])
        for m, o in ((model, optimizer), (again, resumed)):
            train(m, o, range(25, 45))
    result = {"whole": gathered(model), "resumed": gathered(again)}
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
