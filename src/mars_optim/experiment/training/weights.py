"""The weights of a run as one plain file, whatever number of processes held them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...files import read_json, whole_file
from ...optim.distributed.sharded import is_sharded
from ..plan import RunSpec
from ..records import read_run
from ..records.run import CHECKPOINTS
from .position import POSITION
from .ranks import Ranks

WEIGHTS = "weights.pt"


def save_weights(run: Path, model: nn.Module, ranks: Ranks) -> None:
    """Write the model's state dict, gathered, to ``weights.pt``: whole or not at all.

    Args:
        run: the run's folder.
        model: bare; all processes must call.
        ranks: the first one writes.
    """
    whole: dict[str, Tensor] = {}
    shared: dict[int, Tensor] = {}  # tied tensors stay one
    tied = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict().items():
        key = tied.get(name, id(value))
        if key not in shared:
            full = value.full_tensor() if is_sharded(value) else value
            shared[key] = full.detach().cpu() if ranks.first else full.new_empty(0)
        whole[name] = shared[key]
    if ranks.first:
        with whole_file(run / WEIGHTS, "wb") as file:
            torch.save(whole, file)


def load_weights(run: Path | str, *, best: bool = False) -> tuple[RunSpec, dict[str, Tensor]]:
    """Return a run's spec, and its model's state dict on the CPU.

    Args:
        run: its folder.
        best: the weights of the lowest validation loss, for which the run must have kept its best
            checkpoint, instead of the last.

    Raises:
        UserError: naming the file that is missing or damaged, and how it comes about.
    """
    run = Path(run)
    spec = read_run(run).spec
    return spec, _best(run) if best else _last(run)


def _last(run: Path) -> dict[str, Tensor]:
    path = run / WEIGHTS
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: the run has not finished, or was made without keep_weights"
        ) from None
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        raise UserError(f"{path} cannot be read: {error}") from None
    return weights


def _best(run: Path) -> dict[str, Tensor]:
    from .state_dict import Unreadable, read_weights

    found = sorted((run / CHECKPOINTS).glob(f"step-*/{POSITION}"))
    try:
        best = int(read_json(found[-1])["position"]["best_step"]) if found else 0
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{found[-1]} is damaged: it does not say which step was best") from None
    folder = run / CHECKPOINTS / f"step-{best:012d}"
    if not (folder / POSITION).exists():
        raise UserError(
            f"{run / CHECKPOINTS} does not hold the best checkpoint: the run was made without "
            "keep_best"
        )
    try:
        return read_weights(folder)
    except Unreadable as error:
        raise UserError(f"{folder} cannot be read: {error}") from None
