"""Small sources of text, and what they are when read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mars_optim.cli import main
from mars_optim.experiment.tasks import load_corpus
from mars_optim.experiment.tasks.prepared import MANIFEST

WORDS = "variance gradient momentum décay 学習率 step shard loss\n".split(" ")


def texts(count: int = 60, first: int = 0) -> list[str]:
    """Different documents of a few hundred characters, some of them not ASCII."""
    return [
        f"document {i}: " + " ".join(WORDS[(i * j) % len(WORDS)] for j in range(20 + i % 7))
        for i in range(first, first + count)
    ]


def write_jsonl(path: Path, documents: list[str], key: str = "text") -> Path:
    path.write_text(
        "".join(json.dumps({key: d, "n": i}) + "\n" for i, d in enumerate(documents)),
        encoding="utf-8",
    )
    return path


def write_texts_parquet(path: Path, documents: list[str], rows: int = 7) -> Path:
    pq.write_table(pa.table({"text": documents}), path, row_group_size=rows)
    return path


def prepare(*arguments: object) -> int:
    """The command, in this process."""
    return main(["prepare", *map(str, arguments)])


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / MANIFEST).read_text(encoding="utf-8"))


def documents_of(out: Path) -> dict[str, list[str]]:
    """The documents of each split, in order, decoded."""
    corpus, manifest = load_corpus(str(out)), manifest_of(out)
    end = manifest["tokenizer"]["end"]
    found = {}
    for split, tokens in (("train", corpus.train), ("valid", corpus.valid)):
        rows: list[list[int]] = [[]]
        for shard in tokens.shards:
            for token in shard.tolist():
                if token == end:
                    rows.append([])
                else:
                    rows[-1].append(token)
        assert rows.pop() == []
        found[split] = [decode(out, row) for row in rows]
    return found


def decode(out: Path, row: list[int]) -> str:
    if manifest_of(out)["tokenizer"]["file"] is None:
        return bytes(row).decode()
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(out / "tokenizer.json")).decode(row, skip_special_tokens=False)


def content(out: Path) -> dict[str, bytes]:
    """All files but the one that knows times of change."""
    skipped = ("verified.json", ".lock")
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name not in skipped}
