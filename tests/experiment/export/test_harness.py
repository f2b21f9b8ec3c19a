"""Claims of docs/export.md: generation, and lm-evaluation-harness on a text of one's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytest.importorskip("transformers")
import torch
from transformers import AutoTokenizer

from mars_optim.cli import main
from mars_optim.experiment.tasks import GPT, Corpus, TextTask
from tests.support.prepared_runs import prepare, write_run_on
from tests.support.trained import gpt, write_trained
from tests.support.written_run import SIZES

PAGE = ROOT / "docs" / "export.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy")


def blocks(heading: str, language: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """To work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export_bytes(folder: Path) -> GPT:
    """The page's ``my-gpt``: a model of bytes."""
    model = gpt()
    run = write_trained(folder / "trained", model.state_dict())
    assert main(["export", str(run), "--transformers", "my-gpt"]) == 0
    return model


def export_tokens(folder: Path) -> GPT:
    """Likewise, of 300 tokens, padded to 320."""
    run = write_run_on(prepare(folder, "--vocabulary", "300"), 320)
    assert main(["export", str(run), "--transformers", "my-gpt"]) == 0
    return gpt(vocabulary=320)


def test_generation_continues_prompt_to_the_end_of_the_context(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_bytes(folder)
    (code,) = blocks("A trained GPT in transformers", "python")
    capsys.readouterr()
    torch.manual_seed(1)
    scope: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert capsys.readouterr().out.startswith("First Citizen:\n")
    made = scope["made"]
    assert isinstance(made, torch.Tensor)
    assert made.shape[1] == SIZES["context"] or 0 in made


def whole_windows(text: str, tokenizer: Any) -> tuple[str, list[int]]:
    """The beginning of ``text`` that fills windows of the context, and its tokens."""
    ids = tokenizer(text)["input_ids"]
    while len(ids) % SIZES["context"]:
        text = text[:-1]
        ids = tokenizer(text)["input_ids"]
    return text, ids


@pytest.mark.slow
@pytest.mark.parametrize("export", [export_bytes, export_tokens])
def test_the_harness_finds_our_bits_per_byte(export: Callable[[Path], GPT], folder: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    model, tokenizer = export(folder), AutoTokenizer.from_pretrained("my-gpt")
    text = "".join(f"line {i} of a text, with é and Ā\n" for i in range(100))
    text, ids = whole_windows(text, tokenizer)
    (folder / "text.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    (folder / "tasks").mkdir()
    (yaml,) = blocks("lm-evaluation-harness", "yaml")
    (folder / "tasks" / "my_text.yaml").write_text(yaml, encoding="utf-8")
    command = blocks("lm-evaluation-harness", "bash")[1]
    command = command.replace("lm_eval run", f"{sys.executable} -m lm_eval run")
    home = {"HF_HOME": str(folder / "hf")}
    subprocess.run(command, shell=True, check=True, capture_output=True, env=os.environ | home)
    (results,) = folder.glob("results/**/results_*.json")
    found = json.loads(results.read_text(encoding="utf-8"))["results"]["my_text"]

    after_end = torch.tensor([tokenizer.eos_token_id, *ids], dtype=torch.int32)
    ratio = len(text.encode()) / len(ids)
    corpus = Corpus("text", after_end, after_end, 1, "", len(tokenizer), ratio)
    ours = TextTask(corpus, batch=4, **SIZES).scores(model, len(ids))
    assert found["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], abs=1e-3)
