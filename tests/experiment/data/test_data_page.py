"""The commands of docs/data.md, as a newcomer types them, on small sources of those names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mars_optim.cli import main
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.tasks import ImageTask, load_corpus, load_images
from tests.support.archives import cifar_parts, write_archive
from tests.support.gpt2_files import gpt2_files
from tests.support.hub import write_parquet
from tests.support.paths import ROOT
from tests.support.texts import texts, write_jsonl

PAGE = ROOT / "docs" / "data.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy")


def write_sources(folder: Path) -> None:
    write_jsonl(folder / "stories.jsonl", texts(200))
    (folder / "books").mkdir()
    for i, text in enumerate(texts(9)):
        (folder / "books" / f"{i}.txt").write_text(text * 3, encoding="utf-8")
    (folder / "held-out.txt").write_text("held out\n" * 300, encoding="utf-8")
    gpt2_files(folder / "gpt2")
    write_archive(folder, "cifar-10-python", dict(cifar_parts("cifar-10-python")))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    for split in ("train", "test"):
        write_parquet(folder / "hub" / f"{split}.parquet", pixels, [0, 1, 2] * 2)


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    pilots = []
    for program, *arguments in commands():
        if program == "mars" and arguments[0] == "pilot":
            pilots.append(arguments)
        elif program == "mars":
            assert main(arguments) == 0, arguments
    (pilot,) = pilots
    plan = make_plan({}, (pilot[pilot.index("--set") + 1],))
    assert load_corpus(plan.task.corpus).vocabulary <= 4096
    assert load_corpus("books-bytes").vocabulary == 256
    for folder in ("cifar10", "cifar10-hub"):
        assert load_images(folder).train.shape[1:] == (32, 32, 3)


def test_the_pages_plan_of_images_is_one(tmp_path: Path):
    import tomllib

    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    plan: Plan = make_plan(tomllib.loads(block))
    source = write_archive(tmp_path, "cifar-10-python", dict(cifar_parts("cifar-10-python")))
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    images = load_images(str(tmp_path / "out"))
    task = ImageTask(images, batch=plan.task.batch, width=2, subset=plan.task.subset)
    pixels, labels = task.batch(0, 0, 0)
    assert pixels.shape == (128, 32, 32, 3)
    assert len(labels) == 128
