"""Killed at any moment, in any number of processes: the same bytes in the end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.data import token_shards
from mars_optim.experiment.data.shards import Record, read_record, shard_paths
from mars_optim.experiment.data.sources import cut, find_sources
from mars_optim.experiment.tasks import load_corpus
from mars_optim.experiment.tasks.prepared import PARTS
from tests.support.texts import content, prepare, texts, write_jsonl

PIECES = 4
BYTES = ("--tokenizer", "bytes")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 MB: four pieces."""
    folder = tmp_path_factory.mktemp("source")
    path = write_jsonl(folder / "a.jsonl", [d * 40 for d in texts(320)])
    assert len(cut(find_sources([str(path)])[0])) == PIECES
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prepare(source, "--out", out, "--vocabulary", 300) == 0
    return content(out)


def command(source: Path, out: Path) -> list[str]:
    arguments = ["prepare", str(source), "--out", str(out), "--vocabulary", "300"]
    return [sys.executable, "-m", "mars_optim", *arguments]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tmp_path: Path, source: Path, whole: dict[str, bytes]
):
    out = tmp_path / "out"
    for pieces in (0, 2):  # killed once so many are done
        process = subprocess.Popen(command(source, out), stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if (
                out.exists()
                and sum(read_record(out, i) is not None for i in range(PIECES)) >= pieces
            ):
                break
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert not (out / "manifest.json").exists(), "it was killed too late to test anything"
    subprocess.run(command(source, out), check=True, capture_output=True)
    assert content(out) == whole
    assert not (out / PARTS).exists()


def test_what_is_done_is_not_done_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    half_done(source, out)
    written = []
    original = token_shards.write_piece

    def watched(out: Path, number: int, *rest: Any) -> Record:
        written.append(number)
        return original(out, number, *rest)

    monkeypatch.setattr(token_shards, "write_piece", watched)
    assert prepare(source, "--out", out, *BYTES) == 0
    assert written == [1, 3]
    assert prepare(source, "--out", tmp_path / "whole", *BYTES) == 0
    assert content(out) == content(tmp_path / "whole")


def half_done(source: Path, out: Path) -> None:
    """Stop the command after pieces 0 and 2, with a torn file of piece 1."""
    original = token_shards.write_piece

    def stopped(out: Path, number: int, *rest: Any) -> Record:
        if number == 3:
            raise UserError("stopped")
        if number != 1:
            return original(out, number, *rest)
        shard_paths(out, 1)["train"].with_suffix(".bin.1.part").write_bytes(b"torn")
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_shards, "write_piece", stopped)
        assert prepare(source, "--out", out, *BYTES) == 2


def test_another_command_does_not_go_on_in_an_unfinished_folder(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    half_done(source, out)
    before = content(out / PARTS)
    assert prepare(source, "--out", out, *BYTES, "--share", 0.1) == 2
    assert "holds unfinished work on other sources or settings" in capsys.readouterr().err
    assert content(out / PARTS) == before


def test_an_unfinished_folder_is_no_corpus(tmp_path: Path, source: Path):
    half_done(source, tmp_path / "out")
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        load_corpus(str(tmp_path / "out"))


def test_two_at_once_in_one_folder_are_refused(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
):
    from mars_optim.experiment.records.lock import folder_lock

    out = tmp_path / "out"
    out.mkdir()
    with folder_lock(out):
        assert prepare(source, "--out", out, *BYTES) == 2
    assert "another process is writing in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_any_number_of_threads_writes_the_same_bytes(
    tmp_path: Path, source: Path, whole: dict[str, bytes], workers: str
):
    out = tmp_path / "out"
    subprocess.run([*command(source, out), "--workers", workers], check=True, capture_output=True)
    assert content(out) == whole
