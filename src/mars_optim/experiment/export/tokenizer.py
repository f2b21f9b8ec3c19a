"""The tokenizer of a run, in the form of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ...errors import UserError
from ..plan import RunSpec
from ..plan.task import GptPlan
from ..tasks import load_corpus
from ..tasks.prepared import is_prepared, read_manifest

BYTES = 256
END_OF_FILE = "Ā"  # stands for byte 0, which lies between the files of a corpus


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How the text of a run became tokens.

    Args:
        tokenizer: None where the data came as tokens, without one.
        tokens: ids that it gives, from 0.
        end: id of the token between documents.
    """

    tokenizer: PreTrainedTokenizerFast | None
    tokens: int
    end: int


def tokenization_of(spec: RunSpec, vocabulary: int) -> Tokenization:
    """How the text of a run became tokens.

    Args:
        spec: of the run; its corpus is a prepared folder, or else bytes.
        vocabulary: of its model, which may be padded.

    Raises:
        UserError: if the run's data are not there any more, and nothing else tells.
    """
    assert isinstance(spec.task, GptPlan)
    name, context = spec.task.corpus, spec.task.context
    if is_prepared(Path(name)):
        return _prepared(spec, Path(name), context)
    if vocabulary == BYTES or name == "stdlib" or Path(name).exists():
        return Tokenization(byte_tokenizer(context), BYTES, 0)
    raise UserError(
        f"task.corpus = {name!r} of the run does not exist, and its tokenizer of "
        f"{vocabulary:,} tokens is needed: run the command in the folder that the run was "
        "started in"
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


def _prepared(spec: RunSpec, folder: Path, context: int) -> Tokenization:
    try:
        corpus = load_corpus(str(folder))
        told = read_manifest(folder, "tokens")["tokenizer"]
    except ValueError as error:
        raise UserError(str(error)) from None
    if corpus.sha256 != spec.data:
        raise UserError(
            f"task.corpus = '{folder}' does not hold the data that the run was trained on, so "
            "its tokenizer may differ: put the run's own folder back"
        )
    tokens, end = told["vocabulary"], told["end"]
    if told["file"]:
        tokenizer = Tokenizer.from_file(str(folder / told["file"]))
        return Tokenization(_wrapped(tokenizer, context, tokenizer.id_to_token(end)), tokens, end)
    return Tokenization(byte_tokenizer(context) if tokens == BYTES else None, tokens, end)


def _wrapped(tokenizer: Tokenizer, context: int, end: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # text that looks like one is text
    )
