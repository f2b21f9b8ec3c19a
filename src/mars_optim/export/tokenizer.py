"""The tokenizer of a run, in the form of transformers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..records import UserError
from ..records.task import TaskPlan

BYTES = 256
END_OF_FILE = "Ā"  # stands for byte 0, which lies between the files of a corpus
END_OF_TEXT = "<|endoftext|>"


def load_tokenizer(task: TaskPlan, vocabulary: int) -> PreTrainedTokenizerFast:
    """The tokenizer that made the tokens of a run.

    Args:
        task: of the run; its corpus is a prepared folder, or else bytes.
        vocabulary: of its model, which may be padded.

    Raises:
        UserError: if the tokenizer's file is not to be had.
    """
    folder = Path(task.corpus)
    if (folder / "manifest.json").is_file():
        return _prepared(folder, task.context)
    if vocabulary == BYTES or task.corpus == "stdlib" or folder.exists():
        return byte_tokenizer(task.context)
    raise UserError(
        f"task.corpus = {task.corpus!r} of the run is not there, and with it the tokenizer of its "
        f"{vocabulary:,} tokens: call from the folder that the run was started in"
    )


def byte_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """Ids are the bytes of UTF-8; byte 0 ends a text.

    Args:
        context: longest window, in bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # characters that stand for bytes
    itself = {ord(c): c for c in alphabet if ord(c) < BYTES}
    others = (c for c in alphabet if ord(c) >= BYTES)
    vocabulary = {itself.get(byte) or next(others): byte for byte in range(BYTES)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()  # unlike ByteFallback, only what is no UTF-8 is lost
    return _wrapped(tokenizer, context, END_OF_FILE)


def _prepared(folder: Path, context: int) -> PreTrainedTokenizerFast:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    file = folder / str(manifest.get("tokenizer"))
    if not file.is_file():
        raise UserError(f"{file} does not exist: the manifest beside it names it as the tokenizer")
    return _wrapped(Tokenizer.from_file(str(file)), context, END_OF_TEXT)


def _wrapped(tokenizer: Tokenizer, context: int, end: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # text that looks like one is text
    )
