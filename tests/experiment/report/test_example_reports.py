"""The reports in docs/ are what ``mars report`` makes of the runs that are packed beside them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from tests.support.paths import ROOT

EXAMPLES = ("example", "example-win", "example-undecided")


def numbers(path: Path) -> str:
    """A report without the version and the text of the plan, which others look after."""
    text = re.sub(r"mars-optim \S+|\"mars_optim\": \S+", "", path.read_text(encoding="utf-8"))
    return re.sub("^```toml.*?^```", "", text, flags=re.S | re.M)


def assert_close(found: Any, kept: Any) -> None:
    """The same but for rounding: machines add up in another order."""
    if isinstance(kept, dict):
        assert found.keys() == kept.keys()
        for key in kept:
            assert_close(found[key], kept[key])
    elif isinstance(kept, list):
        assert len(found) == len(kept)
        for pair in zip(found, kept, strict=True):
            assert_close(*pair)
    elif isinstance(kept, float):
        assert found == pytest.approx(kept, rel=1e-7, abs=1e-8)
    else:
        assert found == kept


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_example_is_made_again_from_its_packed_runs(
    example: str, lang: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = Path("docs") / example, ROOT / "docs" / example
    monkeypatch.chdir(tmp_path)
    out.mkdir(parents=True)
    for name in ("plan.toml", "probe.json", "runs.tar.xz"):
        shutil.copy(kept / name, out / name)
    assert main(["report", str(out), "--lang", lang]) == 0
    suffix = {"en": "", "ja": ".ja"}[lang]
    assert numbers(out / f"report{suffix}.md") == numbers(kept / f"report{suffix}.md")
    assert_close(*(json.loads(numbers(folder / "verdict.json")) for folder in (out, kept)))
    assert (out / f"report{suffix}.html").read_text(encoding="utf-8").startswith("<!doctype")
    assert {p.name for p in out.glob("figures/*")} <= {p.name for p in kept.glob("figures/*")}


def test_a_damaged_archive_gives_one_line_and_leaves_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "docs/example/plan.toml", tmp_path)
    whole = (ROOT / "docs/example/runs.tar.xz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive"):
        (tmp_path / "runs.tar.xz").write_bytes(damaged)
        assert main(["report", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "runs.tar.xz cannot be unpacked" in error
        assert len(error.splitlines()) == 1
        assert {p.name for p in tmp_path.iterdir()} == {"plan.toml", "runs.tar.xz"}
