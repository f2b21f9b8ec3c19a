"""Modules that read numbers do not load those that train, and the package waits until it is
asked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = [
    *("torch", "scipy", "matplotlib", "accelerate", "rich", "numpy", "jinja2", "cyclopts"),
    *("pydantic", "tomlkit", "filelock"),
]
PLAN = {"pydantic", "tomlkit", "filelock"}


def loaded_by(code: str) -> set[str]:
    script = (
        f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import mars_optim; mars_optim.__version__; dir(mars_optim)", set()),
        ("import mars_optim.experiment.records", PLAN),
        ("import mars_optim.errors, mars_optim.files, mars_optim.toml", set()),
        (
            "from mars_optim.experiment.external import command_run, imported",
            PLAN,
        ),
        ("import mars_optim.integrations.plain", set()),
        ("from mars_optim.experiment.export import scalars, tensorboard, trackio, wandb", PLAN),
        ("import mars_optim.experiment.analysis", {"numpy", *PLAN}),
        (
            "import mars_optim.experiment.analysis.verdict, mars_optim.experiment.analysis.ladder",
            {"numpy", *PLAN},
        ),
        (
            "from mars_optim.experiment.analysis import stats; stats.t_interval([1.0, 2.0], 0.9)",
            {"numpy", "scipy", *PLAN},
        ),
        ("import mars_optim.experiment.pilot", {"rich", "numpy", *PLAN}),
        ("import mars_optim; mars_optim.MARSAdamW", {"torch", "numpy"}),
        ("from mars_optim import MARS, param_groups", {"torch", "numpy"}),
        ("from mars_optim import BaselineRecorder, Guard, GuardSettings", {"torch", "numpy"}),
        ("import mars_optim.guard.settings, mars_optim.guard.detector", set()),
    ],
)
def test_an_import_loads_no_more_than_it_needs(code: str, allowed: set[str]):
    assert loaded_by(code) <= allowed


def test_touching_an_optimizer_loads_torch():
    assert "torch" in loaded_by("import mars_optim; mars_optim.MARSAdamW")


MISSING = """
import mars_optim
try:
    mars_optim.AdamV
except AttributeError as error:
    assert "AdamV" in str(error)
else:
    raise SystemExit(1)
"""


def test_missing_attribute_of_package_raises_and_loads_nothing():
    assert loaded_by(MISSING) == set()
