"""A run's trained GPT as a folder that transformers, and what builds on it, can read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ...errors import UserError
from ...files import beside_of
from ..plan.task import GptPlan
from ..records import Run, read_run
from .scalars import run_folders


def export_model(run_dir: Path, out: Path, *, best: bool = False) -> str:
    """Write model, configuration and tokenizer of a run to a new folder, whole or not at all.

    Args:
        run_dir: of a run whose weights were kept, or of ``mars train`` with one such run.
        out: to make; what is there is not written over.
        best: the weights of the lowest validation loss instead of the last.

    Returns:
        What was written, and how to use it, in one line.

    Raises:
        UserError: if there are no weights, no GPT, or a package is missing.
    """
    run = _one_run(run_dir)
    if not isinstance(run.spec.task, GptPlan):
        raise UserError(
            f"{run.path} is a run of task.kind = {run.spec.task.kind!r}: only a 'gpt' has a "
            "counterpart in transformers; its own weights.pt holds a state dict"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists: give a new folder, or remove it first")
    from ..training import load_weights

    try:
        from safetensors import SafetensorError

        from .gpt2 import to_gpt2, vocabulary_of
        from .tokenizer import tokenization_of
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'mars-optim[hf]'") from None
    spec, state = load_weights(run.path, best=best)
    made = tokenization_of(spec, vocabulary_of(state))
    model = to_gpt2(run.spec.task, state, tokens=made.tokens, end_of_text=made.end)
    beside = beside_of(out.absolute(), ".part")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # of one file
    try:
        beside.mkdir()
        model.save_pretrained(beside)
        if made.tokenizer is not None:
            made.tokenizer.save_pretrained(beside)
        if out.is_dir():
            out.rmdir()
        os.replace(beside, out)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{out} cannot be written: {why}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    without = (
        "" if made.tokenizer is not None else ", without a tokenizer, since its data came as tokens"
    )
    return f"GPT-2 with {model.num_parameters():,} parameters written to {out}{without}"


def _one_run(folder: Path) -> Run:
    paths = run_folders(folder)
    if len(paths) > 1:
        from ..training.weights import WEIGHTS

        kept = [path for path in paths if (path / WEIGHTS).is_file()]
        if len(kept) != 1:
            raise UserError(
                f"{folder} holds {len(paths)} runs, {len(kept)} of them with weights: give the "
                f"folder of one, such as {(kept or paths)[0]}"
            )
        paths = kept
    if not paths:
        raise UserError(f"{folder} holds no run yet: give the folder of a run")
    return read_run(paths[0])
