"""What docs/export.md shows: generation, and lm-evaluation-harness on a text of one's own."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
import torch
from trained import gpt, write_trained
from written_run import SIZES

from mars_optim.cli import main
from mars_optim.tasks import Corpus, TextTask

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy")


def blocks(heading: str, language: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the page's ``my-gpt``."""
    monkeypatch.chdir(tmp_path)
    run = write_trained(tmp_path, gpt().state_dict())
    assert main(["export", str(run), "--transformers", "my-gpt"]) == 0
    return tmp_path


def test_generation_goes_on_with_the_prompt_to_the_end_of_the_context(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("A trained GPT in transformers", "python")
    capsys.readouterr()
    torch.manual_seed(1)
    scope: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert capsys.readouterr().out.startswith("First Citizen:\n")
    made = scope["made"]
    assert isinstance(made, torch.Tensor)
    assert made.shape[1] == SIZES["context"] or 0 in made


@pytest.mark.slow
def test_the_harness_finds_our_bits_per_byte(folder: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    text = "".join(f"line {i} of a text, with é and Ā\n" for i in range(100))
    text = text.encode()[: 100 * SIZES["context"]].decode()
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

    after_end = torch.frombuffer(bytearray(b"\0" + text.encode()), dtype=torch.uint8)
    corpus = Corpus("text", after_end, after_end, 1, "0" * 64)
    task = TextTask(corpus, batch=4, **SIZES)
    loss = task.evaluate(gpt(), len(after_end) - 1)
    assert found["bits_per_byte,none"] == pytest.approx(loss / math.log(2), abs=1e-3)
