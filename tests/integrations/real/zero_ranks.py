"""Work of the processes under DeepSpeed: one engine after another in one group."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from mars_optim import MARSM, MARSAdamW, MARSLion, variance_reduce
from tests.support.toy import batches, loss_of, make_toy

Make = Callable[[list[nn.Parameter]], Optimizer]


def wrapped(params: list[nn.Parameter], **options: Any) -> Optimizer:
    optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.95, 0.99), weight_decay=0.1)
    variance_reduce(optimizer, gamma=0.1, **options)
    return optimizer


ELEMENTWISE = dict(lr=1e-2, gamma=0.1, clip=None, optimize_1d=True)
RIGHT: dict[str, Make] = {
    "adamw": lambda params: MARSAdamW(params, **ELEMENTWISE),
    "adamw, vectors plain": lambda params: MARSAdamW(params, lr=1e-2, gamma=0.1, clip=None),
    "lion": lambda params: MARSLion(params, **ELEMENTWISE),
    "by lr": lambda params: MARSAdamW(params, gamma_schedule="lr", **ELEMENTWISE),
    "wrapped": lambda params: wrapped(params, clip=None, optimize_1d=True),
}
WRONG: dict[str, tuple[Make, str]] = {
    "clip": (lambda params: MARSAdamW(params, lr=1e-2), "clip=1 needs the norm of a whole tensor"),
    "clip of all": (
        lambda params: MARSAdamW(params, lr=1e-2, optimize_1d=True),
        "clip=1 needs the norm of a whole tensor",
    ),
    "muon": (lambda params: MARSM(params, lr=1e-2), "rule='muon' orthogonalises whole matrices"),
    "auto": (
        lambda params: MARSAdamW(params, lr=1e-2, gamma="auto"),
        "gamma_schedule='auto' would choose a different gamma on every rank",
    ),
    "auto of all": (
        lambda params: MARSAdamW(params, lr=1e-2, gamma="auto", optimize_1d=True),
        "gamma_schedule='auto' would choose a different gamma on every rank",
    ),
    "cautious": (
        lambda params: MARSAdamW(params, **ELEMENTWISE, cautious=True),
        "cautious=True needs the mean over a whole tensor",
    ),
    "exact": (
        lambda params: MARSAdamW(params, **ELEMENTWISE, correction="exact"),
        "use correction='approx'",
    ),
    "wrapped": (wrapped, "variance_reduce corrects no 1-D tensor"),
    "wrapped, clip": (
        lambda params: wrapped(params, optimize_1d=True),
        "clip=1 needs the norm of a whole tensor",
    ),
}


def prepare() -> Any:
    """DeepSpeed over the group that there is."""
    import deepspeed

    os.environ.update(
        RANK=str(distributed.get_rank()),
        LOCAL_RANK=str(distributed.get_rank()),
        WORLD_SIZE=str(distributed.get_world_size()),
        MASTER_ADDR="localhost",
        MASTER_PORT="29500",
    )
    deepspeed.logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo needs no C++ of its own
    deepspeed.init_distributed(dist_backend="gloo")
    return deepspeed


def engine_of(stage: int, make: Make) -> Any:
    deepspeed = prepare()
    model = make_toy()
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # 1.0 unless given
        "zero_optimization": {"stage": stage},
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=make(list(model.parameters())), config=config
    )
    return engine


def steps(engine: Any, count: int) -> None:
    for batch in batches(count):
        step(engine, batch)


def step(engine: Any, batch: Any) -> None:
    engine.backward(loss_of(engine, batch))
    engine.step()


def resumes_to_the_same_bits(stage: int, choice: str, folder: str) -> None:
    engine = engine_of(stage, RIGHT[choice])
    for batch in batches(6)[:3]:
        step(engine, batch)
    engine.save_checkpoint(folder, tag="three")
    again = engine_of(stage, RIGHT[choice])
    again.load_checkpoint(folder, tag="three")
    for batch in batches(6)[3:]:
        step(engine, batch)
        step(again, batch)
    for one, other in zip(whole_parameters(engine), whole_parameters(again), strict=True):
        assert torch.equal(one, other)


def runs_the_page(code: str) -> None:
    prepare()
    scope: dict[str, Any] = {"torch": torch, "model": make_toy()}
    exec(compile(code, "docs/frameworks.md", "exec"), scope)
    first = [p.clone() for p in whole_parameters(scope["engine"])]
    steps(scope["engine"], 2)
    assert not torch.equal(first[0], whole_parameters(scope["engine"])[0])


def whole_parameters(engine: Any) -> list[Tensor]:
    from deepspeed.utils import safe_get_full_fp32_param

    return [safe_get_full_fp32_param(p) for p in engine.module.parameters()]


def trains_like_one_process(stage: int, choice: str) -> None:
    engine = engine_of(stage, RIGHT[choice])
    steps(engine, 5)
    alone = make_toy()
    optimizer = RIGHT[choice](list(alone.parameters()))
    for batch in batches(5):
        optimizer.zero_grad()
        loss_of(alone, batch).backward()
        optimizer.step()
    for found, p in zip(whole_parameters(engine), alone.parameters(), strict=True):
        torch.testing.assert_close(found, p.detach(), rtol=1e-5, atol=1e-6)


def refuses(stage: int, choice: str) -> tuple[str, bool]:
    """The refusal, and whether the parameters are those of before."""
    make, _ = WRONG[choice]
    engine = engine_of(stage, make)
    try:
        steps(engine, 1)
    except (ValueError, RuntimeError) as error:
        fresh = make_toy().parameters()
        same = (torch.equal(f, p) for f, p in zip(whole_parameters(engine), fresh, strict=True))
        return f"{type(error).__name__}: {error}", all(same)
    return "", False
