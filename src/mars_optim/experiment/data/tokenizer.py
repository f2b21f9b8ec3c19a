"""Text to tokens: GPT-2's BPE from its files, a byte-level BPE of our own, or bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError, need

TOKENIZER = "tokenizer.json"
LEAST_VOCABULARY, MOST_VOCABULARY = 257, 2**20  # all bytes and an end, at least
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer, which turns text into tokens.

    Args:
        vocabulary: number of different tokens.
        end: the token after a document.
        text: of its tokenizer.json; "" if it needs none.
        model: of the ``tokenizers`` package, which encodes in as many threads as it may.
    """

    vocabulary: int
    end: int
    text: str = ""
    model: Any = None

    @property
    def dtype(self) -> str:
        """The smallest type on disk that holds all tokens."""
        size = self.vocabulary
        return "uint8" if size <= 2**8 else "uint16" if size <= 2**16 else "int32"

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """The tokens of each text, without the end."""
        if self.model is None:
            return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
        encoded = self.model.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in encoded]

    def lengths(self) -> npt.NDArray[np.int64] | None:
        """UTF-8 bytes of each token, 0 for special ones; None if that is not known."""
        state = json.loads(self.text or "{}")
        if "ByteLevel" not in json.dumps([state.get("pre_tokenizer"), state.get("decoder")]):
            return None
        special = {token["id"] for token in state["added_tokens"]}
        lengths = np.zeros(self.vocabulary, dtype=np.int64)
        for token, i in self.model.get_vocab().items():
            lengths[i] = 0 if i in special else len(token)  # one character stands for one byte
        return lengths


BYTES = Tokenizer(256, end=0)
GPT2 = Tokenizer(50257, end=50256)
"""Tokenizer of .bin files that are given without one."""


def bpe(text: str, where: object) -> Tokenizer:
    """The tokenizer of a tokenizer.json.

    Raises:
        UserError: naming ``where`` it is, if it is none.
    """
    tokenizers = need("tokenizers", "data")
    try:
        model = tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        raise UserError(f"{where} is not a tokenizer that can be read: {error}") from None
    model.encode_special_tokens = True  # text that happens to read "<|endoftext|>" is text
    model.no_truncation()
    model.no_padding()
    ends = [i for i in map(model.token_to_id, _ENDS) if i is not None]
    if not ends:
        raise UserError(
            f"{where} has no token for the end of a document; known are {', '.join(_ENDS)}"
        )
    return Tokenizer(1 + max(model.get_vocab().values()), ends[0], text, model)


def read_tokenizer(given: str) -> Tokenizer:
    """A tokenizer.json, or a folder with one or with GPT-2's vocab.json and merges.txt.

    Raises:
        UserError: if there is none.
    """
    path = Path(given)
    file = path / TOKENIZER if path.is_dir() else path
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    if not file.is_file() and not (vocabulary.is_file() and merges.is_file()):
        raise UserError(
            f"--tokenizer {given} must be bytes, a tokenizer.json, or a folder with "
            "tokenizer.json or with vocab.json and merges.txt"
        )
    tokenizers = need("tokenizers", "data")
    try:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
        else:
            model = tokenizers.models.BPE.from_file(str(vocabulary), str(merges))
            text = _byte_level(tokenizers, model).to_str()
    except Exception as error:
        raise UserError(f"--tokenizer {given} cannot be read: {error}") from None
    return bpe(text, file)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """A byte-level BPE like GPT-2's, learnt from ``texts``, as the text of a tokenizer.json."""
    tokenizers = need("tokenizers", "data")
    tokenizer = _byte_level(tokenizers, tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_ENDS[0]],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def _byte_level(tokenizers: Any, model: Any) -> Any:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if tokenizer.token_to_id(_ENDS[0]) is not None:
        tokenizer.add_special_tokens([_ENDS[0]])
    return tokenizer
