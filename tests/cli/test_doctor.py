"""``mars doctor``: a table of what goes where, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars_optim.cli import main

SCRIPT = """
import torch
import mars_optim

def model():
    return torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 4))

def optimizer():
    return mars_optim.MARSAdamW(model().parameters(), lr=0.01)

def careless():
    return mars_optim.MARSM(model().named_parameters())

def named():
    net = torch.nn.ModuleDict({"wte": torch.nn.Embedding(50, 8), "up": torch.nn.Linear(8, 4)})
    return mars_optim.MARSM(net.named_parameters())

def nothing():
    return None

def adamw():
    return torch.optim.AdamW(model().parameters())

def broken():
    raise KeyError("data")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"script_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_an_optimizers_groups_are_shown_with_their_state(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", f"{folder}:optimizer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["kind", "rule", "correction", "gamma"]
    assert lines[1].split()[:3] == ["matrix", "adamw", "approx"]
    assert "432" in lines[1]  # 50 * 8 + 8 * 4 parameters
    assert "5.06 KiB" in lines[1]  # at 12 bytes each
    assert lines[2].split()[:3] == ["vector", "adamw", "none"]


def test_a_model_is_sorted_by_the_rule(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"{folder}:model", "--rule", "muon"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    kinds = [line.split()[:2] for line in lines if not line.startswith("- ")]
    assert kinds == [["matrix", "muon"], ["embedding", "adamw"], ["vector", "adamw"]]


def test_an_embedding_under_newton_schulz_is_warned_of(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", f"{folder}:named"]) == 0
    assert "! wte.weight looks like an embedding" in capsys.readouterr().out
    assert main(["doctor", f"{folder}:careless"]) == 0
    assert "!" not in capsys.readouterr().out  # by its name it could be anything


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{}", ["MODULE:FUNCTION"]),
        ("{}:", ["MODULE:FUNCTION"]),
        ("nowhere_at_all:model", ["nowhere_at_all cannot be imported"]),
        ("{}:modell", ["no function 'modell'", "did you mean 'model'"]),
        ("{}:nothing", ["returned a NoneType", "torch.nn.Module"]),
        ("{}:adamw", ["returned a AdamW", "a MARS or a model"]),
        ("{}:broken", ["failed: KeyError", "data"]),
    ],
)
def test_a_mistake_gives_one_line(
    folder: str, target: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", target.format(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mars: error: ")
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


def test_an_unknown_rule_is_named(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"{folder}:model", "--rule", "moun"]) == 2
    assert "did you mean 'muon'" in capsys.readouterr().err
