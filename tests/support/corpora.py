"""Small texts to train on."""

from __future__ import annotations

from pathlib import Path

from mars_optim.experiment.tasks import Corpus, TextTask, load_corpus


def file_content(i: int, lines: int = 120) -> bytes:
    """About 2.5 kB, each line of which is in no other file."""
    return b"".join(b"line %03d of file %04d\n" % (line, i) for line in range(lines))


def write_files(folder: Path, count: int = 40, *, first: int = 200) -> Path:
    """A folder of ``count`` different text files; of the first 40 by default, 3 are validation."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        (folder / f"{i:04}.txt").write_bytes(file_content(i))
    return folder


def small_corpus(tmp_path: Path) -> Corpus:
    """Forty files, split by file."""
    return load_corpus(str(write_files(tmp_path / "corpus")))


def small_task(corpus: Corpus, **options: int) -> TextTask:
    """A GPT that takes a millisecond."""
    return TextTask(
        corpus, **{"context": 16, "layers": 1, "width": 8, "heads": 2, "batch": 4, **options}
    )
