"""Sources that cannot be prepared are refused in one line that names the fault and the way out."""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mars_optim.experiment.data.prepared_files import HashedFile
from mars_optim.experiment.tasks import TextTask, load_corpus
from mars_optim.experiment.tasks.prepared import check_files
from tests.support.texts import (
    content,
    documents_of,
    prepare,
    texts,
    write_jsonl,
    write_texts_parquet,
)


def write(name: str, data: bytes) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        (folder / name).write_bytes(data)
        return [folder / name]

    return make


def other_parquet(folder: Path) -> list[object]:
    pq.write_table(pa.table({"content": ["x"]}), folder / "a.parquet")
    return [folder / "a.parquet"]


def in_folder(name: str) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        (folder / "data").mkdir()
        (folder / "data" / name).write_bytes(b"x")
        return [folder / "data"]

    return make


ZEROS = gzip.compress(bytes(2**26 + 2**20))


def small(folder: Path) -> Path:
    return write_jsonl(folder / "ok.jsonl", texts())


def bin_of(*tokens: int) -> bytes:
    return np.array(tokens, dtype="<u2").tobytes()


CASES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no source": (lambda f: [], "give at least one source"),
    "missing": (lambda f: [f / "nowhere"], "nowhere does not exist; a data set of the hub is hf:"),
    "empty folder": (lambda f: [f], "holds no text, JSONL, Parquet or .bin file"),
    "twice": (lambda f: [small(f), f / "ok.jsonl"], "ok.jsonl is given twice"),
    "packed": (write("a.jsonl.zst", b"x"), "a.jsonl.zst is packed: unpack it first"),
    "packed folder": (write("a.tar.gz", b"x"), "a.tar.gz is packed: unpack it first"),
    "no gzip": (write("a.jsonl.gz", b"x"), "a.jsonl.gz is damaged: Not a gzipped file"),
    "cut gzip": (write("a.txt.gz", gzip.compress(b"text " * 99)[:-9]), "a.txt.gz is damaged"),
    "gzip of zeros": (write("a.txt.gz", ZEROS), "unpacks to more than 200 times its size, and no"),
    "surrogate": (
        write("a.jsonl", b'{"text": "x"}\n{"text": "cut \\ud83d"}\n'),
        "(line 2): 'text' holds half of a surrogate pair ('\\ud83d'), which is not text",
    ),
    "packed surrogate": (
        write("a.jsonl.gz", gzip.compress(b'\n\n{"text": "cut \\ud83d"}\n')),
        "(line 3): 'text' holds half of a surrogate pair",
    ),
    "name": (write("a\udcff.jsonl", b"x"), "a\\xff.jsonl: this argument is not UTF-8; rename the"),
    "name in a folder": (in_folder("a\udcff.jsonl"), "a\\xff.jsonl: this file's name is not UTF-8"),
    "nothing": (write("a.txt", b""), "the sources hold no text, only empty documents: "),
    "only empty": (write("a.jsonl", b'{"text": ""}\n' * 9), "the sources hold no text, only empty"),
    "deep": (write("a.jsonl", b'{"text": ' + b"[" * 10**5 + b"\n"), "is nested too deep"),
    "unread folder": (in_folder("a.xyz"), "left out 1 file or link that is no text, JSONL,"),
    "not UTF-8": (write("a.txt", b"abc\xff\xfe" * 9), "a.txt is not UTF-8 near byte 3"),
    "no JSON": (write("a.jsonl", b'{"text": "x"}\n{"text": \n'), "the line that ends at byte 24"),
    "no key": (write("a.jsonl", b'{"body": "x"}\n'), "has the keys body, not 'text'"),
    "no text": (write("a.jsonl", b'{"text": 3}\n'), "'text' holds int, not text"),
    "no Parquet": (write("a.parquet", b"PAR1 not"), "a.parquet is not a Parquet file"),
    "no column": (
        other_parquet,
        "has no column 'text'; it has content: name the column of the text by --text",
    ),
    "odd bin": (write("train.bin", b"abc"), "not a whole number of uint16 tokens"),
    "bin without split": (write("a.bin", bin_of(1)), "must be called train*.bin or val*.bin"),
    "bin and text": (
        lambda f: [small(f), *write("train.bin", bin_of(1))(f)],
        "cannot be prepared together",
    ),
    "cut bin": (
        write("train.bin", np.array([20240520, 1, 99] + [0] * 253, "<i4").tobytes()),
        "it is not whole",
    ),
    "other bin": (
        write("train.bin", np.array([20240520, 7, 0] + [0] * 253, "<i4").tobytes()),
        "an unknown version",
    ),
    "token too high": (
        lambda f: write("train.bin", bin_of(1, 60000))(f) + write("val.bin", bin_of(1))(f),
        "it holds token 60,000, and the tokenizer has 50,257",
    ),
    "no validation": (
        lambda f: [small(f), "--share", 0, "--tokenizer", "bytes"],
        "no document is left for validation: raise --share, or give --valid FILE",
    ),
    "share": (lambda f: [small(f), "--share", 1], "--share 1 must be at least 0 and below 1"),
    "workers": (lambda f: [small(f), "--workers", -1], "--workers -1 must be from 0 to 1024"),
    "vocabulary": (lambda f: [small(f), "--vocabulary", 256], "--vocabulary 256 must be from 257"),
    "no tokenizer": (
        lambda f: [small(f), "--tokenizer", f],
        "must be bytes, a tokenizer.json, or a folder with tokenizer.json or with vocab.json",
    ),
    "bad tokenizer": (
        lambda f: [small(f), "--tokenizer", *write("tokenizer.json", b"{}")(f)],
        "tokenizer.json is not a tokenizer that can be read",
    ),
    "bytes of tokens": (
        lambda f: [*write("train.bin", bin_of(1))(f), "--tokenizer", "bytes"],
        "--tokenizer bytes cannot be combined with .bin files",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_no_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
):
    make, message = CASES[case]
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    assert prepare(*make(folder), "--out", out) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("mars: error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (out / "manifest.json").exists()


def test_a_folder_to_write_into_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert prepare(small(tmp_path)) == 2
    assert "--out is needed" in capsys.readouterr().err


def test_a_folder_with_files_of_the_users_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = small(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("mine")
    assert prepare(source, "--out", out) == 2
    assert "holds other files, such as tokenizer.json; give a new" in capsys.readouterr().err
    assert content(out) == {"tokenizer.json": b"mine"}


def test_a_folder_inside_a_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small(tmp_path)
    assert prepare(tmp_path, "--out", tmp_path / "a" / "b") == 2
    assert "lies inside the source" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_files_of_one_name_from_two_folders_are_two_sources(tmp_path: Path):
    paths = []
    for name, first in (("a", 0), ("b", 60)):
        (tmp_path / name).mkdir()
        paths.append(write_jsonl(tmp_path / name / "x.jsonl", texts(first=first)))
    assert prepare(*paths, "--out", tmp_path / "out", "--tokenizer", "bytes") == 0
    assert sum(map(len, documents_of(tmp_path / "out").values())) == 120


def test_a_finished_folder_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = small(tmp_path), tmp_path / "out"
    assert prepare(source, "--out", out, "--tokenizer", "bytes") == 0
    before = content(out)
    for change in (["--vocabulary", 300], ["--tokenizer", "bytes", "--share", 0.5]):
        assert prepare(source, "--out", out, *change) == 2
    write_jsonl(source, texts(first=1))  # another content of nearly the same size
    assert prepare(source, "--out", out, "--tokenizer", "bytes") == 2
    assert capsys.readouterr().err.count("give a new folder") == 3
    assert content(out) == before


@pytest.mark.parametrize("name", ["datasets", "pyarrow", "tokenizers"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
):
    sources = {
        "datasets": "hf:some/name",
        "pyarrow": str(write_texts_parquet(tmp_path / "a.parquet", texts())),
        "tokenizers": str(small(tmp_path)),
    }
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    assert prepare(sources[name], "--out", tmp_path / "out") == 2
    extra = "hf" if name == "datasets" else "data"
    assert f"{name} is not installed: pip install 'mars-optim[{extra}]'" in capsys.readouterr().err


def test_a_data_set_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def offline(*arguments: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert prepare("hf:no/network", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "hf:no/network cannot be loaded (ConnectionError: Couldn't reach the Hub)" in error
    assert "give a local folder" in error


def damaged(out: Path, case: str) -> None:
    name = "tokenizer.json" if case == "tokenizer" else "train-00000.bin"
    if case == "missing":
        (out / name).unlink()
        return
    data = bytearray((out / name).read_bytes())
    if case == "short":
        data.pop()
    else:
        data[-2] ^= 1
    (out / name).write_bytes(data)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "train-00000.bin is missing"),
        ("short", "train-00000.bin has "),
        ("flipped", "train-00000.bin is damaged"),
        ("tokenizer", "tokenizer.json is damaged, its hash differs from the manifest's"),
    ],
)
def test_damaged_tokens_are_refused_before_a_step(tmp_path: Path, case: str, message: str):
    source, out = small(tmp_path), tmp_path / "out"
    assert prepare(source, "--out", out, "--vocabulary", 300) == 0
    damaged(out, case)
    with pytest.raises(ValueError, match=message) as error:
        load_corpus(str(out))
    assert "\n" not in str(error.value)


def test_verify_finds_what_size_and_time_do_not_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = small(tmp_path), tmp_path / "out"
    assert prepare(source, "--out", out, "--tokenizer", "bytes") == 0
    assert prepare(out, "--verify") == 0
    assert "is whole: 2 files" in capsys.readouterr().out
    path = out / "train-00000.bin"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    damaged(out, "flipped")
    os.utime(path, ns=times)
    check_files(out, json.loads((out / "manifest.json").read_text()))  # cheap, and so not seen
    assert prepare(out, "--verify") == 2
    assert "train-00000.bin is damaged" in capsys.readouterr().err


def test_a_model_with_fewer_tokens_than_the_tokenizer_is_refused(tmp_path: Path):
    source, out = small(tmp_path), tmp_path / "out"
    prepare(source, "--out", out, "--vocabulary", 300)
    sizes = dict(context=16, layers=1, width=8, heads=2, batch=4)
    with pytest.raises(ValueError, match=r"task\.vocabulary = 299 must be at least 300"):
        TextTask(load_corpus(str(out)), vocabulary=299, **sizes)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = small(tmp_path), tmp_path / "out"

    def full(self: HashedFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HashedFile, "write", full)
        assert prepare(source, "--out", out, "--tokenizer", "bytes") == 2
    assert "No space left on device; run the same command again" in capsys.readouterr().err
    assert not list(out.glob("*.bin*"))
    assert prepare(source, "--out", out, "--tokenizer", "bytes") == 0
