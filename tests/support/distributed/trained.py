"""A training script as a user's, for torchrun: ``trained.py FOLDER [{...}, ...]``.

Each dict names a run and how it is made, as the arguments of :func:`one`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim.errors import UserError
from mars_optim.experiment.plan import ARMS, ExecutionOptions, RunSpec
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.training import join_ranks, run_writer, train

STEPS = 12
VOCABULARY, CONTEXT = 19, 8


class Words:
    """A GPT with dropout in float64, so that nothing but the order of sums can differ."""

    fingerprint = "words"
    batch_tokens = 4 * CONTEXT

    def __init__(self, width: int = 16) -> None:
        self.width = width

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = GPT(vocabulary=VOCABULARY, context=CONTEXT, layers=2, width=self.width, heads=2)
        for block in model.blocks:
            block.mlp = nn.Sequential(block.mlp, nn.Dropout(0.2))
        return model.double()

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 100 * step + 10_000 * micro)
        first = torch.randint(VOCABULARY, (4, 1), generator=generator)
        return (first + (1 + first % 3) * torch.arange(CONTEXT + 1)) % VOCABULARY

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    @torch.no_grad()
    def scores(self, model: nn.Module, tokens: int) -> dict[str, float]:
        model.eval()
        batch = self.batch(0, 999, 0).to(next(model.parameters()).device)
        loss = float(self.loss(model, batch))
        model.train()
        return {"valid_loss": loss, "bits": loss / 0.6931471805599453}

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        raise AssertionError("scores() goes before it")


def spec_of(arm: str, accumulation: int) -> RunSpec:
    return RunSpec(
        purpose="train",
        arm_name=arm,
        arm=ARMS[arm],
        lr=ARMS[arm].lr,
        seed=1,
        steps=STEPS,
        task=GptPlan(),
        training=TrainingPlan(accumulation=accumulation, evaluations=4, grad_clip=0.5),
        data="words",
    )


def one(
    folder: Path,
    name: str,
    arm: str = "mars-adamw",
    accumulation: int = 4,
    width: int = 16,
    end: int = 0,
    kill: int = 0,
    **options: Any,
) -> None:
    """``end`` leaves the run after so many steps; ``kill`` kills rank 2 there, the first time."""

    class Left(Exception):  # noqa: N818
        pass

    def on_step(step: int) -> None:
        if step == end:
            raise Left
        mark = folder / name / "killed"
        if step == kill and ranks.rank == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    ranks = join_ranks()
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f"rank {ranks.rank} of {ranks.world}").touch()
    writer = run_writer(folder / name, spec_of(arm, accumulation), {})
    try:
        writer.finish(
            train(
                spec_of(arm, accumulation),
                Words(width),
                writer,
                on_step,
                execution=ExecutionOptions(**options),
            )
        )
    except Left:
        pass
    except UserError as error:
        (folder / name / f"refused by {ranks.rank}").write_text(str(error))
    finally:
        writer.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(sys.argv[2]):
        one(Path(sys.argv[1]), **each)
