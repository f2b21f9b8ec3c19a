"""Files cut short or overwritten: made again, or said to be missing. Never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.hurt import Pilot, reasons_of

RUN = "mars-adamw-lr0.0031-seed1"
GARBAGE = {
    "empty": b"",
    "cut": b'{"format": 1, "run_id": "mars-adam',
    "binary": b"\x00\xff\xfe\x89PNG",
    "a number": b"7",
    "another table": b'{"hello": "world"}',
    "nested without end": b"[" * 100_000,
}


@pytest.fixture
def pilot_copy(undisturbed: Pilot, tmp_path: Path) -> Pilot:
    """An undisturbed pilot's folder, to be damaged."""
    shutil.copytree(undisturbed.out, tmp_path / "pilot")
    (tmp_path / "pilot" / "computed.txt").unlink()
    return Pilot(tmp_path / "pilot")


def of_run(pilot: Pilot, name: str) -> Path:
    (path,) = (pilot.out / "runs").glob(f"{RUN}*/{name}")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("garbage", ["cut", "binary"])
def test_only_a_run_with_a_damaged_manifest_is_made_again(
    pilot_copy: Pilot, undisturbed: Pilot, garbage: str
):
    manifest = of_run(pilot_copy, "manifest.json")
    manifest.write_bytes(GARBAGE[garbage])
    done = pilot_copy.run()
    assert done.returncode == 0, done.stderr
    assert f"{manifest.parent}: its manifest is damaged, so the run is repeated" in done.stdout
    assert pilot_copy.computed() == [manifest.parent.name]
    assert pilot_copy.tables() == undisturbed.tables()
    kept = manifest.with_name("manifest.json.damaged")
    assert kept.read_bytes() == GARBAGE[garbage]


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["probe.json", "failures.jsonl", "rows.jsonl"])
def test_garbage_in_other_files_costs_no_finished_run(
    pilot_copy: Pilot, undisturbed: Pilot, name: str
):
    folder = of_run(pilot_copy, "manifest.json").parent if "jsonl" in name else pilot_copy.out
    (folder / name).write_bytes(GARBAGE["binary"])
    done = pilot_copy.run()
    assert done.returncode == 0, done.stderr
    assert pilot_copy.computed() == []
    assert pilot_copy.losses() == undisturbed.losses()
    if name == "rows.jsonl":
        assert f"{folder.name}: its curve lacks rows.jsonl after line 0" in pilot_copy.reasons()
    else:
        assert pilot_copy.tables() == undisturbed.tables()


@pytest.mark.slow_but_one(among=3)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_report_says_which_manifests_are_damaged(pilot_copy: Pilot, garbage: str):
    from mars_optim.experiment.analysis import analyse

    manifest = of_run(pilot_copy, "manifest.json")
    manifest.write_bytes(GARBAGE[garbage])
    verdict = analyse(pilot_copy.out).verdict
    assert verdict.decision == "not-enough-runs"
    assert f"{manifest.parent.name}: its manifest.json is damaged" in reasons_of(verdict.reasons)


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    "tail", [b'{"step": 11, "lo', b"\x00\x00\x00", b"3\n", b"[1]\n", b"null\n"]
)
def test_rows_before_a_damaged_last_line_still_count(pilot_copy: Pilot, tail: bytes):
    from mars_optim.experiment.analysis import analyse

    before = analyse(pilot_copy.out)
    with of_run(pilot_copy, "rows.jsonl").open("ab") as file:
        file.write(tail)
    after = analyse(pilot_copy.out)
    assert after.arms == before.arms
    (new,) = [r for r in after.verdict.reasons if r not in before.verdict.reasons]
    line = reasons_of([new])
    assert line.startswith(RUN)
    assert line.endswith("its curve lacks rows.jsonl after line 11.")
