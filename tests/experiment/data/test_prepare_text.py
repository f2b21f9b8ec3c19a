"""Text -> tokens: everything comes back, on the right side, from whatever it is read."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from mars_optim.experiment.data.validation_split import split_by_hash
from mars_optim.experiment.tasks import TextTask, check_task, load_corpus
from tests.support.gpt2_files import gpt2_files
from tests.support.texts import (
    content,
    documents_of,
    manifest_of,
    prepare,
    texts,
    write_jsonl,
    write_texts_parquet,
)

DOCUMENTS = texts()
SHARE = 0.2


def write_source(folder: Path, kind: str) -> str:
    """The documents as one kind of source; the word that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "jsonl":
        return str(write_jsonl(folder / "a.jsonl", DOCUMENTS))
    if kind == "parquet":
        return str(write_texts_parquet(folder / "a.parquet", DOCUMENTS))
    if kind == "hub":
        datasets.Dataset.from_dict({"text": DOCUMENTS}).save_to_disk(folder / "saved")
        return str(folder / "saved")
    if kind == "hub by name":
        write_jsonl(folder / "data.jsonl", DOCUMENTS)
        return f"hf:{folder}"
    for i, document in enumerate(DOCUMENTS):
        (folder / f"{i:03}.txt").write_text(document, encoding="utf-8")
    return str(folder)


@pytest.fixture(autouse=True)
def cached_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("tokenizer", [("--tokenizer", "bytes"), ("--vocabulary", 300)])
@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "hub", "hub by name"])
def test_each_document_comes_back_once_on_the_side_of_its_hash(
    tmp_path: Path, kind: str, tokenizer: tuple[object, ...]
):
    source, out = write_source(tmp_path / "source", kind), tmp_path / "out"
    assert prepare(source, "--out", out, "--share", SHARE, *tokenizer) == 0
    for split, found in documents_of(out).items():
        expected = [d for d in DOCUMENTS if split_by_hash(d.encode(), SHARE) == split]
        assert found == expected
        facts = manifest_of(out)["splits"][split]
        assert facts["documents"] == len(expected) > 0
        assert facts["bytes"] == sum(len(d.encode()) for d in expected)
        assert facts["tokens"] == len(getattr(load_corpus(str(out)), split))


def test_given_validation_files_are_the_whole_validation_split(tmp_path: Path):
    train = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS[:40])
    valid = write_texts_parquet(tmp_path / "b.parquet", DOCUMENTS[40:])
    out = tmp_path / "out"
    assert prepare(train, "--valid", valid, "--out", out, "--tokenizer", "bytes") == 0
    assert documents_of(out) == {"train": DOCUMENTS[:40], "valid": DOCUMENTS[40:]}


def test_a_data_set_with_a_validation_split_keeps_it(tmp_path: Path):
    splits = {
        "train": datasets.Dataset.from_dict({"text": DOCUMENTS[:50]}),
        "validation": datasets.Dataset.from_dict({"text": DOCUMENTS[50:]}),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert prepare(tmp_path / "saved", "--out", tmp_path / "out", "--tokenizer", "bytes") == 0
    assert documents_of(tmp_path / "out") == {"train": DOCUMENTS[:50], "valid": DOCUMENTS[50:]}


def test_long_text_file_is_cut_at_line_ends_and_loses_nothing(tmp_path: Path):
    lines = [f"line {i} ünd 学習 {'x' * (i % 90)}\n" for i in range(30_000)]
    path, out = tmp_path / "long.txt", tmp_path / "out"
    path.write_text("".join(lines), encoding="utf-8")  # 2 MB: several pieces
    assert prepare(path, "--out", out, "--tokenizer", "bytes") == 0
    corpus = load_corpus(str(out))
    train, valid = (
        b"".join(shard.numpy().tobytes() for shard in side.shards)
        for side in (corpus.train, corpus.valid)
    )
    both = train + valid
    assert both.count(b"\0") == 1  # one document, however many parts
    found = sorted(both.replace(b"\0", b"").decode().splitlines(keepends=True))
    assert found == sorted(lines)
    assert len(manifest_of(out)["splits"]["train"]["files"]) > 1


def test_a_line_without_end_is_cut_between_characters(tmp_path: Path):
    text = "a" + "語" * 700_000  # 2.1 MB without a line end; parts of 1 MiB end inside characters
    path, out = tmp_path / "one.txt", tmp_path / "out"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "v.txt").write_text("v" * 2000, encoding="utf-8")
    command = (path, "--valid", tmp_path / "v.txt", "--out", out, "--tokenizer", "bytes")
    assert prepare(*command) == 0
    shards = load_corpus(str(out)).train.shards
    assert b"".join(s.numpy().tobytes() for s in shards) == text.encode() + b"\0"


