"""GPT-2's two files, small."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel


def gpt2_files(folder: Path) -> tuple[Path, dict[str, int]]:
    """A small vocab.json and merges.txt in GPT-2's way."""
    merges = ["d o", "do c", "s t", "e p", "st ep", "Ġ step", "l o"]
    tokens = [*sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in merges)]
    vocabulary = {t: i for i, t in enumerate([*tokens, "<|endoftext|>"])}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    return folder, vocabulary
