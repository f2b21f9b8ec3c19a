"""The report shows the noise that the candidate's runs recorded, and what MARS did to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.report import Messages, write_report
from tests.support.written_pilot import write_pilot


def group(signal: float, noise: float, *, tensors: int = 1, clip: float = 0.0) -> dict[str, float]:
    return {
        "gradient": (signal + noise) ** 0.5,
        "signal": signal,
        "noise": noise,
        "correction_ratio": 0.5,
        "clip_rate": clip,
        "gamma": 0.025,
        "tensors": tensors,
    }


def add_noise(out: Path) -> None:
    """To the candidate's training rows: two groups, whose noise grows from row to row."""
    for run in read_runs(out / "runs"):
        if run.spec.arm_name != "mars-adamw" or run.spec.purpose != "compare":
            continue
        rows = []
        for i, row in enumerate(run.rows):
            if "loss" in row:
                groups = {"matrix": group(1.0, 3.0 + i, tensors=3), "embedding": group(1.0, 1.0)}
                groups["matrix"]["clip_rate"] = 1.0
                noise = {f"{k}/{name}": v for name, g in groups.items() for k, v in g.items()}
                row = {**row, "noise": noise}
            rows.append(json.dumps(row) + "\n")
        (run.path / "rows.jsonl").write_text("".join(rows), encoding="utf-8")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_pilot(tmp_path / "pilot", speedup=1.2, comparison__seeds="[1, 2]")
    return tmp_path / "pilot"


def test_groups_are_taken_together_and_seeds_averaged(out: Path) -> None:
    add_noise(out)
    points = analyse(out).noise
    assert [p.tokens for p in points] == [512 * step for step in (250, 500, 750, 1000)]
    first, *_, last = points
    assert (first.signal, first.noise, last.noise) == pytest.approx((2.0, 4.0, 7.0))
    assert first.scale == pytest.approx(2.0)
    assert first.correction_ratio == pytest.approx(0.5)
    assert first.clip_rate == pytest.approx(0.75)


@pytest.mark.slow
def test_noise_without_signal_has_infinite_scale_and_is_drawn(out: Path) -> None:
    add_noise(out)
    for path in (out / "runs").glob("mars-adamw-*/rows.jsonl"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"signal/matrix": 1.0', '"signal/matrix": -5.0'))
    assert analyse(out).noise[0].scale == float("inf")
    write_report(analyse(out), out)


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_page_shows_the_numbers_first_and_two_pictures(out: Path, lang: str) -> None:
    add_noise(out)
    words = Messages(lang)  # type: ignore[arg-type]
    page, *_ = write_report(analyse(out), out, words)
    source = page.read_text(encoding="utf-8")
    assert words("figure.course.noise") in source
    assert words("figure.course.correction") in source
    assert "mathdefault" not in source  # labels are the browser's text
    said = {"en": "Noise scale 2 batches at the start and 3.5 at the end", "ja": "初めで 2 バッチ"}
    assert said[lang] in source


@pytest.mark.slow
def test_without_recorded_noise_the_page_says_nothing_of_it(out: Path) -> None:
    analysis = analyse(out)
    assert analysis.noise == ()
    page, *_ = write_report(analysis, out)
    assert "Noise scale" not in page.read_text(encoding="utf-8")