def test_gpt2s_own_files_give_the_tokens_that_transformers_gives(tmp_path: Path):
    from transformers import GPT2TokenizerFast

    folder, vocabulary = gpt2_files(tmp_path / "gpt2")
    source, out = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS), tmp_path / "out"
    assert prepare(source, "--out", out, "--tokenizer", folder) == 0
    theirs = GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    shards = load_corpus(str(out)).train.shards
    expected = [
        token
        for d in DOCUMENTS
        if split_by_hash(d.encode(), 0.05) == "train"
        for token in [*theirs(d)["input_ids"], vocabulary["<|endoftext|>"]]
    ]
    assert torch.cat(shards).tolist() == expected
    assert vocabulary["Ġstep"] in expected
    assert manifest_of(out)["tokenizer"]["vocabulary"] == len(vocabulary)


def test_text_that_reads_like_the_end_of_a_document_is_text(tmp_path: Path):
    documents = [f"{d} <|endoftext|> more" for d in DOCUMENTS]
    source, out = write_jsonl(tmp_path / "a.jsonl", documents), tmp_path / "out"
    assert prepare(source, "--out", out, "--share", SHARE, "--vocabulary", 300) == 0
    assert sorted(chain(*documents_of(out).values())) == sorted(documents)


def write_bin(path: Path, tokens: list[int], header: bool = False) -> Path:
    head = np.zeros(256, dtype="<i4")
    head[:3] = 20240520, 1, len(tokens)
    data = np.array(tokens, dtype="<u2").tobytes()
    path.write_bytes((head.tobytes() if header else b"") + data)
    return path


@pytest.mark.parametrize("header", [False, True])
def test_nanogpts_token_files_are_taken_as_they_are(tmp_path: Path, header: bool):
    rng = np.random.default_rng(0)
    train, valid = ([*rng.integers(0, 50256, n).tolist(), 50256] for n in (5000, 500))
    folder = tmp_path / "nano"
    folder.mkdir()
    write_bin(folder / "train.bin", train, header)
    write_bin(folder / "val.bin", valid, header)
    out = tmp_path / "out"
    assert prepare(folder, "--out", out) == 0
    corpus, manifest = load_corpus(str(out)), manifest_of(out)
    assert torch.cat(corpus.train.shards).tolist() == train
    assert torch.cat(corpus.valid.shards).tolist() == valid
    assert corpus.vocabulary == 50257
    assert corpus.bytes_per_token is None
    assert manifest["splits"]["train"]["documents"] == train.count(50256)


def test_with_their_tokenizer_the_bytes_of_token_files_are_known(tmp_path: Path):
    source, out = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS), tmp_path / "out"
    prepare(source, "--out", out, "--share", SHARE, "--vocabulary", 300)
    corpus = load_corpus(str(out))
    bins = tmp_path / "bins"
    bins.mkdir()
    for name in ("train", "valid"):
        write_bin(bins / f"{name}.bin", torch.cat(getattr(corpus, name).shards).tolist())
    again = tmp_path / "again"
    assert prepare(bins, "--out", again, "--tokenizer", out / "tokenizer.json") == 0
    for key in ("tokens", "documents", "bytes"):
        for split in ("train", "valid"):
            assert (
                manifest_of(again)["splits"][split][key] == manifest_of(out)["splits"][split][key]
            )


def test_gpt_trains_on_prepared_folder_and_scores_bits_per_byte(tmp_path: Path):
    source, out = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS), tmp_path / "out"
    prepare(source, "--out", out, "--share", SHARE, "--vocabulary", 300)
    corpus = load_corpus(str(out))
    task = TextTask(corpus, context=16, layers=1, width=8, heads=2, batch=4, vocabulary=320)
    check_task(task)
    model = task.build_model(0)
    assert model.wte.num_embeddings == 320
    scores, facts = task.scores(model, 500), manifest_of(out)["splits"]["valid"]
    assert list(scores) == ["valid_loss", "bits_per_byte"]
    bits = scores["valid_loss"] / math.log(2) * facts["tokens"] / facts["bytes"]
    assert scores["bits_per_byte"] == pytest.approx(bits, rel=1e-12)


def test_our_own_tokenizer_is_the_same_each_time(tmp_path: Path):
    source = write_jsonl(tmp_path / "a.jsonl", texts(200))
    for name in ("one", "two"):
        assert prepare(source, "--out", tmp_path / name, "--vocabulary", 400) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert manifest_of(tmp_path / "one")["tokenizer"]["vocabulary"] == 400


def test_one_long_text_file_is_split_near_the_requested_share(tmp_path: Path):
    path, out = tmp_path / "long.txt", tmp_path / "out"
    path.write_text("".join(f"line {i} of one long file\n" for i in range(40_000)))
    assert prepare(path, "--out", out, "--tokenizer", "bytes", "--share", 0.1) == 0
    splits = manifest_of(out)["splits"]
    both = splits["valid"]["bytes"] + splits["train"]["bytes"]
    assert 0.05 < splits["valid"]["bytes"] / both < 0.15
