"""Text as bytes or tokens: a corpus, and batches of it addressed by (seed, step)."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .address import seed_of
from .gpt import GPT, Init
from .prepared import fingerprint, is_prepared, memory_map, read_manifest
from .token_map import Tokens

VOCABULARY = 256
_END_OF_FILE = b"\0"
_VALIDATION_SHARE = 0.05
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.2
SUFFIXES = frozenset(
    ".py .pyi .txt .md .rst .c .h .cc .cpp .hpp .rs .go .java .js .ts .html .css .json .toml "
    ".yaml .yml .sh .tex .csv .jsonl".split()
)
_NOT_SOURCES = frozenset("test tests idle_test site-packages dist-packages __pycache__".split())


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens to train on and tokens to validate on, from different files or documents.

    Args:
        name: as asked for.
        train: 1-D; bytes are uint8.
        valid: as ``train``.
        files: number of files.
        sha256: of all names and contents, in order.
        vocabulary: number of different tokens.
        bytes_per_token: of UTF-8, in the validation tokens; None if not known.
    """

    name: str
    train: Tensor | Tokens
    valid: Tensor | Tokens
    files: int
    sha256: str
    vocabulary: int = VOCABULARY
    bytes_per_token: float | None = 1.0


def load_corpus(name: str) -> Corpus:
    """Read ``"stdlib"`` (this Python's own sources, tests left out), a text file, or a folder.

    A folder that ``mars prepare`` wrote gives the tokens in it, as memory maps.

    A file goes to validation by the hash of its content (5 % of files). The last tenth of the text
    does if there are fewer than 20 files, or if those chosen hold less than 2 or more than 20 % of
    the text.

    Raises:
        ValueError: naming the path, if it is missing, damaged or holds too little text.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if name == "stdlib" else Path(name)
    if not root.exists():
        raise ValueError(
            f"task.corpus = {name!r} does not exist; give 'stdlib', a text file, a folder or what "
            "`mars prepare` wrote"
        )
    if is_prepared(root):
        return _load_prepared(root)
    try:
        contents = [(path, path.read_bytes()) for path in _files(root, name == "stdlib")]
    except OSError as error:
        raise ValueError(f"task.corpus = {name!r} cannot be read: {error}") from None
    digest = sha256()
    for path, content in contents:
        relative = path.relative_to(root).as_posix() if path != root else path.name
        digest.update(f"{relative}\0{len(content)}\0".encode() + content)

    train, valid = _split([content for _, content in contents])
    if min(len(train), len(valid)) < 1024:
        raise ValueError(
            f"task.corpus = {name!r} holds {len(train) + len(valid):,} bytes of text in "
            f"{len(contents)} files; it needs at least 20,480"
        )
    return Corpus(name, _tensor(train), _tensor(valid), len(contents), digest.hexdigest())


def _load_prepared(folder: Path) -> Corpus:
    manifest = read_manifest(folder, "tokens")
    dtype = {"uint8": torch.uint8, "uint16": torch.uint16, "int32": torch.int32}[manifest["dtype"]]

    def split(name: str) -> Tokens:
        files = manifest["splits"][name]["files"]
        return Tokens([memory_map(folder / file, dtype) for file in files])

    valid = manifest["splits"]["valid"]
    return Corpus(
        str(folder),
        split("train"),
        split("valid"),
        files=len(manifest["files"]),
        sha256=fingerprint(manifest, "dtype"),
        vocabulary=manifest["tokenizer"]["vocabulary"],
        bytes_per_token=valid["bytes"] / valid["tokens"] if valid["bytes"] else None,
    )


def _files(root: Path, sources_only: bool) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*.py" if sources_only else "*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if sources_only and (_NOT_SOURCES & set(parts) or hidden):
            continue
        if not hidden and path.suffix in SUFFIXES and path.is_file():
            yield path


def _split(contents: list[bytes]) -> tuple[bytes, bytes]:
    if len(contents) >= 20:
        places = {c: int.from_bytes(sha256(c).digest()[:8]) / 2**64 for c in contents}
        chosen = {content for content, place in places.items() if place < _VALIDATION_SHARE}
        share = sum(map(len, chosen)) / sum(map(len, contents))
        if _LEAST_SHARE <= share <= _MOST_SHARE:
            sides = [[c for c in contents if (c in chosen) is side] for side in (False, True)]
            return _END_OF_FILE.join(sides[0]), _END_OF_FILE.join(sides[1])
    text = _END_OF_FILE.join(contents)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


class TextTask:
    """A GPT on the bytes or tokens of a corpus (see :class:`~mars_optim.experiment.tasks.Task`).

    Args:
        corpus: to train and validate on.
        context: tokens in a window.
        batch: windows in a batch.
        vocabulary: of the model, to pad the corpus's; 0 for no padding.
        layers, width, heads, bias, init, scale_attention_by_layer, base_width, base_layers: as for
            :class:`~mars_optim.experiment.tasks.GPT`.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        context: int,
        layers: int,
        width: int,
        heads: int,
        batch: int,
        vocabulary: int = 0,
        bias: bool = False,
        init: Init = "width",
        scale_attention_by_layer: bool = False,
        base_width: int = 0,
        base_layers: int = 0,
    ) -> None:
        if 0 < vocabulary < corpus.vocabulary:
            raise ValueError(
                f"task.vocabulary = {vocabulary:,} must be at least {corpus.vocabulary:,}, "
                "the number of different tokens in the corpus; 0 takes that number"
            )
        unit = "bytes" if corpus.vocabulary == VOCABULARY else "tokens"
        if min(len(corpus.train), len(corpus.valid)) <= context:
            raise ValueError(
                f"task.context = {context} is longer than the corpus's {len(corpus.valid):,} "
                f"validation {unit}: use a shorter one or more text"
            )
        self.corpus = corpus
        self.context = context
        self.batch_size = batch
        self.fingerprint = corpus.sha256
        self.batch_tokens = batch * context
        self._train, self._valid = _tokens(corpus.train), _tokens(corpus.valid)
        self._model = partial(
            GPT,
            vocabulary=vocabulary or corpus.vocabulary,
            context=context,
            layers=layers,
            width=width,
            heads=heads,
            bias=bias,
            init=init,
            scale_attention_by_layer=scale_attention_by_layer,
            base_width=base_width,
            base_layers=base_layers,
        )

    def build_model(self, seed: int) -> nn.Module:
        """A fresh GPT; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of("model", seed))
            return self._model()

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        """(batch, context + 1) of token ids, int64, at random offsets."""
        generator = torch.Generator().manual_seed(seed_of("batch", seed, step, micro))
        high = len(self._train) - self.context
        offsets = torch.randint(high, (self.batch_size,), generator=generator, device="cpu")
        return self._train.windows(offsets, self.context + 1)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, nats."""
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def scores(self, model: nn.Module, tokens: int) -> dict[str, float]:
        """``valid_loss`` as :meth:`evaluate`, and ``bits_per_byte``, which no tokenizer changes."""
        loss = self.evaluate(model, tokens)
        ratio = self.corpus.bytes_per_token
        bits = {} if ratio is None else {"bits_per_byte": loss / math.log(2) / ratio}
        return {"valid_loss": loss, **bits}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """Mean loss over evenly spread validation windows, about ``tokens`` tokens in all."""
        valid = self._valid
        count = max(1, min(tokens, len(valid) - 1) // self.context)
        offsets = torch.linspace(
            0, len(valid) - self.context - 1, count, dtype=torch.float64, device="cpu"
        )
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        total = 0.0
        for chunk in torch.split(offsets.long(), 4 * self.batch_size):
            batch = valid.windows(chunk, self.context + 1).to(device)
            total += float(self.loss(model, batch)) * len(chunk)
        model.train(was_training)
        return total / count


def _tokens(text: Tensor | Tokens) -> Tokens:
    return text if isinstance(text, Tokens) else Tokens([text])
