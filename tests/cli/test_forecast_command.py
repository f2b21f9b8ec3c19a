"""``mars forecast``: a table in, ratios or one line out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.cli import main
from tests.support.scaling_worlds import rows

TARGET = ["--baseline", "base", "--parameters", "8e8", "--tokens", "1.6e10"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{r.arm},{r.parameters},{r.tokens},{r.loss}" for r in rows({"arm": 0.2})]
    Path("runs.csv").write_text("\n".join(["arm,parameters,tokens,loss", *lines]))
    return tmp_path


def test_json_and_text_tell_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", "--from", "runs.csv", *TARGET, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    ratio = data["arms"]["arm"]["token_ratio"]
    assert list(ratio) == ["mean", "low80", "high80", "low95", "high95"]
    assert main(["forecast", "--from", "runs.csv", *TARGET]) == 0
    assert f"{ratio['mean']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "absent.csv", *TARGET], ["absent.csv", "cannot be read"]),
        (["--from", "runs.csv", *TARGET[2:], "--baseline", "bse"], ["did you mean 'base'"]),
        (["--from", "runs.csv", *TARGET, "--parameters", "-1"], ["--parameters"]),
        (["--from", "runs.csv", *TARGET[:4], "--tokens", "nan"], ["--tokens nan", "above 0"]),
    ],
    ids=["file", "baseline", "parameters", "tokens"],
)
def test_a_mistake_gives_one_line_that_names_it(
    arguments: list[str], words: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forecast", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words)
