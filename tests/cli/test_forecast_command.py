"""``mars forecast``: a table in, ratios or one line out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.plan.target import TargetPlan
from tests.support.scaled_pilot import ONE_SIZE, write_scaled
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


@pytest.mark.slow
def test_a_pilots_folder_answers_at_its_own_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pilot = str(write_scaled(tmp_path / "pilot"))
    assert main(["forecast", pilot, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["baseline"] == "adamw"
    assert data["target"] == {"parameters": 6.4e7, "tokens": 1.28e9}
    assert set(data["arms"]) == {"nadamw", "mars-adamw"}
    assert main(["forecast", pilot, "--tokens", "6.4e8"]) == 0
    assert "6.4e+08 tokens" in capsys.readouterr().out


@pytest.mark.slow
def test_pilots_and_tables_go_together(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half, rest = Path("half.csv"), Path("rest.csv")
    head, *lines = Path("runs.csv").read_text().splitlines()
    half.write_text("\n".join([head, *lines[::2]]))
    rest.write_text("\n".join([head, *lines[1::2]]))
    assert main(["forecast", "half.csv", "rest.csv", *TARGET]) == 0
    together = capsys.readouterr().out
    assert main(["forecast", "--from", "runs.csv", *TARGET]) == 0
    assert capsys.readouterr().out == together


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["mars forecast RUN"]),
        (["."], [".", "holds no pilot"]),
        (["begun"], ["begun holds no finished run yet"]),
        (["runs.csv", *TARGET[2:]], ["--baseline is needed", "no plan of a pilot has it"]),
        (["pilot", "--tokens", "1e9"], ["--parameters is needed"]),
        (["pilot", "other"], ["--tokens is needed", "1e+09 and 2e+09"]),
        (["trunk", *TARGET], ["trunk has training.trunk = true", "independent"]),
        (["rates", *TARGET], ["rates decides by decision.metric = 'bits_per_byte'"]),
    ],
    ids=[
        "nothing",
        "no pilot",
        "no run",
        "baseline",
        "no target",
        "two targets",
        "trunk",
        "metric",
    ],
)
def test_what_cannot_be_forecast_is_one_line(
    arguments: list[str], words: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(ONE_SIZE, target=TargetPlan())
    metric = DecisionPlan(metric="bits_per_byte", direction="down")
    write_scaled(Path("pilot"), plan)
    write_scaled(Path("rates"), replace(plan, decision=metric))
    branched = replace(plan.training, decay="wsd", trunk=True)
    Path("trunk").mkdir()
    Path("trunk/plan.toml").write_text(plan_toml(replace(plan, training=branched, scale={})))
    if "other" in arguments:
        for name, tokens in (("pilot", 1e9), ("other", 2e9)):
            target = TargetPlan(parameters=1e6, tokens=tokens)
            write_scaled(Path(name), replace(ONE_SIZE, target=target))
    Path("begun").mkdir()
    Path("begun/plan.toml").write_text("")
    assert main(["forecast", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
