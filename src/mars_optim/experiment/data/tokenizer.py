"""Text to tokens: GPT-2's BPE from its files, a byte-level BPE of our own, or bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import UserError, need

TOKENIZER = "tokenizer.json"
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
_LEAST_VOCABULARY = 257  # all bytes, and the end of a document


class Encoder(Protocol):
    """Turns documents into token ids."""

    vocabulary: int
    """Number of different tokens."""

    end: int
    """The token after a document."""

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """The tokens of each text, without the end."""
        ...


class Bytes:
    """UTF-8 bytes; a document ends with byte 0."""

    vocabulary = 256
    end = 0

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """The bytes of each text."""
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]


class BPE:
    """A tokenizer.json of the ``tokenizers`` package."""

    def __init__(self, path: Path) -> None:
        tokenizers = need("tokenizers", "data")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise UserError(f"{path} is no tokenizer that can be read: {error}") from None
        # text that happens to read "<|endoftext|>" is text
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())
        ends = [self._tokenizer.token_to_id(end) for end in _ENDS]
        self.end = next((end for end in ends if end is not None), -1)
        if self.end < 0:
            raise UserError(
                f"{path} has no token for the end of a document; known are {', '.join(_ENDS)}"
            )

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """The tokens of each text."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in encoded]

    def lengths(self) -> npt.NDArray[np.int64] | None:
        """UTF-8 bytes of each token, 0 for special ones; None if they are not bytes."""
        import json

        state = json.loads(self._tokenizer.to_str())
        if "ByteLevel" not in json.dumps([state["pre_tokenizer"], state["decoder"]]):
            return None
        special = {token["id"] for token in state["added_tokens"]}
        lengths = np.zeros(self.vocabulary, dtype=np.int64)
        for token, i in self._tokenizer.get_vocab().items():
            lengths[i] = 0 if i in special else len(token)  # one character stands for one byte
        return lengths


def read_tokenizer(given: str) -> str:
    """A tokenizer of the user's, as the text of a tokenizer.json.

    Args:
        given: a tokenizer.json, or a folder with one or with GPT-2's vocab.json and merges.txt.

    Raises:
        UserError: if there is none.
    """
    path = Path(given)
    file = path / TOKENIZER if path.is_dir() else path
    if file.is_file():
        BPE(file)
        return file.read_text(encoding="utf-8")
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise UserError(
            f"--tokenizer {given} is neither a tokenizer.json nor a folder with one, or with "
            "vocab.json and merges.txt; bytes needs no file"
        )
    tokenizers = need("tokenizers", "data")
    try:
        model = tokenizers.models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:
        raise UserError(f"--tokenizer {given} cannot be read: {error}") from None
    return _byte_level(model).to_str()  # type: ignore[no-any-return]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """A byte-level BPE like GPT-2's, as the text of a tokenizer.json.

    Args:
        texts: to learn the merges from.
        vocabulary: number of tokens, with 256 bytes and the end of a document.
    """
    tokenizers = need("tokenizers", "data")
    tokenizer = _byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_ENDS[0]],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()  # type: ignore[no-any-return]


def _byte_level(model: Any) -> Any:
    tokenizers = need("tokenizers", "data")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if tokenizer.token_to_id(_ENDS[0]) is not None:
        tokenizer.add_special_tokens([_ENDS[0]])
    return tokenizer


def check_vocabulary(vocabulary: int) -> None:
    """See that a trained tokenizer can have that many tokens.

    Raises:
        UserError: if not.
    """
    if not _LEAST_VOCABULARY <= vocabulary <= 2**20:
        raise UserError(
            f"--vocabulary {vocabulary} must be from {_LEAST_VOCABULARY} (all bytes and an end) to "
            f"{2**20}"
        )


def token_type(vocabulary: int) -> str:
    """The smallest type on disk that holds all tokens."""
    return "uint8" if vocabulary <= 2**8 else "uint16" if vocabulary <= 2**16 else "int32"


def hash_of(text: str) -> str:
    """Of a tokenizer."""
    return sha256(text.encode()).hexdigest()
