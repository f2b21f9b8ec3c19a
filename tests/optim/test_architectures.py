"""``param_groups(rule="muon")`` on public architectures, built from their configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import architectures

pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own are not ours to fix
EXPECTED = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))


def test_each_architecture_has_its_list() -> None:
    assert EXPECTED.keys() == architectures.ARCHITECTURES.keys()


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_newton_schulz_gets_exactly_the_architecture_matrices(
    name: str,
) -> None:
    found = architectures.roles(architectures.build(name))
    assert {kind: sorted(names) for kind, names in found.items()} == {
        kind: sorted(names) for kind, names in EXPECTED[name].items()
    }


@pytest.mark.skipif(not architectures.PAGE.exists(), reason="docs are not in this copy")
def test_page_of_architectures_is_what_its_command_makes() -> None:
    assert architectures.PAGE.read_text(encoding="utf-8") == architectures.page()
