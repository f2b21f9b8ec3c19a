"""Under litgpt's own pretraining: named as docs/frameworks.md says, resumed, and migrated."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARS, MARSM, MARSAdamW, migrate

litgpt = pytest.importorskip("litgpt", reason="litgpt is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix

NAMED = {"class_path": "mars_optim.MARSAdamW", "init_args": {"lr": 3e-3}}
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3, "weight_decay": 0.1}}


class Resumable(torch.utils.data.DataLoader[Any]):
    """As litdata's StreamingDataLoader: its place is in the checkpoint."""

    seen = 0

    def __iter__(self) -> Any:
        for i, batch in enumerate(super().__iter__()):
            if i >= self.seen:
                self.seen = i + 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def pretrain(folder: Path, optimizer: Any, *, steps: int = 4, resume: bool | Path = False) -> None:
    from litgpt.args import EvalArgs, LogArgs, TrainArgs
    from litgpt.data import DataModule
    from litgpt.pretrain import setup

    class Rows(DataModule):  # type: ignore[misc]
        def connect(self, *args: Any, **kwargs: Any) -> None:
            pass

        def train_dataloader(self) -> Any:
            rows = [torch.arange(i, i + 9) % 32 for i in range(64)]
            return Resumable(rows, batch_size=2)

        val_dataloader = train_dataloader

    setup(
        model_name="pythia-14m",
        model_config=tiny(),
        out_dir=folder,
        precision="32-true",
        resume=resume,
        data=Rows(),
        train=TrainArgs(
            save_interval=2,
            log_interval=1,
            global_batch_size=2,
            micro_batch_size=2,
            max_tokens=steps * 2 * 8,
            max_norm=1.0,
            lr_warmup_steps=0,
            min_lr=3e-3,
            tie_embeddings=False,
        ),
        eval=EvalArgs(interval=100, max_iters=1, initial_validation=False, final_validation=False),
        log=LogArgs(),
        optimizer=optimizer,
        devices=1,
        logger_name="csv",
    )


def tiny() -> Any:
    return litgpt.Config(
        block_size=8, n_layer=1, n_head=2, n_embd=8, vocab_size=32, padded_vocab_size=32,
        intermediate_size=16, name="tiny",
    )  # fmt: skip


def saved(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}" / "lit_model.pth"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It parses the command line again when it saves; and it compiles the model, for minutes."""
    monkeypatch.setattr("litgpt.pretrain.save_hyperparameters", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def test_it_trains_by_its_name_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    pretrain(tmp_path / "whole", NAMED)
    pretrain(tmp_path / "half", NAMED, steps=2)
    half = torch.load(saved(tmp_path / "half", 2), weights_only=False)
    assert [g["kind"] for g in half["optimizer"]["param_groups"]] == ["matrix", "vector"]
    pretrain(tmp_path / "half", NAMED, resume=saved(tmp_path / "half", 2))
    ends = [
        torch.load(saved(tmp_path / name, 4), weights_only=False)["model"]
        for name in ("whole", "half")
    ]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_litgpt_adamw_checkpoint_is_refused_until_migrated(tmp_path: Path) -> None:
    pretrain(tmp_path, ADAMW, steps=2)
    file = saved(tmp_path, 2)
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\("):
        pretrain(tmp_path, NAMED, resume=file)
    model = litgpt.GPT(tiny())
    checkpoint = torch.load(file, weights_only=False)
    optimizer = migrate(checkpoint, model, key="optimizer")
    assert len(optimizer.state) == len(list(model.parameters()))
    checkpoint["optimizer"] = optimizer.state_dict()
    torch.save(checkpoint, file)
    pretrain(tmp_path, NAMED, resume=file)
    steps = torch.load(saved(tmp_path, 4), weights_only=False)["optimizer"]["state"].values()
    assert {int(state["step"]) for state in steps} == {4}


def marsm(params: Any, lr: float) -> MARS:
    return MARSM(params, lr=lr)


def test_a_function_that_knows_no_fused_is_not_given_it() -> None:
    from litgpt.utils import instantiate_torch_optimizer

    model = litgpt.GPT(tiny())
    named = {"class_path": f"{__name__}.marsm", "init_args": {"lr": 6e-3}}
    made = instantiate_torch_optimizer(named, model.parameters(), fused=True)
    assert {group["fused"] for group in made.param_groups} == {None}


def test_fused_as_it_asks_for_it_on_cuda() -> None:
    """Rule "adamw" has torch's fused kernel; another rule says what to do."""
    from litgpt.utils import instantiate_torch_optimizer

    model = litgpt.GPT(tiny())
    made = instantiate_torch_optimizer(NAMED, model.parameters(), fused=True)
    assert isinstance(made, MARSAdamW)
    assert isinstance(
        instantiate_torch_optimizer("mars_optim.MARSM", model.parameters(), fused=False), MARSM
    )
    other = instantiate_torch_optimizer("mars_optim.MARSM", model.parameters(), fused=True)
    assert isinstance(other, MARS)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="fused=True"):
        other.step()
