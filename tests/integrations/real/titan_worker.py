"""One rank of torchtitan's Trainer on a CPU: `torchrun titan_worker.py PAGE FOLDER STEPS DIGESTS`.

The optimizer is the recipe of the docs. Batches come from the step's number, so that a resumed run
sees what the uninterrupted one saw.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

torch._utils._get_available_device_type = lambda: "cpu"  # else torchtitan takes "cuda"

from torchtitan.components import metrics  # noqa: E402
from torchtitan.components.checkpoint import CheckpointManager  # noqa: E402
from torchtitan.components.dataloader import BaseDataLoader  # noqa: E402
from torchtitan.components.loss import CrossEntropyLoss  # noqa: E402
from torchtitan.components.optimizer import LRSchedulersContainer  # noqa: E402
from torchtitan.components.tokenizer import BaseTokenizer  # noqa: E402
from torchtitan.config import DebugConfig, ParallelismConfig, TrainingConfig  # noqa: E402
from torchtitan.distributed import utils  # noqa: E402
from torchtitan.models.common.attention import ScaledDotProductAttention  # noqa: E402
from torchtitan.models.llama3 import model_registry  # noqa: E402
from torchtitan.trainer import Trainer  # noqa: E402


class Bytes(BaseTokenizer):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config: Any, **_: Any) -> None:
        super().__init__()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, numbers: list[int]) -> str:
        return bytes(numbers).decode()

    def get_vocab_size(self) -> int:
        return 256


class Numbers(BaseDataLoader):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        pass

    def __init__(self, config: Any, *, dp_rank: int, seq_len: int, **_: Any) -> None:
        self.rank, self.length, self.step = dp_rank, seq_len, 0

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            generator = torch.Generator().manual_seed(1000 * self.step + self.rank)
            tokens = torch.randint(0, 256, (2, self.length + 1), generator=generator)
            self.step += 1
            yield {"input": tokens[:, :-1]}, tokens[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict.get("step", 0)


def recipe(page: Path) -> Any:
    section = page.read_text(encoding="utf-8").split("\n## torchtitan\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {"__name__": "recipe"}
    exec(code, scope)
    return scope["dense"]


def monitor() -> Any:
    """Readings of a GPU's memory that torchtitan wants, and a CPU does not have."""
    stats = metrics.DeviceMemStats(0.0, 0.0, 0.0, 0.0, 0, 0)
    return SimpleNamespace(
        device_name="CPU", get_peak_stats=lambda: stats, reset_peak_stats=lambda: None
    )


def trainer(page: Path, folder: Path, steps: int) -> Trainer:
    metrics.build_device_memory_monitor = monitor
    utils.set_pg_timeouts = lambda **_: None  # names a GPU's number in a barrier
    spec = model_registry("debugmodel", attn_backend="flex")
    del spec.model.layers[2:]
    for layer in spec.model.layers:  # flex attention has no backward pass on a CPU
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
    return Trainer.Config(
        model_spec=spec,
        dump_folder=str(folder),
        loss=CrossEntropyLoss.Config(global_vocab_size=2048),
        tokenizer=Bytes.Config(),
        dataloader=Numbers.Config(),
        optimizer=recipe(page),
        lr_scheduler=LRSchedulersContainer.Config(warmup_steps=1, total_steps=8),
        training=TrainingConfig(
            local_batch_size=2, seq_len=32, steps=steps, disable_cuda_graphs=True
        ),
        checkpoint=CheckpointManager.Config(enable=True, interval=2, last_save_model_only=False),
        parallelism=ParallelismConfig(spmd_backend="partial_dtensor"),
        activation_checkpoint=None,
        debug=DebugConfig(seed=1, deterministic=True),
    ).build()


def digests(run: Trainer) -> dict[str, str]:
    """Digests of this rank's part of each weight and of each entry of the optimizers' state."""
    found = {}
    state = run.optimizers.state_dict()
    for name, value in [*run.model_parts[0].named_parameters(), *state.items()]:
        if isinstance(value, torch.Tensor):
            value = getattr(value, "to_local", lambda value=value: value)()
            value = value.detach().float().numpy().tobytes()
        found[name] = hashlib.sha256(repr(value).encode()).hexdigest()
    return found


def main() -> None:
    page, folder, steps, written = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    run = trainer(page, folder, int(steps))
    for module in run.model_parts[0].modules():
        if isinstance(module, FSDPModule):  # gloo has no other for torchtitan's factor
            module.set_force_sum_reduction_for_comms(True)
    run.train()
    rank = torch.distributed.get_rank()
    kinds = sorted(type(optimizer).__name__ for optimizer in run.optimizers)
    content = {"optimizers": kinds, "digests": digests(run)}
    Path(f"{written}.{rank}").write_text(json.dumps(content), encoding="utf-8")
    run.close()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
