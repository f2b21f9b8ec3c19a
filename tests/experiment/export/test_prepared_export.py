"""A run on data that ``mars prepare`` wrote takes their tokenizer along."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main

pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
from transformers import AutoModelForCausalLM, AutoTokenizer

from mars_optim.experiment.tasks import load_corpus
from tests.support.prepared_runs import END, prepare, write_run_on


def test_its_ids_are_those_of_the_shards(tmp_path: Path):
    folder = prepare(tmp_path, "--vocabulary", "300")
    run, out = write_run_on(folder, 320), tmp_path / "hf"
    assert main(["export", str(run), "--transformers", str(out)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.eos_token, len(tokenizer), tokenizer.model_max_length) == (END, 300, 24)
    corpus = load_corpus(str(folder))
    shard: list[int] = [id for shard in corpus.valid.shards for id in shard.tolist()]
    document = shard[: shard.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(document)
    assert text.startswith("document ")
    assert text.endswith(f"{END} too")
    assert tokenizer(text)["input_ids"] == document
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.suppress_tokens == list(range(300, 320))


def test_prepared_bytes_are_bytes(tmp_path: Path):
    run = write_run_on(prepare(tmp_path, "--tokenizer", "bytes"), 256)
    assert main(["export", str(run), "--transformers", str(tmp_path / "hf")]) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("é")["input_ids"] == [0xC3, 0xA9]


def test_data_that_came_as_tokens_have_no_tokenizer_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, count in (("train.bin", 2000), ("val.bin", 1000)):
        (tmp_path / name).write_bytes(struct.pack(f"<{count}H", *(i % 500 for i in range(count))))
    sources = [str(tmp_path / name) for name in ("train.bin", "val.bin")]
    assert main(["prepare", *sources, "--out", str(tmp_path / "prepared")]) == 0
    run = write_run_on(tmp_path / "prepared", 50304)
    assert main(["export", str(run), "--transformers", str(tmp_path / "hf")]) == 0
    assert "without a tokenizer" in capsys.readouterr().out
    assert not list((tmp_path / "hf").glob("tokenizer*"))
    config: dict[str, Any] = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["eos_token_id"], config["vocab_size"]) == (50256, 50304)


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        ("other data", "does not hold the data that the run was trained on"),
        ("no tokenizer", "tokenizer.json is missing"),
        ("no manifest", "has no manifest.json"),
    ],
)
def test_a_tokenizer_that_may_be_another_is_refused(
    hurt: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = prepare(tmp_path, "--vocabulary", "300")
    run = write_run_on(folder, 320, data="1" * 64 if hurt == "other data" else "")
    if hurt == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    if hurt == "no manifest":
        (folder / "manifest.json").unlink()
    capsys.readouterr()
    assert main(["export", str(run), "--transformers", str(tmp_path / "hf")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "hf").exists()
