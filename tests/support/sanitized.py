"""Run by test_layouts.py under AddressSanitizer: steps of the CPU kernels at awkward sizes."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from mars_optim.optim import backends
from mars_optim.optim.backends import Bucket
from mars_optim.optim.backends.cpu import native
from mars_optim.optim.hyperparameters import Settings

SIZES = (0, 1, 3, 7, 16, 1023, 1024, 1025, 65535, 65536, 65537, 150_001)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def settings_of(**options: Any) -> Settings:
    defaults = dict(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, gamma=0.1)
    return Settings(**{**defaults, "rule": "adamw", "clip": 1.0, "correction": "approx", **options})


def step(sizes: list[int], dtypes: list[torch.dtype], settings: Settings) -> None:
    """One step of tensors in pieces of memory of exactly their size."""
    dtype, moment_dtype, last_dtype = dtypes
    params = [torch.randn(n).to(dtype) for n in sizes]
    grads = [torch.randn(n).to(dtype) for n in sizes]
    states: list[dict[str, Any]] = []
    for n in sizes:
        names = backends.state_dtypes(dtype, settings)
        state = {k: torch.zeros(n, dtype=moment_dtype) for k in names}
        if "last_grad" in state:
            state["last_grad"] = torch.zeros(n, dtype=last_dtype)
        states.append({**state, "step": torch.tensor(0.0)})
    bucket = Bucket(params, grads, states, settings)
    reason = native.why_not(bucket)
    assert reason is None, reason
    native.step(bucket)
    assert all(state["step"] == 1.0 for state in states)


def steps() -> None:
    random.seed(0)
    torch.set_num_threads(3)
    for _ in range(150):
        correction = random.choice(["approx", "folded"])
        rule = random.choice(["adamw", "lion"])
        settings = settings_of(
            rule=rule,
            correction=correction,
            clip=None if correction == "folded" else random.choice([None, 1.0]),
            gamma=random.choice([0.0, 0.1]),
            amsgrad=rule == "adamw" and random.random() < 0.3,
        )
        sizes = random.sample(SIZES, random.randint(1, 4))
        step(sizes, random.choices(DTYPES, k=3), settings)
    print("all steps taken")


def overrun() -> None:
    """A case that why_not refuses: state shorter than its parameter."""
    x, g = torch.ones(5000), torch.ones(5000)
    state = {"step": torch.tensor(0.0), "exp_avg": torch.zeros(4000)}
    settings = settings_of(rule="lion", gamma=0.0, clip=None)
    bucket = Bucket([x], [g], [state], settings)
    assert native.why_not(bucket)
    native.step(bucket)


if __name__ == "__main__":
    {"steps": steps, "overrun": overrun}[sys.argv[1]]()
