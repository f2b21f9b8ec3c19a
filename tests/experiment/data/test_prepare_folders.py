"""A folder is read whole: packed files, endings in capitals, linked folders; the rest is named."""

from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path

import pytest

from mars_optim.experiment.data.sources import files_below
from tests.support.texts import content, documents_of, prepare, texts, write_jsonl


def documents(out: Path) -> list[str]:
    return sorted(d for split in documents_of(out).values() for d in split)


def folder_with(tmp_path: Path, case: str) -> Path:
    """Half of the documents as plain JSONL, and half in another way."""
    data = tmp_path / case / "data"
    data.mkdir(parents=True)
    write_jsonl(data / "a.jsonl", texts(30))
    other = write_jsonl(data.parent / "other.jsonl", texts(30, 30))
    if case == "linked":
        (data.parent / "real").mkdir()
        other.rename(data.parent / "real" / "c.jsonl")
        (data / "linked").symlink_to("../real")
    elif case.endswith((".gz", ".bz2", ".GZ")):
        packed = (bz2 if case.endswith("bz2") else gzip).compress(other.read_bytes())
        (data / case).write_bytes(packed)
    else:
        other.rename(data / case)
    return data


@pytest.mark.parametrize("case", ["b.jsonl.gz", "b.JSONL.GZ", "b.jsonl.bz2", "B.JSONL", "linked"])
def test_all_of_a_folder_is_read(tmp_path: Path, case: str):
    data, out = folder_with(tmp_path, case), tmp_path / "out"
    assert prepare(data, "--out", out, "--tokenizer", "bytes") == 0
    assert documents(out) == sorted(texts(60))


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_packed_and_plain_give_the_same_bytes(tmp_path: Path, ending: str):
    plain = tmp_path / f"a{ending}"
    write_jsonl(plain, texts(200))
    (tmp_path / "p").mkdir()
    packed = tmp_path / "p" / f"a{ending}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for source, out in ((plain, "plain"), (packed, "packed")):
        assert prepare(source, "--out", tmp_path / out, "--tokenizer", "bytes") == 0
    known = [content(tmp_path / out) for out in ("plain", "packed")]
    for one in known:
        one.pop("manifest.json")
    if ending == ".jsonl":
        assert known[0] == known[1]
    total = [sum(len(data) for data in one.values()) for one in known]
    assert total[0] == total[1]


def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = folder_with(tmp_path, "b.jsonl")
    for name in ("x.png", "y.png", "z.jsonl.xz", "q.parquet.gz", ".hidden"):
        (data / name).write_bytes(b"x")
    (data / "broken").symlink_to("nowhere")
    assert prepare(data, "--out", tmp_path / "out", "--tokenizer", "bytes") == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "left out" in x]
    assert line.startswith("left out 5 files or links that are no text, JSONL, Parquet or .bin (2")
    assert "hidden" not in line


def test_links_are_followed_once_and_loops_are_left(tmp_path: Path):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (tmp_path / "far" / "deep").mkdir(parents=True)
    for path in (root / "a" / "b" / "x.txt", tmp_path / "far" / "deep" / "y.txt"):
        path.write_text("x")
    links = {"up": "..", "self": ".", "again": "a", "far": "../far", "far2": "../far"}
    for name, to in links.items():
        (root / name).symlink_to(to)
    (tmp_path / "far" / "back").symlink_to("../root")
    files, unread = files_below(root)
    assert [str(p.relative_to(root)) for p in files] == ["a/b/x.txt", "far/deep/y.txt"]
    named = [str(p.relative_to(root)) for p in unread]
    assert named == ["again", "far/back", "far2", "self", "up"]
    assert files_below(Path(os.path.relpath(root)))[0]
