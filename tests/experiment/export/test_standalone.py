"""An optimizer as one file: the library's bits, torch alone, and the command that writes it."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.export.inline import inlined
from mars_optim.experiment.export.specialise import specialised
from mars_optim.experiment.export.standalone import (
    FORMS,
    export_standalone,
    exportable,
    standalone,
)
from mars_optim.optimizer_options import NAMED
from tests.support.paths import ROOT

Gamma = str | float | None
# all that the command takes: a name, and its own gamma, one that is chosen, or a number
CASES: list[tuple[str, Gamma]] = list(product(exportable(), (None, "auto", 0.07)))
RUNS = [(name, gamma, "float32") for name, gamma in CASES]
RUNS += [("mars-adamw-auto", None, "float64"), ("mars-m", None, "float64")]
RUNS += [("mars-m", "auto", "float64"), ("mars-shampoo", "auto", "float64")]
text_of = functools.cache(standalone)
every_case = pytest.mark.parametrize(("name", "gamma"), CASES)


# --- the same bits -------------------------------------------------------------------------------


@functools.cache
def runs_of(name: str) -> Any:
    """The runs of one name beside the library, in a process that has no kernels of ours."""
    env = {**os.environ, "MARS_OPTIM_NATIVE": "0"}
    mine = json.dumps([run for run in RUNS if run[0] == name])
    command = [sys.executable, "-m", "tests.experiment.export.standalone_run", mine]
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gamma", "dtype"), RUNS)
def test_200_steps_and_a_resume_have_the_bits_of_foreach(
    name: str, gamma: Gamma, dtype: str
) -> None:
    run = runs_of(name)[f"{name} {gamma} {dtype}"]
    assert run["differs"] is None
    assert run["moved"] == 6  # all but the empty one
    chosen = gamma == "auto" or (gamma is None and name.endswith("auto"))
    assert run["gammas"] >= 5 if chosen else run["gammas"] == 1


@pytest.mark.slow
def test_norm_of_a_long_tensor_has_the_bits_too() -> None:
    assert runs_of("mars-adamw")["long"] == {"differs": None, "moved": 3, "gammas": 1}


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.slow_but_one(among=7)
@every_case
def test_file_imports_torch_and_the_standard_library_alone(name: str, gamma: Gamma) -> None:
    tree = ast.parse(text_of(name, gamma=gamma))
    found = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    found |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert found <= {"torch", "math", "types", "typing", "__future__"}


@pytest.mark.slow_but_one(among=7)
@pytest.mark.parametrize("form", ["optimizer", "speedrun"])
@every_case
def test_file_has_at_most_250_lines_with_its_licence(name: str, gamma: Gamma, form: str) -> None:
    text = text_of(name, form, gamma=gamma)
    matrix = NAMED[name].get("rule", "adamw") in ("muon", "shampoo")
    assert len(text.splitlines()) <= (250 if matrix else 165)  # both forms of Newton-Schulz
    assert "Apache License, Version 2.0" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.slow_but_one(among=7)
@every_case
def test_file_names_the_command_that_writes_it(name: str, gamma: Gamma) -> None:
    option = "" if gamma is None else f" --gamma {gamma}"
    assert f"    mars export --standalone {name}{option} OUT.py\n" in text_of(name, gamma=gamma)


RUFF = [sys.executable, "-m", "ruff"]
AS_OURS = ["--isolated", "--no-cache", "--line-length", "100"]


@pytest.mark.slow
def test_files_have_every_name_they_use_and_ruffs_format(tmp_path: Path) -> None:
    for number, (form, (name, gamma)) in enumerate(product(FORMS, CASES)):
        (tmp_path / f"{name.replace('-', '_')}_{number}.py").write_text(
            text_of(name, form, gamma=gamma)
        )
    for command in (["check", "--select", "F,E,W"], ["format", "--diff"]):
        done = subprocess.run(
            [*RUFF, *command, *AS_OURS, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout


def example(settings: Any, steps: list[int] | None = None, shards: Any = None) -> Any:
    """Does things.

    At length.
    """
    # first of all
    if shards is None and settings.long:
        return max(
            1,
            2,
        )  # as it was
    total: int = 3 if settings.long else 4
    # then the rest
    return example(settings, shards=shards) + total


def test_specialised_text_keeps_comments_and_what_did_not_change() -> None:
    truths = {"shards is None": True}
    assert (
        specialised(example, truths, without={"shards"})
        == '''\
def example(settings, steps=None):
    """Does things."""
    # first of all
    if settings.long:
        return max(
            1,
            2,
        )  # as it was
    total = 3 if settings.long else 4
    # then the rest
    return example(settings) + total'''
    )


def test_specialised_text_loses_what_can_never_be_reached() -> None:
    truths = {"shards is None": True, "settings.long": True}
    assert specialised(example, truths).splitlines()[-4:] == [
        "    return max(",
        "        1,",
        "        2,",
        "    )  # as it was",
    ]


@pytest.mark.slow_but_one(among=7)
@every_case
def test_file_has_no_function_that_is_called_once(name: str, gamma: Gamma) -> None:
    text = text_of(name, gamma=gamma)
    tree = ast.parse(text)
    called = [
        n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and hasattr(n.func, "id")
    ]
    once = {
        n.name for n in tree.body if isinstance(n, ast.FunctionDef) and called.count(n.name) == 1
    }
    # these return early or are generators
    assert once <= {"_directions", "batches", "tensor_norm"}
    assert inlined(text) == text


# --- the command ---------------------------------------------------------------------------------


def test_command_writes_a_file_that_can_be_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.py"
    main(["export", "--standalone", "mars-adamw-auto", str(out)])
    assert f"{out} written, 140 lines" in capsys.readouterr().out
    scope: dict[str, Any] = {"__name__": "mine"}
    exec(compile(out.read_text(), str(out), "exec"), scope)
    assert issubclass(scope["MarsAdamwAuto"], torch.optim.Optimizer)


def test_file_refuses_float16_in_which_eps_is_zero() -> None:
    scope: dict[str, Any] = {"__name__": "mine"}
    exec(compile(text_of("lion"), "mine.py", "exec"), scope)
    half = [nn.Parameter(torch.ones(shape, dtype=torch.float16)) for shape in ((3, 2), (4,))]
    with pytest.raises(ValueError, match="float16 rounds eps to 0: use float32 parameters, or mar"):
        scope["Lion"](half)
    scope["Lion"]([nn.Parameter(p.detach().bfloat16()) for p in half])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name": (dict(name="mars-adam"), "mars-adam must be one of .*; did you mean 'mars-adamw'"),
    "exact": (
        dict(name="mars-adamw-exact"),
        "a single file cannot have correction='exact'; take one of",
    ),
    "schedule": (dict(name="mars-adamw-decay"), "a single file cannot have gamma_schedule='lr'"),
    "cautious": (dict(name="mars-adamw-cautious"), "a single file cannot have cautious=True"),
    "split": (dict(name="muon-split"), "a single file cannot have split='fused'"),
    "global": (dict(name="mars-adamw-clip-all"), "a single file cannot have clip_over='global'"),
    "form": (
        dict(form="algoperf"),
        "--form algoperf must be one of .*mean 'algoperf-self'",
    ),
    "gamma": (dict(gamma="much"), "--gamma much must be auto, or a number above 0"),
    "gamma-0": (dict(gamma="0"), "--gamma 0 must be auto, or a number above 0"),
    "suffix": (
        dict(out="mine.txt"),
        "does not end in .py: mars export --standalone mars",
    ),
    "folder": (dict(out="none/mine.py"), "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_one_file_cannot_be_is_refused_in_a_line(case: str, tmp_path: Path) -> None:
    options, message = REFUSED[case]
    given = {"name": "mars-adamw", "out": "mine.py", **options}
    with pytest.raises(UserError, match=message) as error:
        export_standalone(given.pop("name"), tmp_path / given.pop("out"), **given)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tuning_search_space.json").write_text("mine")
    with pytest.raises(UserError, match="exists: give another name, or remove it"):
        export_standalone("mars-adamw", tmp_path / "a.py", form="algoperf-external")
    assert [p.name for p in tmp_path.iterdir()] == ["tuning_search_space.json"]


@pytest.mark.slow
def test_names_that_can_be_a_file_are_all_that_are_not_refused() -> None:
    def works(name: str) -> bool:
        try:
            return bool(standalone(name))
        except UserError:
            return False

    assert exportable() == [name for name in NAMED if works(name)]
