"""Arrays cut over a mesh of devices train as on one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.jax.sharded_run import FORMS
from tests.support.paths import ROOT

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def runs() -> Any:
    env = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.jax.sharded_run"]
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_eight_devices_equal_one(form: str, runs: Any) -> None:
    assert runs[form]["devices"] == 8
    assert runs[form]["state_is_cut_alike"]
    assert runs[form]["apart"] < 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("form", [name for name in FORMS if name.startswith(("adamw", "lion"))])
def test_steps_element_by_element_gather_nothing(form: str, runs: Any) -> None:
    assert runs[form]["gathered"] == 0
    assert runs["muon"]["gathered"] > 0  # Newton-Schulz needs whole matrices
