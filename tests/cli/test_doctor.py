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

number = 3

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
        ("{}:number", ["is a int, not a function", "mars doctor {}.py"]),
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
        assert word.format(folder) in error


def test_an_unknown_rule_is_named(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"{folder}:model", "--rule", "moun"]) == 2
    assert "did you mean 'muon'" in capsys.readouterr().err


TRAINS = """
import sys
import torch
import mars_optim

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 4))
optimizer = {optimizer}
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
print("arguments", sys.argv[1:])
for step in range(3):
    model(torch.arange(5)).sum().backward()
    optimizer.step()
    print("stepped")
"""


def train(optimizer: str) -> None:
    Path("train.py").write_text(TRAINS.format(optimizer=optimizer))


def test_a_script_runs_up_to_its_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    train("mars_optim.MARSAdamW(model.parameters(), lr=0.01)")
    assert main(["doctor", "train.py", "--steps", "7"]) == 0
    output = capsys.readouterr().out
    assert "arguments ['--steps', '7']" in output
    assert "stepped" not in output
    assert "matrix  adamw" in output


def test_another_optimizer_is_shown_swapped(capsys: pytest.CaptureFixture[str]) -> None:
    train("torch.optim.AdamW(model.parameters(), lr=0.0123, weight_decay=0.045)")
    assert main(["doctor", "train.py"]) == 0
    output = capsys.readouterr().out
    assert "Your optimizer is AdamW, not a MARS yet. With MARSAdamW in its place" in output
    assert "0.0123" in output  # and not the 0 of the schedule's first step
    assert "0.045" in output


@pytest.mark.parametrize(
    "optimizer",
    [
        "torch.optim.SparseAdam(model[0].parameters())",
        "mars_optim.MARSAdamW(model.parameters())",
    ],
)
def test_a_sparse_gradient_gets_a_line_of_its_own(
    optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(optimizer)
    script = Path("train.py")
    script.write_text(script.read_text().replace("(50, 8)", "(50, 8, sparse=True)"))
    assert main(["doctor", "train.py"]) == 0
    line = (
        "\n! MARSAdamW does not take sparse gradients (parameter 0 of group 0, shape (50, 8)): use"
    )
    assert line in capsys.readouterr().out


def test_another_rule_finds_the_scripts_model(capsys: pytest.CaptureFixture[str]) -> None:
    train("torch.optim.SGD(model.parameters(), lr=0.1)")
    assert main(["doctor", "train.py", "--rule", "muon"]) == 0
    output = capsys.readouterr().out
    assert "muon" in output
    assert "nn.Embedding" in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["without an optimizer step"]),
        ("raise SystemExit(2)", ["before an optimizer step (exit 2)", "--lr 0.1"]),
        ("x = 1\nraise KeyError('data')", ["line 2", "KeyError", "data"]),
        ("def (", ["SyntaxError"]),
    ],
)
def test_a_script_without_a_step_gives_one_line(
    text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("train.py").write_text(text)
    assert main(["doctor", "train.py"]) == 2
    *first, error = capsys.readouterr().err.splitlines()
    assert first == ["Running train.py up to its first optimizer step ..."]
    for word in words:
        assert word in error


def test_a_script_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "trian.py"]) == 2
    assert "trian.py does not exist" in capsys.readouterr().err


def test_a_module_that_reads_arguments_sees_none_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "import argparse\nargparse.ArgumentParser().parse_args()\n" + SCRIPT
    Path("reads_arguments.py").write_text(text)
    assert main(["doctor", "reads_arguments:optimizer"]) == 0
    assert "matrix" in capsys.readouterr().out
