"""Runs on data that ``mars prepare`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

from mars_optim.cli import main
from mars_optim.experiment.tasks import load_corpus
from tests.support.trained import gpt, write_trained
from tests.support.written_run import plan_of

END = "<|endoftext|>"


def prepare(folder: Path, *options: str) -> Path:
    """``folder / "prepared"``: 200 short documents, not all of them ASCII."""
    texts = [f"document {i} says {i * i}, and é, and {END} too" for i in range(200)]
    source = folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    out = folder / "prepared"
    assert main(["prepare", str(source), "--out", str(out), "--workers", "1", *options]) == 0
    return out


def write_run_on(folder: Path, vocabulary: int, *, data: str = "") -> Path:
    """A run with weights on the prepared ``folder``, its vocabulary padded."""
    plan = plan_of(corpus=json.dumps(str(folder)), vocabulary=vocabulary)
    data = data or load_corpus(str(folder)).sha256
    state = gpt(vocabulary=vocabulary).state_dict()
    return write_trained(folder.parent / "trained", state, plan=plan, data=data)
